//! MessagePack values as JSON with attachments, for the Node emitters (notepack.io, @msgpack/msgpack).

use super::ForeignError;
use crate::json;
use bytes::Bytes;
use rmpv::Value;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// Nesting of a message; a packet's own limit is lower by the envelope.
const DEPTH_MAX: usize = 80;
/// notepack.io writes a `Date` as this extension, with milliseconds in 8 bytes.
const DATE: i8 = 0;

/// Reads one message.
pub(super) fn read(mut bytes: &[u8]) -> Result<Value, ForeignError> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, DEPTH_MAX)
        .map_err(|e| ForeignError::MessagePack(e.to_string()))?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(ForeignError::MessagePack("something follows the value".to_owned()))
    }
}

/// A field of a map.
pub(super) fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let (_, value) = map.as_map()?.iter().find(|(key, _)| key.as_str() == Some(name))?;
    Some(value)
}

/// The strings of a list; none if there is no list.
pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Appends a value as JSON; binary values become placeholders and go to `attachments`.
pub(super) fn push_json(out: &mut String, value: &Value, attachments: &mut Vec<Bytes>) {
    match value {
        Value::Nil => out.push_str("null"),
        Value::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Integer(n) => push(out, n),
        Value::F32(x) => push_float(out, f64::from(*x)),
        Value::F64(x) => push_float(out, *x),
        Value::String(text) => json::push_string(out, &String::from_utf8_lossy(text.as_bytes())),
        Value::Binary(bytes) => {
            push(
                out,
                &format_args!(r#"{{"_placeholder":true,"num":{}}}"#, attachments.len()),
            );
            attachments.push(Bytes::copy_from_slice(bytes));
        }
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push_json(out, value, attachments);
            }
            out.push(']');
        }
        Value::Map(fields) => {
            out.push('{');
            for (i, (key, value)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                match key.as_str() {
                    Some(key) => json::push_string(out, key),
                    None => json::push_string(out, &key.to_string()),
                }
                out.push(':');
                push_json(out, value, attachments);
            }
            out.push('}');
        }
        Value::Ext(kind, bytes) => push_extension(out, *kind, bytes),
    }
}

/// JSON knows neither infinity nor NaN; `JSON.stringify` makes null of them.
fn push_float(out: &mut String, x: f64) {
    if x.is_finite() {
        push(out, &x);
    } else {
        out.push_str("null");
    }
}

/// A `Date` as `JSON.stringify` writes it; anything else (`undefined`) is null.
fn push_extension(out: &mut String, kind: i8, bytes: &[u8]) {
    let ms = (kind == DATE)
        .then(|| <[u8; 8]>::try_from(bytes).ok())
        .flatten()
        .and_then(|bytes| u64::try_from(i64::from_be_bytes(bytes)).ok());
    match ms.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms))) {
        Some(date) => push(out, &format_args!("\"{}\"", humantime::format_rfc3339_millis(date))),
        None => out.push_str("null"),
    }
}

fn push(out: &mut String, value: &dyn std::fmt::Display) {
    // Writing to a string cannot fail.
    write!(out, "{value}").ok();
}
