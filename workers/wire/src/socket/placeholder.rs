//! Placeholders of binary packets: `{"_placeholder":true,"num":N}`.
//!
//! A wrong one that is passed on makes the *receiver's* parser close its connection, so keys are
//! compared unescaped and a repeated key's last value counts, as `JSON.parse` has it.

use crate::{Error, json};

/// Checks what the stock clients' parsers ask of a packet with attachments: at most `max` of them (socket.io-parser
/// `maxAttachments`), and every placeholder in the validated JSON names one of them. Says how many placeholders there are.
///
/// Every packet that a client is to read passes here, whatever it was sent by, and so does what is read from the log.
/// It costs nothing for packets without attachments: in those, such objects are ordinary data.
///
/// # Errors
/// [`Error::TooManyAttachments`]; [`Error::PlaceholderInvalid`]. Text that was not validated may give any answer, but no
/// panic.
pub fn check_attachments(text: &str, attachments: usize, max: usize) -> Result<usize, Error> {
    if attachments > max {
        return Err(Error::TooManyAttachments { max });
    }
    if attachments == 0 {
        return Ok(0);
    }
    placeholders(text, attachments)
}

/// Checks that every placeholder in validated JSON names one of `attachments`, and counts them.
/// Several may name the same one, and an attachment need not be named (socket.io-parser
/// `_reconstructPacket`). Not meaningful for packets without attachments.
///
/// JavaScript takes `"_placeholder":true` for the mark; python-socketio anything that is true in Python, if there is a
/// `num`. What only one of them takes for a placeholder has to name an attachment too.
///
/// # Errors
/// [`Error::PlaceholderInvalid`]: `num` is missing, no integer in plain digits, or not below
/// `attachments`. Text that was not validated may give any answer, but no panic.
pub fn placeholders(text: &str, attachments: usize) -> Result<usize, Error> {
    let mut count = 0;
    walk(text, |placeholder| {
        let num = placeholder.num.and_then(|(_, num)| num.parse::<usize>().ok());
        match (placeholder.mark, num) {
            (_, Some(num)) if num < attachments => count += usize::from(placeholder.mark == Mark::True),
            (Mark::Truthy, None) if placeholder.num.is_none() => {}
            _ => return Err(Error::PlaceholderInvalid),
        }
        Ok(())
    })?;
    Ok(count)
}

/// A part of a valid packet on its own: its placeholders numbered anew from 0, and the attachments that they stand for.
/// All else in the JSON stays as it is written.
#[must_use]
pub fn renumber<T: Clone>(text: &str, attachments: &[T]) -> (String, Vec<T>) {
    let (mut kept, mut numbers) = (Vec::new(), Vec::new());
    if attachments.is_empty() {
        return (text.to_owned(), kept);
    }
    let mut known: Vec<usize> = Vec::new();
    // A valid packet has no invalid placeholder.
    let walked = walk(text, |placeholder| {
        let Some((at, digits)) = placeholder.num else {
            return Ok(());
        };
        let num = digits.parse().map_err(|_| Error::PlaceholderInvalid)?;
        let attachment: &T = attachments.get(num).ok_or(Error::PlaceholderInvalid)?;
        let new = known.iter().position(|old| *old == num).unwrap_or_else(|| {
            known.push(num);
            kept.push(attachment.clone());
            known.len() - 1
        });
        numbers.push((at, digits.len(), new));
        Ok(())
    });
    if walked.is_err() {
        return (text.to_owned(), Vec::new());
    }
    numbers.sort_unstable();
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for (at, length, new) in numbers {
        out.push_str(text.get(done..at).unwrap_or_default());
        out.push_str(itoa::Buffer::new().format(new));
        done = at + length;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    (out, kept)
}

/// What the value of `_placeholder` makes of an object.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    None,
    /// `true`: a placeholder everywhere.
    True,
    /// Something else that may be true in Python.
    Truthy,
}

