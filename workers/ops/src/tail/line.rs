//! One thing that happened, on one line.

use crate::printer::clean;
use crate::sessions::now_ms;
use crate::text::Clock;
use crate::trace::{shown_text, value};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use store::trace::Note;
use store::{Batch, Entry, EntryKind, Offset};

/// Characters of a payload that are shown.
const PAYLOAD_CHARS: usize = 120;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) json: bool,
    pub(super) full: bool,
}

/// A line, in both forms.
#[derive(Debug)]
pub(super) struct Line {
    at_ms: u64,
    what: String,
    /// Names and values, in the order in which they are shown.
    fields: Vec<(&'static str, Value)>,
    /// At the end of the text.
    tail: String,
}

impl Line {
    /// Entries that are not shown.
    pub(super) fn missed(count: u64) -> Self {
        Self {
            at_ms: now_ms(),
            what: "missed".to_owned(),
            fields: vec![("entries", json!(count))],
            tail: "more than could be shown".to_owned(),
        }
    }

    /// An entry of the log.
    pub(super) fn entry(offset: Offset, entry: &Entry, shape: Shape) -> Self {
        let what = match entry.kind {
            EntryKind::Emit => "event",
            EntryKind::Volatile => "volatile",
            EntryKind::Join => "order_join",
            EntryKind::Leave => "order_leave",
            EntryKind::Disconnect => "order_disconnect",
            EntryKind::Ack => "ack",
            EntryKind::Admit => "order_admit",
            EntryKind::Refuse => "order_refuse",
            EntryKind::Takeover => "taken_over",
        };
        let text = std::str::from_utf8(&entry.text).unwrap_or_default();
        let mut fields = vec![("offset", json!(offset.to_string()))];
        if entry.kind == EntryKind::Takeover {
            let sid = text.split(' ').next().unwrap_or_default();
            fields.push(("sid", json!(shown_text(sid, shape.full))));
        } else {
            fields.push(("namespace", json!(entry.target.nsp)));
            fields.push(("rooms", json!(entry.target.rooms)));
        }
        if !entry.target.except.is_empty() {
            fields.push(("except", json!(entry.target.except)));
        }
        let mut payload = text;
        if let Some((event, args)) = parts(entry) {
            fields.push(("event", json!(event)));
            payload = args;
        }
        if !entry.attachments.is_empty() {
            let bytes: usize = entry.attachments.iter().map(|attachment| attachment.len()).sum();
            fields.push(("attachment_bytes", json!(bytes)));
        }
        if entry.kind == EntryKind::Takeover {
            payload = "";
        }
        Self {
            at_ms: now_ms(),
            what: what.to_owned(),
            fields,
            tail: shortened(payload, shape.full),
        }
    }

    /// A note about a session.
    pub(super) fn note(batch: &Batch, note: &Note<'_>, shape: Shape) -> Self {
        let mut fields = vec![
            ("sid", json!(shown_text(note.sid, shape.full))),
            ("worker", json!(batch.worker)),
        ];
        let more: Vec<String> = note
            .fields
            .iter()
            .map(|(name, text)| format!("{name}={}", value(name, text, shape.full)))
            .collect();
        let tail = if shape.json {
            let of_note = note
                .fields
                .iter()
                .map(|(name, text)| ((*name).to_owned(), json!(value(name, text, shape.full))));
            fields.push(("fields", Value::Object(of_note.collect::<Map<String, Value>>())));
            String::new()
        } else {
            more.join(" ")
        };
        Self {
            at_ms: batch.notes.began_ms.saturating_add(note.after_ms),
            what: note.what.to_owned(),
            fields,
            tail,
        }
    }

    pub(super) fn print(self, out: &mut impl Write, shape: Shape) -> io::Result<()> {
        let Self {
            at_ms,
            what,
            fields,
            tail,
        } = self;
        if shape.json {
            let mut object = Map::new();
            object.insert("at_ms".to_owned(), json!(at_ms));
            object.insert("what".to_owned(), json!(what));
            object.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            if !tail.is_empty() {
                object.insert("payload".to_owned(), json!(tail));
            }
            return writeln!(out, "{}", Value::Object(object));
        }
        write!(out, "{} {:<14}", Clock(at_ms).time(), clean(&what))?;
        for (name, value) in fields {
            match value {
                Value::String(text) if name == "sid" || name == "worker" || name == "offset" => {
                    write!(out, " {}", clean(&text))?;
                }
                Value::String(text) => write!(out, " {name}={}", clean(&text))?,
                Value::Array(list) => {
                    let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                    write!(out, " {name}={}", clean(&list.join(",")))?;
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => write!(out, " {name}={value}")?,
            }
        }
        if !tail.is_empty() {
            write!(out, " {}", clean(&tail))?;
        }
        writeln!(out)
    }
}

fn shortened(text: &str, full: bool) -> String {
    match text.char_indices().nth(PAYLOAD_CHARS) {
        Some((at, _)) if !full => format!("{}\u{2026} ({} bytes)", text.get(..at).unwrap_or_default(), text.len()),
        _ => text.to_owned(),
    }
}

/// The name of the event in an entry.
pub(super) fn event_of(entry: &Entry) -> Option<String> {
    parts(entry).map(|(event, _)| event)
}

/// Name and arguments of an event, `42/namespace,["name",…]`: the arguments as they stand, without the brackets.
fn parts(entry: &Entry) -> Option<(String, &str)> {
    if !matches!(entry.kind, EntryKind::Emit | EntryKind::Volatile) {
        return None;
    }
    let text = std::str::from_utf8(&entry.text).ok()?;
    let list = text.get(text.find('[')?..)?;
    let mut items = serde_json::Deserializer::from_str(list.get(1..)?).into_iter::<&RawValue>();
    let event = serde_json::from_str(items.next()?.ok()?.get()).ok()?;
    let rest = list.get(1 + items.byte_offset()..)?;
    let args = rest.trim_start().trim_start_matches(',');
    Some((event, args.strip_suffix(']').unwrap_or(args)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry {
            kind: EntryKind::Emit,
            target: Default::default(),
            text: text.to_owned().into(),
            attachments: Vec::new(),
        }
    }

    #[test]
    fn events_are_taken_apart() {
        for (text, expect) in [
            (r#"42["message",{"a":[1]}]"#, Some(("message", r#"{"a":[1]}"#))),
            (r#"42/chat,["a\"b",1,"x"]"#, Some(("a\"b", r#"1,"x""#))),
            (
                r#"451-["bin",{"_placeholder":true,"num":0}]"#,
                Some(("bin", r#"{"_placeholder":true,"num":0}"#)),
            ),
            (r#"42["alone"]"#, Some(("alone", ""))),
            ("42", None),
            ("42[1]", None),
        ] {
            let entry = entry(text);
            let found = parts(&entry);
            let found = found.as_ref().map(|(event, args)| (event.as_str(), *args));
            assert_eq!(found, expect, "{text}");
        }
    }

    #[test]
    fn payloads_are_shortened() {
        assert_eq!(shortened("short", false), "short");
        let long = "\u{e9}".repeat(500);
        assert!(shortened(&long, false).ends_with("\u{2026} (1000 bytes)"));
        assert_eq!(shortened(&long, true), long);
    }
}
