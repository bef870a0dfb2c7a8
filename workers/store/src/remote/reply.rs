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

    /// Milliseconds; `None` if negative.
    pub(super) fn millis(&mut self) -> Result<Option<Duration>, StoreError> {
        match self.value()? {
            Value::Int(n) => Ok(u64::try_from(n).ok().map(Duration::from_millis)),
            other => Err(corrupt(self.op, &other)),
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.number()? != 0)
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

    /// Mail: each item is its offset, a space, and the packet.
    pub(super) fn mail(&mut self) -> Result<Vec<(Offset, Bytes)>, StoreError> {
        let op = self.op;
        let mut items = Self::new(op, self.value()?)?;
        let mut mail = Vec::with_capacity(items.fields.len());
        while !items.is_empty() {
            let item = bytes(op, items.value()?)?;
            let no_tag = || StoreError::Corrupt {
                what: op,
                reason: "mail without an offset".to_owned(),
            };
            let end = item.iter().position(|b| *b == b' ').ok_or_else(no_tag)?;
            let tag = item
                .get(..end)
                .and_then(|tag| std::str::from_utf8(tag).ok())
                .ok_or_else(no_tag)?;
            mail.push((offset(op, tag)?, item.slice(end + 1..)));
        }
        Ok(mail)
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
    let unreadable = |e: session::RecordError| StoreError::Corrupt {
        what: op,
        reason: e.to_string(),
    };
    Record::from_json(&json).map(Some).map_err(unreadable)
}
