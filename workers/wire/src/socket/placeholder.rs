//! Placeholders of binary packets: `{"_placeholder":true,"num":N}`.
//!
//! A wrong one that is passed on makes the *receiver's* parser close its connection, so keys are
//! compared unescaped and a repeated key's last value counts, as `JSON.parse` has it.

use crate::{Error, json};

/// Checks that every placeholder in validated JSON names one of `attachments`, and counts them.
/// Several may name the same one, and an attachment need not be named (socket.io-parser
/// `_reconstructPacket`). Not meaningful for packets without attachments: there such objects are
/// ordinary data.
///
/// # Errors
/// [`Error::PlaceholderInvalid`]: `num` is missing, no integer in plain digits, or not below
/// `attachments`. Text that was not validated may give any answer, but no panic.
pub fn placeholders(text: &str, attachments: usize) -> Result<usize, Error> {
    let mut count = 0;
    let mut open: Vec<Object> = Vec::new(); // arrays are in it too, and stay `false`
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        match byte {
            b'{' | b'[' => {
                open.push(Object::default());
                rest = skip(rest, 1);
            }
            b'}' | b']' => {
                if open.pop().unwrap_or_default().is_placeholder(attachments)? {
                    count += 1;
                }
                rest = skip(rest, 1);
            }
            b'"' => {
                let (key, after) = json::split_value(rest);
                rest = after;
                if let (Some(value), Some(object)) = (after.strip_prefix(':'), open.last_mut()) {
                    rest = json::trim_start(value);
                    object.read(key, rest);
                }
            }
            _ => rest = skip_plain(rest),
        }
    }
    Ok(count)
}

/// What was seen of an object so far.
#[derive(Default)]
struct Object {
    marked: bool,       // "_placeholder": true
    num: Option<usize>, // "num", if an integer
}

impl Object {
    fn read(&mut self, key: &str, value: &str) {
        let unescaped = key
            .contains('\\')
            .then(|| serde_json::from_str::<String>(key).unwrap_or_default());
        let key = match &unescaped {
            Some(key) => key,
            None => key.trim_matches('"'),
        };
        match key {
            // Only scalars matter: cutting out nested values at each level would be quadratic.
            "_placeholder" => self.marked = value.starts_with("true"),
            "num" if value.starts_with(|c: char| c.is_ascii_digit()) => {
                self.num = json::split_value(value).0.parse().ok();
            }
            "num" => self.num = None,
            _ => {}
        }
    }

    fn is_placeholder(&self, attachments: usize) -> Result<bool, Error> {
        match (self.marked, self.num) {
            (false, _) => Ok(false),
            (true, Some(num)) if num < attachments => Ok(true),
            (true, _) => Err(Error::PlaceholderInvalid),
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
        check(r#"["a",{"_placeholder":1,"num":7}]"#, 1, Ok(0));
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
}
