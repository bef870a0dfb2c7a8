//! Reading what Redis answers.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the client may learn further kinds of values"
)]

use crate::error::StoreError;
use bytes::Bytes;
use redis::Value;
use session::{Offset, Record};
use std::time::Duration;

/// An answer that is an array, read from its front.
pub(super) struct Reply {
    op: &'static str,
    fields: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(super) fn new(op: &'static str, value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(fields) => Ok(Self {
                op,
                fields: fields.into_iter(),
            }),
            other => Err(corrupt(op, &other)),
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.len() == 0
    }

    pub(super) fn value(&mut self) -> Result<Value, StoreError> {
        let ended = || StoreError::Corrupt {
            what: self.op,
            reason: "the answer is too short".to_owned(),
        };
        self.fields.next().ok_or_else(ended)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        let value = self.value()?;
        text(self.op, value)
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let value = self.value()?;
        number(self.op, value)
    }

    pub(super) fn offset(&mut self) -> Result<Offset, StoreError> {
        let text = self.text()?;
        offset(self.op, &text)
    }

    /// A record; `None` if empty.
    pub(super) fn record(&mut self) -> Result<Option<Record>, StoreError> {
        let value = self.value()?;
        record(self.op, value)
    }

    pub(super) fn present_record(&mut self) -> Result<Box<Record>, StoreError> {
        let missing = StoreError::Corrupt {
            what: self.op,
            reason: "no record in the answer".to_owned(),
        };
        self.record()?.map(Box::new).ok_or(missing)
    }

    /// A list of mail.
    pub(super) fn mail(&mut self) -> Result<Vec<(Offset, Bytes)>, StoreError> {
        let op = self.op;
        let mut items = Self::new(op, self.value()?)?;
        let mut mail = Vec::with_capacity(items.fields.len());
        while !items.is_empty() {
            mail.push(piece(op, &bytes(op, items.value()?)?)?);
        }
        Ok(mail)
    }
}

/// An answer that is one string: words, the last of which may be the lengths of what follows the line's end,
/// a record first, then mail. See `pack` in `scripts/common.lua`.
pub(super) struct Packed {
    op: &'static str,
    bytes: Bytes,
    /// Where the next word begins, and where the line ends.
    word: usize,
    line: usize,
    /// Where the next of what follows begins.
    data: usize,
    lengths: std::vec::IntoIter<usize>,
}

impl Packed {
    pub(super) fn new(op: &'static str, value: Value) -> Result<Self, StoreError> {
        let bytes = bytes(op, value)?;
        let mut packed = Self {
            op,
            word: 0,
            line: bytes.len(),
            data: bytes.len(),
            lengths: Vec::new().into_iter(),
            bytes,
        };
        if let Some(line) = memchr::memchr(b'\n', &packed.bytes) {
            let head = packed.bytes.get(..line).unwrap_or_default();
            let last = memchr::memrchr(b' ', head).map_or(0, |space| space + 1);
            let text = std::str::from_utf8(head.get(last..).unwrap_or_default());
            let lengths = text
                .ok()
                .and_then(|text| text.split(',').map(|n| n.parse().ok()).collect());
            let lengths: Vec<usize> = lengths.ok_or_else(|| packed.corrupt("lengths"))?;
            packed.lengths = lengths.into_iter();
            packed.line = last.saturating_sub(1);
            packed.data = line + 1;
        }
        Ok(packed)
    }

    fn corrupt(&self, what: &str) -> StoreError {
        StoreError::Corrupt {
            what: self.op,
            reason: format!("no {what} in the answer"),
        }
    }

