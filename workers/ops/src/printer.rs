//! What may be printed. Names of rooms, events and clients are chosen by clients: a terminal must neither act on them nor
//! show them as something else.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Text of another program as one line: each character that a terminal acts on, that reorders what stands beside it, or
/// that is not seen, becomes `\uXXXX`.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Control characters (C0, DEL, C1); bidirectional marks, embeddings, overrides and isolates (Unicode Annex 9); line and
/// paragraph separators; characters without width, annotations and tags.
const fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// With `\uXXXX` as in JSON: a pair of them beyond U+FFFF.
fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                write!(out, "\\u{unit:04x}").ok();
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Standard output of a command. Whatever is written, JSON or text, has line feeds as its only unsafe characters: JSON
/// has such characters in strings alone, so that it stays the same JSON. Each write must be of whole characters.
#[derive(Debug)]
pub struct Printer<W>(W);

/// Standard output, to be flushed at the end.
#[must_use]
pub fn stdout() -> Printer<BufWriter<StdoutLock<'static>>> {
    Printer(BufWriter::new(io::stdout().lock()))
}

impl<W: Write> Write for Printer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = escaped(&text, |c| c != '\n' && is_unsafe(c));
        self.0.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_spelled_out() {
        for (text, expect) in [
            ("room 1", "room 1"),
            ("räum 房 ✅ 🎉", "räum 房 ✅ 🎉"),
            ("עברית", "עברית"),
            ("a\u{1b}[2Jb\n\r\t", "a\\u001b[2Jb\\u000a\\u000d\\u0009"),
            ("\0\u{7f}\u{9b}31m\u{85}", "\\u0000\\u007f\\u009b31m\\u0085"),
            ("\u{202e}nimda\u{202c}", "\\u202enimda\\u202c"),
            ("\u{200e}\u{200f}\u{61c}", "\\u200e\\u200f\\u061c"),
            ("\u{2066}\u{2067}\u{2068}\u{2069}", "\\u2066\\u2067\\u2068\\u2069"),
            ("\u{202a}\u{202b}\u{202d}", "\\u202a\\u202b\\u202d"),
            (
                "a\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}b",
                "a\\u200b\\u200c\\u200d\\u2060\\ufeffb",
            ),
            ("\u{2028}\u{2029}", "\\u2028\\u2029"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(clean(text), expect);
        }
    }

    /// Every character of the first planes and of the tags, as a string of JSON and as text.
    #[test]
    fn json_means_the_same() {
        let all: String = ('\0'..='\u{ffff}').chain('\u{e0000}'..='\u{e0fff}').collect();
        let json = serde_json::to_string(&all).unwrap();
        let mut printer = Printer(Vec::new());
        writeln!(printer, "{json}").unwrap();
        let printed = String::from_utf8(printer.0).unwrap();
        assert_eq!(serde_json::from_str::<String>(&printed).unwrap(), all);
        assert_eq!(printed.chars().filter(|&c| is_unsafe(c)).collect::<String>(), "\n");
    }
}
