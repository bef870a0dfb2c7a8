//! What is pushed over the log's channel: `e <epoch> <first> <length>,<length>…` and the entries,
//! `c <epoch> <seq> <incarnation> <number>`, the canary, or `l 0 0`: the ingest has no leader.

use bytes::Bytes;
use session::Offset;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// Where the head is.
    Canary { head: Offset, sender: String, number: u64 },
    /// A batch.
    Entries(Vec<(Offset, Bytes)>),
    /// The leader of the ingest stepped down.
    LeaseFree,
}

/// Reads a message; `None` if it is none of ours. A message that is not understood does no harm:
/// what it said is in the stream.
pub(super) fn parse(message: &Bytes) -> Option<Push> {
    let end = message.iter().position(|b| *b == b'\n')?;
    let line = std::str::from_utf8(message.get(..end)?).ok()?;
    let mut words = line.split(' ');
    let kind = words.next()?;
    let epoch = words.next()?.parse().ok()?;
    let seq: u64 = words.next()?.parse().ok()?;
    match kind {
        "c" => Some(Push::Canary {
            head: Offset::new(epoch, seq),
            sender: words.next()?.to_owned(),
            number: words.next()?.parse().ok()?,
        }),
        "e" => {
            let first = Offset::new(epoch, seq);
            batch(first, words.next()?, message.slice(end + 1..)).map(Push::Entries)
        }
        "l" => Some(Push::LeaseFree),
        _ => None,
    }
}

/// Takes a batch apart: `lengths` are those of its entries, which stand in `entries` one after the other.
pub(super) fn batch(first: Offset, lengths: &str, mut entries: Bytes) -> Option<Vec<(Offset, Bytes)>> {
    let mut batch = Vec::new();
    let mut offset = first;
    for length in lengths.split(',') {
        let length: usize = length.parse().ok()?;
        if length > entries.len() {
            return None;
        }
        batch.push((offset, entries.split_to(length)));
        offset = offset.next();
    }
    entries.is_empty().then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_canaries_are_read() {
        let entries = parse(&Bytes::from_static(b"e 9 3 2,0,3\nab\n\nc"));
        let expected = vec![
            (Offset::new(9, 3), Bytes::from_static(b"ab")),
            (Offset::new(9, 4), Bytes::new()),
            (Offset::new(9, 5), Bytes::from_static(b"\n\nc")),
        ];
        assert_eq!(entries, Some(Push::Entries(expected)));
        let canary = Push::Canary {
            head: Offset::new(9, 5),
            sender: "w-1".into(),
            number: 7,
        };
        assert_eq!(parse(&Bytes::from_static(b"c 9 5 w-1 7\n")), Some(canary));
        assert_eq!(parse(&Bytes::from_static(b"l 0 0\n")), Some(Push::LeaseFree));
        for bad in [
            &b""[..],
            b"\n",
            b"e 9 3 2\na",
            b"e 9 3 2\nabc",
            b"e 9 3\n",
            b"x 9 3 1\na",
            b"e 9 3 99999999999999999999\n",
        ] {
            assert_eq!(parse(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