    /// Whether the first word is this one.
    pub(super) fn is(&self, word: &str) -> bool {
        let rest = self.bytes.strip_prefix(word.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b' '))
    }

    pub(super) fn word(&mut self) -> Result<&str, StoreError> {
        let rest = self.bytes.get(self.word..self.line).unwrap_or_default();
        let length = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let begin = self.word;
        self.word += length + 1;
        let word = self.bytes.get(begin..begin + length).filter(|word| !word.is_empty());
        word.and_then(|word| std::str::from_utf8(word).ok())
            .ok_or_else(|| self.corrupt("word"))
    }

    fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        let parsed = self.word()?.parse();
        parsed.map_err(|_| self.corrupt("number"))
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        self.parsed()
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.number()? != 0)
    }

    pub(super) fn offset(&mut self) -> Result<Offset, StoreError> {
        self.parsed()
    }

    /// Milliseconds; `None` if negative.
    pub(super) fn millis(&mut self) -> Result<Option<Duration>, StoreError> {
        let millis: i64 = self.parsed()?;
        Ok(u64::try_from(millis).ok().map(Duration::from_millis))
    }

    fn blob(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(length) = self.lengths.next() else {
            return Ok(None);
        };
        let end = self.data.saturating_add(length);
        if end > self.bytes.len() {
            return Err(self.corrupt("rest"));
        }
        let blob = self.bytes.slice(self.data..end);
        self.data = end;
        Ok(Some(blob))
    }

    /// A record; `None` if empty.
    pub(super) fn record(&mut self) -> Result<Option<Record>, StoreError> {
        let json = self.blob()?.unwrap_or_default();
        if json.is_empty() {
            return Ok(None);
        }
        let json = std::str::from_utf8(&json).map_err(|_| self.corrupt("text"))?;
        Record::from_json(json)
            .map(Some)
            .map_err(|error| unreadable(self.op, &error))
    }

    pub(super) fn present_record(&mut self) -> Result<Box<Record>, StoreError> {
        self.record()?.map(Box::new).ok_or_else(|| self.corrupt("record"))
    }

    /// Mail: all that is left.
    pub(super) fn mail(&mut self) -> Result<Vec<(Offset, Bytes)>, StoreError> {
        let mut mail = Vec::with_capacity(self.lengths.len());
        while let Some(item) = self.blob()? {
            mail.push(piece(self.op, &item)?);
        }
        Ok(mail)
    }
}

/// An item of mail: its offset, a space, and the packet.
fn piece(op: &'static str, item: &Bytes) -> Result<(Offset, Bytes), StoreError> {
    let no_tag = || StoreError::Corrupt {
        what: op,
        reason: "mail without an offset".to_owned(),
    };
    let end = memchr::memchr(b' ', item).ok_or_else(no_tag)?;
    let tag = item
        .get(..end)
        .and_then(|tag| std::str::from_utf8(tag).ok())
        .ok_or_else(no_tag)?;
    Ok((offset(op, tag)?, item.slice(end + 1..)))
}

fn unreadable(op: &'static str, error: &session::RecordError) -> StoreError {
    StoreError::Corrupt {
        what: op,
        reason: error.to_string(),
    }
}

fn corrupt(op: &'static str, value: &Value) -> StoreError {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) => "a string",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    StoreError::Corrupt {
        what: op,
        reason: format!("redis answered {kind}"),
    }
}

/// A string of bytes, not copied.
pub(super) fn bytes(op: &'static str, value: Value) -> Result<Bytes, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        other => Err(corrupt(op, &other)),
    }
}

pub(super) fn text(op: &'static str, value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|e| StoreError::Corrupt {
            what: op,
            reason: e.to_string(),
        }),
        Value::SimpleString(text) => Ok(text),
        other => Err(corrupt(op, &other)),
    }
}

/// A text; what is no UTF-8 in it becomes U+FFFD.
pub(super) fn lossy(op: &'static str, value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        other => text(op, other),
    }
}

/// A text, or nothing.
pub(super) fn optional_text(op: &'static str, value: Value) -> Result<Option<String>, StoreError> {
    match value {
        Value::Nil => Ok(None),
        other => text(op, other).map(Some),
    }
}

pub(super) fn number(op: &'static str, value: Value) -> Result<u64, StoreError> {
    match value {
        Value::Int(n) => u64::try_from(n).map_err(|e| StoreError::Corrupt {
            what: op,
            reason: e.to_string(),
        }),
        other => text(op, other)?.parse().map_err(|_| StoreError::Corrupt {
            what: op,
            reason: "not a number".to_owned(),
        }),
    }
}

pub(super) fn offset(op: &'static str, text: &str) -> Result<Offset, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt {
        what: op,
        reason: "not an offset".to_owned(),
    })
}

/// A record; `None` for nothing or an empty string.
pub(super) fn record(op: &'static str, value: Value) -> Result<Option<Record>, StoreError> {
    if value == Value::Nil {
        return Ok(None);
    }
    let json = text(op, value)?;
    if json.is_empty() {
        return Ok(None);
    }
    Record::from_json(&json)
        .map(Some)
        .map_err(|error| unreadable(op, &error))
}