/// What was seen of an object so far.
#[derive(Clone, Copy, Default)]
struct Object<'a> {
    mark: Mark,
    /// Value of `num`, and where it stands. Empty if it begins like no number.
    num: Option<(usize, &'a str)>,
}

/// Calls back for each object that has a mark, at its end.
fn walk<'a>(text: &'a str, mut found: impl FnMut(Object<'a>) -> Result<(), Error>) -> Result<(), Error> {
    let mut open: Vec<Object<'a>> = Vec::new(); // arrays are in it too, without a mark
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        match byte {
            b'{' | b'[' => {
                open.push(Object::default());
                rest = skip(rest, 1);
            }
            b'}' | b']' => {
                let object = open.pop().unwrap_or_default();
                if object.mark != Mark::None {
                    found(object)?;
                }
                rest = skip(rest, 1);
            }
            b'"' => {
                let (key, after) = json::split_value(rest);
                rest = after;
                if let (Some(value), Some(object)) = (after.strip_prefix(':'), open.last_mut()) {
                    rest = json::trim_start(value);
                    object.read(key, rest, text.len() - rest.len());
                }
            }
            _ => rest = skip_plain(rest),
        }
    }
    Ok(())
}

impl<'a> Object<'a> {
    /// Notes a key whose value `rest` begins with; it stands at `at` in the whole.
    fn read(&mut self, key: &str, rest: &'a str, at: usize) {
        let unescaped = key.contains('\\').then(|| json::string(key).unwrap_or_default());
        let key = match &unescaped {
            Some(key) => key,
            None => key.trim_matches('"'),
        };
        match key {
            // Only scalars matter: cutting out nested values at each level would be quadratic.
            "_placeholder" => {
                self.mark = match rest.as_bytes() {
                    [b't', ..] => Mark::True,
                    [b'f' | b'n', ..] => Mark::None,
                    _ => Mark::Truthy,
                }
            }
            "num" if rest.starts_with(|c: char| c.is_ascii_digit()) => self.num = Some((at, json::split_value(rest).0)),
            "num" => self.num = Some((at, "")),
            _ => {}
        }
    }
}

fn skip(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or("")
}

