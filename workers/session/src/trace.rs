//! What is noted about the lives of sessions: a line for each note, written by workers and read by
//! operators. `<ms after the batch's beginning>`, the Engine.IO sid, what happened, then `name=value`,
//! all separated by tabs.

use crate::{Offset, Sid};
use std::fmt::{self, Write as _};

/// No value is longer (bytes); the rest is left out.
const VALUE_BYTES_MAX: usize = 128;
/// Stands where something was left out.
const CUT: char = '\u{2026}';

/// The value of a field.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A count, or milliseconds.
    Number(u64),
    /// A position of the log.
    Offset(Offset),
    /// Whatever it looks like.
    Shown(&'a dyn fmt::Display),
    /// Text from outside.
    Text(&'a str),
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.push_to(&mut text);
        f.write_str(&text)
    }
}

impl Value<'_> {
    fn push_to(self, out: &mut String) {
        match self {
            Self::Number(number) => out.push_str(itoa::Buffer::new().format(number)),
            Self::Offset(offset) => {
                let mut digits = itoa::Buffer::new();
                out.push_str(digits.format(offset.epoch()));
                out.push('-');
                out.push_str(digits.format(offset.seq()));
            }
            Self::Text(text) => Field::new(out).push(text),
            // Writing to a string cannot fail.
            Self::Shown(shown) => write!(Field::new(out), "{shown}").unwrap_or_default(),
        }
    }
}

/// Writes text so that it stays one field.
struct Field<'a> {
    out: &'a mut String,
    left: usize,
    cut: bool,
}

impl<'a> Field<'a> {
    fn new(out: &'a mut String) -> Self {
        Self {
            out,
            left: VALUE_BYTES_MAX,
            cut: false,
        }
    }

    fn push(&mut self, text: &str) {
        if self.cut {
            return;
        }
        if text.len() <= self.left && !text.bytes().any(|b| b.is_ascii_control()) {
            self.left -= text.len();
            return self.out.push_str(text);
        }
        for c in text.chars() {
            if self.left < c.len_utf8() {
                self.cut = true;
                return self.out.push(CUT);
            }
            self.left -= c.len_utf8();
            self.out.push(if c.is_control() { ' ' } else { c });
        }
    }
}

impl fmt::Write for Field<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// Writes a note. `what` and the names are words of ours.
pub fn write(out: &mut String, after_ms: u64, sid: &Sid, what: &str, fields: &[(&str, Value<'_>)]) {
    out.push_str(itoa::Buffer::new().format(after_ms));
    out.push('\t');
    out.push_str(sid.as_str());
    out.push('\t');
    out.push_str(what);
    for (name, value) in fields {
        out.push('\t');
        out.push_str(name);
        out.push('=');
        value.push_to(out);
    }
    out.push('\n');
}

/// A note, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Milliseconds after the beginning of its batch.
    pub after_ms: u64,
    /// Whose life it belongs to.
    pub sid: &'a str,
    /// What happened: one word.
    pub what: &'a str,
    /// What else is known, by name.
    pub fields: Vec<(&'a str, &'a str)>,
}

impl Note<'_> {
    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// The session that continues this one, or that it comes from: its id.
    #[must_use]
    pub fn other(&self) -> Option<&str> {
        self.field("session")
    }
}

/// Reads a line; `None` if it is none of ours.
#[must_use]
pub fn read(line: &str) -> Option<Note<'_>> {
    let mut parts = line.split('\t');
    let after_ms = parts.next()?.parse().ok()?;
    let sid = parts.next().filter(|sid| Sid::parse(sid).is_ok())?;
    let what = parts.next().filter(|what| !what.is_empty())?;
    let fields = parts.map(|part| part.split_once('=')).collect::<Option<_>>()?;
    Some(Note {
        after_ms,
        sid,
        what,
        fields,
    })
}

/// The notes of a text; other lines are left out.
pub fn lines(notes: &str) -> impl Iterator<Item = Note<'_>> {
    notes.lines().filter_map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_its_line() {
        let sid = Sid::from_random([5; 15]);
        let mut text = String::new();
        let fields = [
            ("room", Value::Text("a\tb\n=c")),
            ("n", Value::Number(7)),
            ("upto", Value::Offset(Offset::new(9, 3))),
            ("why", Value::Shown(&format_args!("it {}", "broke"))),
        ];
        write(&mut text, 12, &sid, "joined", &fields);
        write(&mut text, 13, &sid, "post", &[]);
        let notes: Vec<_> = lines(&text).collect();
        assert_eq!(notes.len(), 2);
        assert_eq!(
            (notes[0].after_ms, notes[0].sid, notes[0].what),
            (12, sid.as_str(), "joined")
        );
        assert_eq!(
            notes[0].fields,
            [("room", "a b =c"), ("n", "7"), ("upto", "9-3"), ("why", "it broke")]
        );
        assert_eq!(notes[1].fields, []);
    }

    #[test]
    fn values_are_bounded_and_other_lines_left_out() {
        let sid = Sid::from_random([5; 15]);
        let mut text = String::new();
        let long = "\u{e9}".repeat(500);
        write(&mut text, 1, &sid, "joined", &[("room", Value::Text(&long))]);
        assert!(text.len() < 200 && text.ends_with("\u{2026}\n"), "{text}");
        for bad in [
            "",
            "1",
            "x\ty\tz",
            "1\tshort\topened",
            "1\txsySG-lJ9RCukTPBAAAA\topened\tno value",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
