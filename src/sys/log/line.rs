//! Single lines: none is longer than what the kernel writes to a pipe in one piece, and those that tell of the log itself
//! look like all others.

use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Longest line (bytes, with its end): `PIPE_BUF` of Linux. pipe(7): this much is written whole or not at all, however
/// many processes write to the pipe, and whether or not it is non-blocking.
pub(super) const LINE_BYTES_MAX: usize = 4_096;
/// Of a text within a line of JSON that is too long (bytes).
const TEXT_BYTES_KEPT: usize = 512;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `logging.format = "json"`: an object a line.
    Json,
    /// For people.
    Text,
}

/// This line as it is written: with an end, and not too long. What is cut says so.
pub(super) fn bounded(line: &[u8], format: Format) -> Cow<'_, [u8]> {
    if line.len() <= LINE_BYTES_MAX && line.ends_with(b"\n") {
        return Cow::Borrowed(line);
    }
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\n');
    if text.len() < LINE_BYTES_MAX {
        return Cow::Owned(format!("{text}\n").into_bytes());
    }
    let cut = match (format, serde_json::from_str(text)) {
        (Format::Json, Ok(Value::Object(object))) => shortened(object),
        (Format::Json | Format::Text, _) => None,
    };
    Cow::Owned(
        cut.unwrap_or_else(|| cut_off(text, LINE_BYTES_MAX - 1) + "\n")
            .into_bytes(),
    )
}

/// The same object with shorter texts, if that is enough.
fn shortened(mut object: Map<String, Value>) -> Option<String> {
    for value in object.values_mut() {
        if let Value::String(text) = value {
            *text = cut_off(text, TEXT_BYTES_KEPT);
        }
    }
    let line = serde_json::to_string(&object).ok()? + "\n";
    if line.len() <= LINE_BYTES_MAX {
        return Some(line);
    }
    let kept = ["timestamp", "level", "message"];
    object.retain(|name, _| kept.contains(&name.as_str()));
    object.insert("cut".to_owned(), json!("fields left out, the line was too long"));
    Some(serde_json::to_string(&object).ok()? + "\n").filter(|line| line.len() <= LINE_BYTES_MAX)
}

/// The beginning of a text, up to `most` bytes with the remark that something is missing. A line has no second one in it.
fn cut_off(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = format!("… ({} bytes in all)", text.len());
    let most = most.saturating_sub(mark.len());
    let end = (0..=most)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or_default();
    text.get(..end).unwrap_or_default().to_owned() + &mark
}

/// A line about the log itself, as the subscriber would have written it.
pub(super) fn compose(format: Format, level: &str, message: &str, count: Option<(&str, u64)>) -> Vec<u8> {
    let mut time = String::new();
    // A clock that cannot be shown leaves its place empty.
    SystemTime.format_time(&mut Writer::new(&mut time)).ok();
    let line = match format {
        Format::Json => {
            let mut object = Map::new();
            object.insert("timestamp".to_owned(), json!(time));
            object.insert("level".to_owned(), json!(level));
            object.insert("message".to_owned(), json!(message));
            object.extend(count.map(|(name, count)| (name.to_owned(), json!(count))));
            Value::Object(object).to_string()
        }
        Format::Text => {
            let mut line = format!("{time} {level:>5} {message}");
            if let Some((name, count)) = count {
                // Writing to a string does not fail.
                write!(line, " {name}={count}").ok();
            }
            line
        }
    };
    bounded(line.as_bytes(), format).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, format: Format) -> String {
        let bytes = bounded(line.as_bytes(), format);
        assert!(bytes.len() <= LINE_BYTES_MAX, "{} bytes", bytes.len());
        String::from_utf8(bytes.into_owned()).unwrap()
    }

    #[test]
    fn a_line_that_fits_is_left_alone() {
        for length in [0, 1, 100, LINE_BYTES_MAX - 1] {
            let line = "x".repeat(length) + "\n";
            assert_eq!(of(&line, Format::Text), line);
            assert_eq!(of(line.trim_end(), Format::Text), line);
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        for shift in 0..4 {
            let line = "y".repeat(shift) + &"ü€😀".repeat(1_000) + "\n";
            let cut = of(&line, Format::Text);
            assert!(
                cut.ends_with("bytes in all)\n") && cut.len() > LINE_BYTES_MAX - 10,
                "{}",
                cut.len()
            );
        }
        assert_eq!(of(&"x".repeat(LINE_BYTES_MAX), Format::Text).len(), LINE_BYTES_MAX);
        bounded(&[0xff; 9_000], Format::Text);
    }

    #[test]
    fn a_long_line_of_json_stays_json() {
        let long = "ü\"".repeat(3_000);
        let one = json!({"timestamp": "t", "level": "WARN", "message": "m", "reason": long, "pid": 7}).to_string();
        let read: Value = serde_json::from_str(&of(&one, Format::Json)).unwrap();
        assert_eq!((&read["message"], &read["pid"]), (&json!("m"), &json!(7)));
        assert!(read["reason"].as_str().unwrap().ends_with("bytes in all)"));
        let many: Map<String, Value> = (0..900).map(|n| (format!("field{n}"), json!(n))).collect();
        let mut all = json!({"timestamp": "t", "level": "WARN", "message": long});
        all.as_object_mut().unwrap().extend(many);
        let read: Value = serde_json::from_str(&of(&all.to_string(), Format::Json)).unwrap();
        assert!(read["cut"].is_string() && read["level"] == "WARN" && read["field1"].is_null());
    }

    #[test]
    fn a_notice_looks_like_any_line() {
        let text = String::from_utf8(compose(Format::Text, "WARN", "lines dropped", Some(("dropped", 3)))).unwrap();
        assert!(text.ends_with("Z  WARN lines dropped dropped=3\n"), "{text}");
        let json: Value =
            serde_json::from_slice(&compose(Format::Json, "WARN", "lines dropped", Some(("dropped", 3)))).unwrap();
        assert_eq!((&json["level"], &json["dropped"]), (&json!("WARN"), &json!(3)));
    }
}
