//! Lines onto a descriptor that may fail at any byte: whole, completed later, or dropped and counted.

use super::line::{Format, LINE_BYTES_MAX, compose};
use nix::errno::Errno;

/// What to write to, and what has gone wrong there so far.
pub(super) struct Sink<W> {
    write: W,
    /// The rest of a line that was begun.
    torn: Vec<u8>,
    /// Lines dropped that nothing in the log tells of yet.
    missing: u64,
}

/// Lines in these bytes.
pub(super) fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// As many whole lines as are written in one piece, and the rest.
fn split(lines: &[u8]) -> (&[u8], &[u8]) {
    let window = lines.get(..LINE_BYTES_MAX).unwrap_or(lines);
    let end = window.iter().rposition(|byte| *byte == b'\n');
    lines.split_at(end.map_or(lines.len(), |end| end + 1))
}

impl<W: FnMut(&[u8]) -> Result<usize, Errno>> Sink<W> {
    pub(super) const fn new(write: W) -> Self {
        Self {
            write,
            torn: Vec::new(),
            missing: 0,
        }
    }

    /// Writes lines. Returns how many were dropped.
    pub(super) fn put(&mut self, mut lines: &[u8], format: Format) -> u64 {
        let mut dropped = 0;
        while !lines.is_empty() {
            let (piece, rest) = split(lines);
            lines = rest;
            let lost = if self.settle(format) {
                self.piece(piece)
            } else {
                count(piece)
            };
            self.missing += lost;
            dropped += lost;
        }
        dropped
    }

    /// Lines were dropped elsewhere, after those that were put.
    pub(super) const fn miss(&mut self, lines: u64) {
        self.missing += lines;
    }

    /// Completes a line that was begun, and tells of those that are missing. Whether there is nothing more of this.
    pub(super) fn settle(&mut self, format: Format) -> bool {
        if !self.torn.is_empty() {
            let torn = std::mem::take(&mut self.torn);
            self.torn = self.rest_of(&torn).to_vec();
            if !self.torn.is_empty() {
                return false;
            }
        }
        if self.missing == 0 {
            return true;
        }
        let notice = compose(
            format,
            "WARN",
            "log lines dropped, they could not be written",
            Some(("dropped", self.missing)),
        );
        if self.piece(&notice) == 0 {
            self.missing = 0;
        }
        self.missing == 0 && self.torn.is_empty()
    }

    /// Writes a few lines. Returns how many were not even begun.
    fn piece(&mut self, lines: &[u8]) -> u64 {
        let rest = self.rest_of(lines);
        let written = lines.len() - rest.len();
        let at_end = lines
            .get(..written)
            .is_none_or(|done| done.is_empty() || done.ends_with(b"\n"));
        if at_end {
            return count(rest);
        }
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |end| end + 1);
        let (torn, unbegun) = rest.split_at(end);
        self.torn = torn.to_vec();
        count(unbegun)
    }

    /// Writes until all is written or nothing more can be. Returns what is left.
    fn rest_of<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match (self.write)(bytes) {
                Ok(0) | Err(_) => break,
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A file with room for this many bytes.
    #[derive(Default)]
    struct Disk {
        text: RefCell<Vec<u8>>,
        room: RefCell<usize>,
    }

    impl Disk {
        fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
            let fits = bytes.len().min(*self.room.borrow());
            if fits == 0 {
                return Err(Errno::ENOSPC);
            }
            *self.room.borrow_mut() -= fits;
            self.text.borrow_mut().extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.text.borrow().clone()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "torn: {text}");
            text.lines().map(ToOwned::to_owned).collect()
        }
    }

    const TEN: &[u8] = b"line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n";

    /// Wherever the disk becomes full: afterwards all that was begun is whole, and every line is there or counted.
    #[test]
    fn wherever_it_fails_every_line_is_whole_or_counted() {
        for format in [Format::Text, Format::Json] {
            for room in 0..=TEN.len() {
                let disk = Disk::default();
                *disk.room.borrow_mut() = room;
                let mut sink = Sink::new(|bytes: &[u8]| disk.write(bytes));
                let dropped = sink.put(TEN, format);
                let dropped = dropped + sink.put(b"while it is full\n", format) * u64::from(room < TEN.len());
                *disk.room.borrow_mut() = usize::MAX;
                assert_eq!(sink.put(b"again\n", format), 0);
                let lines = disk.lines();
                let kept = lines.iter().filter(|line| line.starts_with("line ")).count() as u64;
                let notices = lines.iter().filter(|line| line.contains("dropped")).count();
                if room < TEN.len() {
                    assert_eq!((kept + dropped, notices), (11, 1), "room {room}: {lines:?}");
                    let count = [format!("dropped={dropped}"), format!("\"dropped\":{dropped}")];
                    let told = count.iter().any(|count| lines[lines.len() - 2].contains(count));
                    assert!(told, "room {room}: {dropped}, {lines:?}");
                }
                assert_eq!(lines.last().unwrap(), "again");
            }
        }
    }

    /// Where a notice itself is torn it is completed, and not said twice.
    #[test]
    fn a_torn_notice_is_completed() {
        for room in 1..90 {
            let disk = Disk::default();
            let mut sink = Sink::new(|bytes: &[u8]| disk.write(bytes));
            assert_eq!(sink.put(TEN, Format::Text), 10);
            *disk.room.borrow_mut() = room;
            let lost = sink.put(b"x\n", Format::Text);
            *disk.room.borrow_mut() = usize::MAX;
            sink.put(b"y\n", Format::Text);
            let lines = disk.lines();
            let first = lines
                .iter()
                .filter(|line| line.ends_with("dropped=10") || line.ends_with("dropped=11"));
            assert_eq!(first.count(), 1, "room {room}: {lines:?}");
            let xs = lines.iter().filter(|line| *line == "x").count() as u64;
            assert_eq!(
                (xs + lost, lines.last().unwrap().as_str()),
                (1, "y"),
                "room {room}: {lines:?}"
            );
        }
    }

    #[test]
    fn what_was_refused_is_told_where_it_is_missing() {
        let disk = Disk::default();
        *disk.room.borrow_mut() = usize::MAX;
        let mut sink = Sink::new(|bytes: &[u8]| disk.write(bytes));
        assert_eq!(sink.put(b"before\n", Format::Text), 0);
        sink.miss(5);
        assert!(sink.settle(Format::Text));
        sink.put(b"after\n", Format::Text);
        let lines = disk.lines();
        assert_eq!((lines[0].as_str(), lines[2].as_str()), ("before", "after"));
        assert!(lines[1].ends_with("dropped=5"));
    }

    #[test]
    fn no_write_is_longer_than_a_pipe_takes_whole() {
        let mut longest = 0;
        let mut written = Vec::new();
        let mut sink = Sink::new(|bytes: &[u8]| {
            longest = longest.max(bytes.len());
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        let lines: Vec<u8> = (0..2_000)
            .flat_map(|n| format!("{}\n", "z".repeat(n % 700)).into_bytes())
            .collect();
        assert_eq!(sink.put(&lines, Format::Text), 0);
        assert_eq!(written, lines);
        assert!(longest <= LINE_BYTES_MAX && longest > LINE_BYTES_MAX / 2, "{longest}");
    }
}
