//! JSON as raw text: validate once, then walk slices. No trees, no recursion.

use memchr::memchr2;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Error;

/// Checks that `text` is exactly one JSON value (RFC 8259) that nests at most `depth_max` deep.
/// Iterative: depth costs heap, not stack. Lone surrogate escapes pass, as in JavaScript.
///
/// # Errors
/// [`Error::JsonInvalid`], [`Error::JsonTooDeep`].
pub fn validate(text: &str, depth_max: usize) -> Result<(), Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    IgnoredAny::deserialize(&mut parser).map_err(|_| Error::JsonInvalid)?;
    parser.end().map_err(|_| Error::JsonInvalid)?;
    // Each level costs an opening byte: few of them cannot nest deep, and counting is vectorised.
    if text.len() > depth_max && openings(text) > depth_max && depth(text) > depth_max {
        return Err(Error::JsonTooDeep { max: depth_max });
    }
    Ok(())
}

/// The values of a JSON array as raw slices; see [`values`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: &'a str,
}

/// Walks the inside of a validated array, `1,"2",{"3":[true]}`, one raw value at a time.
/// Text that was not validated gives nonsense slices, but ends and does not panic.
#[must_use]
pub fn values(inside: &str) -> Values<'_> {
    Values {
        rest: trim_start(inside),
    }
}

/// The inside of a JSON array's text: `[1, 2]` → `1, 2`. `None` when it is no array.
#[must_use]
pub fn inside(array: &str) -> Option<&str> {
    let inside = trim_start(array).strip_prefix('[')?;
    Some(trim(trim_end(inside).strip_suffix(']')?))
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (value, rest) = split_value(self.rest);
        self.rest = trim_start(rest.strip_prefix(',').unwrap_or(""));
        (!value.is_empty()).then_some(value)
    }
}

/// Appends `text` as a JSON string, quotes included (RFC 8259, section 7).
pub fn push_string(out: &mut String, text: &str) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => {
                let code = u32::from(c);
                out.push_str(if code < 16 { "\\u000" } else { "\\u001" });
                out.push(HEX.into_iter().nth((code % 16) as usize).unwrap_or('0'));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Splits validated text after its first value; white space after the value is dropped.
pub(crate) fn split_value(text: &str) -> (&str, &str) {
    let end = value_end(text.as_bytes());
    let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (value, trim_start(rest))
}

pub(crate) fn trim_start(text: &str) -> &str {
    text.trim_start_matches(WHITE)
}

pub(crate) fn trim_end(text: &str) -> &str {
    text.trim_end_matches(WHITE)
}

fn trim(text: &str) -> &str {
    text.trim_matches(WHITE)
}

const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Offset just after the first value of validated text.
fn value_end(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(b'"') => string_end(bytes),
        Some(b'[' | b'{') => {
            let mut nested = 0_usize;
            let mut at = 0;
            while let Some(&byte) = bytes.get(at) {
                match byte {
                    b'"' => {
                        at += string_end(bytes.get(at..).unwrap_or_default());
                        continue;
                    }
                    b'[' | b'{' => nested += 1,
                    b']' | b'}' => nested = nested.saturating_sub(1),
                    _ => {}
                }
                at += 1;
                if nested == 0 {
                    break;
                }
            }
            at
        }
        _ => bytes
            .iter()
            .position(|b| b",]}\" \t\r\n".contains(b))
            .unwrap_or(bytes.len()),
    }
}

/// Offset just after the string that `bytes` begin with.
pub(crate) fn string_end(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(rest) = bytes.get(at..) {
        let Some(hit) = memchr2(b'"', b'\\', rest) else {
            break;
        };
        if rest.get(hit) == Some(&b'"') {
            return at + hit + 1;
        }
        at += hit + 2; // the escaped byte is part of the string, whatever it is
    }
    bytes.len()
}

fn openings(text: &str) -> usize {
    text.bytes().filter(|b| b | 0x20 == b'{').count()
}

/// Deepest nesting of validated text.
fn depth(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut now, mut deepest) = (0, 0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_end(bytes.get(at..).unwrap_or_default());
                continue;
            }
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validates_strictly() {
        let check = |text: &str, expect| assert_eq!(validate(text, 3), expect, "{text}");
        check("[]", Ok(()));
        check(" [1, {\"a\" : [true]} ] ", Ok(()));
        check(r#""\ud800""#, Ok(()));
        check("1e999", Ok(()));
        check(r#"["[[[[{{{{"]"#, Ok(()));
        check(r#"["\"[[[[{{{{"]"#, Ok(()));
        check("[[[[]]]]", Err(Error::JsonTooDeep { max: 3 }));
        check(r#"[[["\\",[]]]]"#, Err(Error::JsonTooDeep { max: 3 }));
        for text in [
            "",
            "[",
            "[1,]",
            "[]]",
            "[] x",
            "01",
            "+1",
            "'a'",
            "\"\n\"",
            "\"\\x\"",
            "nul",
            "[1 2]",
            "{\"a\"}",
            "{a:1}",
            "NaN",
            "\u{feff}[]",
        ] {
            check(text, Err(Error::JsonInvalid));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "megabytes of brackets")]
    fn deep_nesting_does_not_use_the_stack() {
        let deep = 2_000_000;
        let open = "[".repeat(deep);
        assert_eq!(validate(&open, 64), Err(Error::JsonInvalid));
        let closed = open.clone() + &"]".repeat(deep);
        assert_eq!(validate(&closed, 64), Err(Error::JsonTooDeep { max: 64 }));
        assert_eq!(values(&open).count(), 1);
        assert_eq!(values(&closed).count(), 1);
        let objects = "{\"a\":".repeat(deep);
        assert_eq!(validate(&objects, 64), Err(Error::JsonInvalid));
    }

    #[test]
    fn walks_values() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(values(text).collect::<Vec<_>>(), expect, "{text}");
        };
        check("", &[]);
        check(" ", &[]);
        check("1,\"2\",{\"3\":[true]}", &["1", "\"2\"", "{\"3\":[true]}"]);
        check(
            " [ 1 , \"],\\\"\" ] , null ,-1.5e3 ",
            &["[ 1 , \"],\\\"\" ]", "null", "-1.5e3"],
        );
        check(r#""\\","é""#, &[r#""\\""#, r#""é""#]);
        for nonsense in ["]", ",,,", "\"", "[[", "{]", "1 2", "\\", "a\"b", "\"\\"] {
            let _ = values(nonsense).count();
        }
        assert_eq!(inside("[]"), Some(""));
        assert_eq!(inside(" [ 1, 2 ] "), Some("1, 2"));
        assert_eq!(inside("["), None);
        assert_eq!(inside("{}"), None);
    }

    #[test]
    fn quotes_strings() {
        for text in ["", "a", "\"\\/\n\r\t", "\0\x01\x0f\x10\x1e\x1f\x7f", "é\u{2028}😀"] {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            assert!(!out.contains('\x1e'), "{out}");
        }
    }
}
