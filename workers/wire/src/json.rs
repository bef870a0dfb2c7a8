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

/// The text of a JSON string. A lone surrogate escape, which no Rust string can hold, becomes U+FFFD, as it does wherever
/// JavaScript writes UTF-8. `None` when it is no string.
#[must_use]
pub fn string(raw: &str) -> Option<String> {
    if let Ok(text) = serde_json::from_str(raw) {
        return Some(text);
    }
    // As bytes, serde_json lets lone surrogates pass: three bytes each, `ED A0..BF 80..BF`.
    let mut bytes = serde_json::from_str::<Raw>(raw).ok()?.0;
    for at in surrogates(&bytes) {
        bytes.splice(at..at + 3, "\u{fffd}".bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Where lone surrogates stand in bytes that are UTF-8 otherwise.
fn surrogates(bytes: &[u8]) -> Vec<usize> {
    let is_one = |three: &[u8]| matches!(three, [0xed, 0xa0..=0xbf, 0x80..=0xbf]);
    let threes = bytes.windows(3).enumerate();
    threes.filter(|(_, three)| is_one(three)).map(|(at, _)| at).collect()
}

/// The bytes of a JSON string.
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }
        from.deserialize_bytes(Visitor)
    }
}

/// A finite number as JavaScript writes it (ECMA-262, `Number::toString`): `42`, not `42.0`; `1e+21`. `None` for
/// infinity and NaN, which JSON does not know.
#[must_use]
pub fn number_text(x: f64) -> Option<String> {
    /// From here on, and below, JavaScript writes an exponent.
    const PLAIN: std::ops::Range<f64> = 1e-6..1e21;
    if !x.is_finite() {
        return None;
    }
    Some(if x == 0.0 {
        "0".to_owned() // -0 too
    } else if PLAIN.contains(&x.abs()) {
        x.to_string()
    } else {
        let text = format!("{x:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        }
    })
}

/// A name that is written as a string or as a number, such as that of a room: a number is the name of its decimal text,
/// as JavaScript writes it, so `42`, `42.0` and `"42"` are one. `None` for anything else, which names nothing.
#[must_use]
pub fn name(raw: &str) -> Option<String> {
    let raw = trim(raw);
    match raw.as_bytes() {
        [b'"', ..] => string(raw),
        [b'0'..=b'9' | b'-', ..] => {
            let is_whole = raw.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            // Digits stay as they are: Python's integers have no end.
            if is_whole && raw != "-0" {
                return Some(raw.to_owned());
            }
            number_text(raw.parse().ok()?)
        }
        _ => None,
    }
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
    fn numbers_are_written_as_in_javascript() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (42.0, "42"),
            (-7.5, "-7.5"),
            (0.1, "0.1"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (-1e-7, "-1e-7"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.25e300, "-1.25e+300"),
            (1_152_921_504_606_846_976.0, "1152921504606847000"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(number_text(x).as_deref(), Some(text));
        }
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(number_text(x), None);
        }
    }

    #[test]
    fn a_name_is_a_string_or_a_number() {
        for (raw, name_of) in [
            (r#""a""#, "a"),
            (r#" "42" "#, "42"),
            (r#""""#, ""),
            (r#""\u00e9\n""#, "\u{e9}\n"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udfff\ud800\u0041""#, "\u{fffd}\u{fffd}A"),
            ("42", "42"),
            ("42.0", "42"),
            ("4.2e1", "42"),
            ("-1", "-1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0.5", "0.5"),
            ("1E21", "1e+21"),
            ("9007199254740993", "9007199254740993"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(name(raw).as_deref(), Some(name_of), "{raw}");
        }
        for raw in [
            "null",
            "true",
            "false",
            "{}",
            "[]",
            r#"["a"]"#,
            r#"{"a":1}"#,
            "1e999",
            "",
            "\"",
            r#""\x""#,
        ] {
            assert_eq!(name(raw), None, "{raw}");
        }
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
