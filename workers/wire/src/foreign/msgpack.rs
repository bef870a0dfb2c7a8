//! MessagePack values as JSON with attachments, for the Node emitters (notepack.io, @msgpack/msgpack): what
//! `JSON.stringify` writes of the values that the servers' decoders make of them.

use super::{ForeignError, named};
use crate::json;
use bytes::Bytes;
use rmpv::{Integer, Utf8String, Value};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Nesting of a message; a packet's own limit is lower by the envelope.
const DEPTH_MAX: usize = 80;
/// notepack.io's own extension: `undefined` in one byte, before its version 3 a `Date` in 8 bytes (milliseconds), and an
/// `ArrayBuffer` in any other number of bytes.
const NOTEPACK: i8 = 0;
/// Timestamp of the MessagePack specification, which notepack.io writes for a `Date` since version 3.
const TIMESTAMP: i8 = -1;
/// Largest time value of JavaScript's `Date` (ECMA-262, "Time Values and Time Range"; milliseconds).
const DATE_MAX: i128 = 8_640_000_000_000_000;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

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

/// One name or a list of them; [`ForeignError::Target`] if none is one. An empty list stays empty.
pub(super) fn names(value: &Value) -> Result<Vec<String>, ForeignError> {
    match value.as_array() {
        Some(list) => named(list.iter().map(name)),
        None => named(std::iter::once(name(value))),
    }
}

/// Rooms whose members are left out, see [`super::names_except`].
pub(super) fn except(value: &Value) -> Vec<String> {
    match value.as_array() {
        Some(list) => list.iter().filter_map(name).collect(),
        None => name(value).into_iter().collect(),
    }
}

/// The name of a room, see [`json::name`].
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(lossy(text).into_owned()),
        Value::Integer(n) => Some(integer(*n)),
        Value::F32(x) => json::number_text(f64::from(*x)),
        Value::F64(x) => json::number_text(*x),
        Value::Nil | Value::Boolean(_) | Value::Binary(_) | Value::Array(_) | Value::Map(_) | Value::Ext(..) => None,
    }
}

/// Appends a value as JSON; binary values become placeholders and go to `attachments`.
pub(super) fn push_json(out: &mut String, value: &Value, attachments: &mut Vec<Bytes>) {
    match value {
        Value::Nil => out.push_str("null"),
        Value::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Integer(n) => out.push_str(&integer(*n)),
        Value::F32(x) => push_float(out, f64::from(*x)),
        Value::F64(x) => push_float(out, *x),
        Value::String(text) => json::push_string(out, &lossy(text)),
        Value::Binary(bytes) => push_binary(out, bytes, attachments),
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
            let mut comma = "";
            for (written, value) in fields.iter().filter(|(_, value)| !is_undefined(value)) {
                out.push_str(comma);
                comma = ",";
                let key = if written.is_nil() {
                    Some("null".to_owned())
                } else {
                    name(written)
                };
                json::push_string(out, &key.unwrap_or_else(|| written.to_string()));
                out.push(':');
                push_json(out, value, attachments);
            }
            out.push('}');
        }
        Value::Ext(kind, bytes) => push_extension(out, *kind, bytes, attachments),
    }
}

/// What is no UTF-8, as the three bytes that JavaScript's encoders make of a lone surrogate, becomes U+FFFD.
fn lossy(text: &Utf8String) -> Cow<'_, str> {
    String::from_utf8_lossy(text.as_bytes())
}

/// An integer as JavaScript has it: from 2^53 on only some are numbers there, and the nearest of them is written.
fn integer(n: Integer) -> String {
    const EXACT: u64 = 1 << 53;
    if n.as_i64().is_some_and(|n| n.unsigned_abs() <= EXACT) {
        return n.to_string();
    }
    let nearest = n.as_f64().and_then(json::number_text);
    nearest.unwrap_or_else(|| n.to_string())
}

/// JSON knows neither infinity nor NaN; `JSON.stringify` makes null of them.
fn push_float(out: &mut String, x: f64) {
    out.push_str(json::number_text(x).as_deref().unwrap_or("null"));
}

fn push_binary(out: &mut String, bytes: &[u8], attachments: &mut Vec<Bytes>) {
    // Writing to a string cannot fail.
    write!(out, r#"{{"_placeholder":true,"num":{}}}"#, attachments.len()).ok();
    attachments.push(Bytes::copy_from_slice(bytes));
}

/// In an object `JSON.stringify` leaves it out; in a list it is null.
fn is_undefined(value: &Value) -> bool {
    matches!(value, Value::Ext(NOTEPACK, bytes) if bytes.len() == 1)
}

fn push_extension(out: &mut String, kind: i8, bytes: &[u8], attachments: &mut Vec<Bytes>) {
    match (kind, bytes) {
        (NOTEPACK, [_]) => out.push_str("null"),
        (NOTEPACK, &[b0, b1, b2, b3, b4, b5, b6, b7]) => {
            let ms = i64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
            push_date(out, i128::from(ms));
        }
        (NOTEPACK, bytes) => push_binary(out, bytes, attachments),
        (TIMESTAMP, bytes) if let Some(ms) = timestamp(bytes) => push_date(out, ms),
        // notepack.io hands over a pair of number and bytes.
        (kind, bytes) => {
            write!(out, "[{kind},").ok();
            push_binary(out, bytes, attachments);
            out.push(']');
        }
    }
}

/// Milliseconds since 1970 of a timestamp of 32, 64 or 96 bits (MessagePack specification, "Timestamp extension type");
/// parts of one are cut off as `Date` does, towards 1970.
fn timestamp(bytes: &[u8]) -> Option<i128> {
    const NS: i128 = 1_000_000_000;
    let (s, ns) = match *bytes {
        [b0, b1, b2, b3] => (i128::from(u32::from_be_bytes([b0, b1, b2, b3])), 0),
        [b0, b1, b2, b3, b4, b5, b6, b7] => {
            let whole = u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
            (i128::from(whole & 0x3_ffff_ffff), i128::from(whole >> 34))
        }
        [n0, n1, n2, n3, b0, b1, b2, b3, b4, b5, b6, b7] => (
            i128::from(i64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7])),
            i128::from(u32::from_be_bytes([n0, n1, n2, n3])),
        ),
        _ => return None,
    };
    Some((s * NS + ns) / 1_000_000)
}

/// A `Date` as its `toJSON` writes it: ISO 8601 with milliseconds, years outside 0 to 9999 with a sign and six digits;
/// null if it is out of range.
fn push_date(out: &mut String, ms: i128) {
    let in_range = (-DATE_MAX..=DATE_MAX).contains(&ms);
    let Some(ms) = i64::try_from(ms).ok().filter(|_| in_range) else {
        out.push_str("null");
        return;
    };
    let (year, month, day) = civil(ms.div_euclid(DAY));
    let of_day = ms.rem_euclid(DAY);
    let (h, m, s, ms) = (
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1000 % 60,
        of_day % 1000,
    );
    out.push('"');
    // Writing to a string cannot fail.
    match year {
        0..=9999 => write!(out, "{year:04}").ok(),
        _ => write!(out, "{year:+07}").ok(),
    };
    write!(out, "-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z\"").ok();
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days of 400 years
    let days = days + 719_468; // since 0000-03-01
    let of_era = days.rem_euclid(ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + days.div_euclid(ERA) * 400 + i64::from(month <= 2);
    (year, month, day)
}