/// Drops numbers, words, commas and white space up to the next bracket or string.
fn skip_plain(text: &str) -> &str {
    let end = text.bytes().position(|b| b"\"[]{}".contains(&b));
    skip(text, end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_placeholders() {
        let bad = Err(Error::PlaceholderInvalid);
        let check = |text: &str, attachments, expect: Result<usize, Error>| {
            assert_eq!(json::validate(text, 64), Ok(()), "{text}");
            assert_eq!(placeholders(text, attachments), expect, "{text}");
        };
        check("[]", 1, Ok(0));
        check(r#"["a",{"_placeholder":true,"num":0}]"#, 1, Ok(1));
        check(r#"["a",{"_placeholder":true,"num":1}]"#, 1, bad);
        check(r#"["a",{"num":1,"_placeholder":true}]"#, 1, bad);
        check(r#"["a",{ "num" : 0 , "_placeholder" : true }]"#, 1, Ok(1));
        check(r#"["a",{"_placeholder":true}]"#, 1, bad);
        check(r#"["a",{"_placeholder":true,"num":-1}]"#, 1, bad);
        check(r#"["a",{"_placeholder":true,"num":0.5}]"#, 1, bad);
        check(r#"["a",{"_placeholder":true,"num":"0"}]"#, 1, bad);
        check(r#"["a",{"_placeholder":true,"num":[0]}]"#, 1, bad);
        check(r#"["a",{"_placeholder":true,"num":99999999999999999999}]"#, 1, bad);
        check(r#"["a",{"_placeholder":false,"num":7}]"#, 1, Ok(0));
        // Node keeps it as data; python-socketio looks for the attachment, and a client of it would fail.
        check(r#"["a",{"_placeholder":1,"num":7}]"#, 1, bad);
        check(r#"["a",{"_placeholder":"x","num":[]}]"#, 1, bad);
        check(r#"["a",{"_placeholder":{},"num":0}]"#, 1, Ok(0));
        check(r#"["a",{"_placeholder":1}]"#, 1, Ok(0));
        check(r#"["a",{"_placeholder":null,"num":7}]"#, 1, Ok(0));
        check(r#"["a",{"_placeholder":true,"num":7,"_placeholder":null}]"#, 1, Ok(0));
        check(r#"["a",{"_placeholder":true,"num":7,"num":0}]"#, 1, Ok(1));
        check(r#"["a",{"_placeholder":true,"num":0,"num":7}]"#, 1, bad);
        check(r#"["a",{"\u005fplaceholder":true,"n\u0075m":7}]"#, 1, bad);
        check(r#"["a",{"\ud800":true,"num":7}]"#, 1, Ok(0));
        check(r#"["a","_placeholder",true,"num",7]"#, 1, Ok(0));
        check(r#"["a","{\"_placeholder\":true}"]"#, 1, Ok(0));
        check(
            r#"["a",{"b":[{"_placeholder":true,"num":0},{"c":{"_placeholder":true,"num":1}}]}]"#,
            2,
            Ok(2),
        );
        check(r#"["a",{"num":9,"b":{"_placeholder":true,"num":0}}]"#, 1, Ok(1));
        for nonsense in ["\"", "{", "}}]]", "{\"_placeholder\":", "{\"a", "\\", "é\"é"] {
            assert_ne!(placeholders(nonsense, 1), Ok(9), "{nonsense}");
        }
    }

    #[test]
    fn attachments_are_counted_first() {
        let text = r#"["a",{"_placeholder":true,"num":10}]"#;
        assert_eq!(check_attachments(text, 0, 10), Ok(0));
        assert_eq!(check_attachments(text, 10, 10), Err(Error::PlaceholderInvalid));
        assert_eq!(check_attachments(text, 11, 11), Ok(1));
        assert_eq!(
            check_attachments(text, 11, 10),
            Err(Error::TooManyAttachments { max: 10 })
        );
    }

    #[test]
    fn a_part_takes_only_its_own_attachments_along() {
        let check = |text: &str, expect: &str, kept: &[&str]| {
            assert_eq!(renumber(text, &["a", "b", "c"]), (expect.to_owned(), kept.to_vec()));
        };
        check(
            r#"{"z":{"_placeholder":true,"num":2},"a":[{"_placeholder":true,"num":1},{"_placeholder":false,"num":1}]}"#,
            r#"{"z":{"_placeholder":true,"num":0},"a":[{"_placeholder":true,"num":1},{"_placeholder":false,"num":1}]}"#,
            &["c", "b"],
        );
        // Everything else stays as it was written: surrogates, digits, spaces; so does what names nothing.
        check(
            r#"[ "\ud800", 1e999, 12345678901234567890123, {"num" : 1 , "_placeholder" : true}, {"num":7}]"#,
            r#"[ "\ud800", 1e999, 12345678901234567890123, {"num" : 0 , "_placeholder" : true}, {"num":7}]"#,
            &["b"],
        );
        // Twice the same one; the last `num` counts.
        check(
            r#"[{"_placeholder":true,"num":0,"num":2},{"_placeholder":true,"num":2}]"#,
            r#"[{"_placeholder":true,"num":0,"num":0},{"_placeholder":true,"num":0}]"#,
            &["c"],
        );
        check(
            r#"{"_placeholder":true,"x":{"_placeholder":true,"num":2},"num":1}"#,
            r#"{"_placeholder":true,"x":{"_placeholder":true,"num":0},"num":1}"#,
            &["c", "b"],
        );
        check("[1 ]", "[1 ]", &[]);
        assert_eq!(
            renumber::<u8>(r#"[{"_placeholder":true,"num":0}]"#, &[]),
            (r#"[{"_placeholder":true,"num":0}]"#.to_owned(), vec![])
        );
    }
}
