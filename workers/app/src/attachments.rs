//! Binary attachments of a part of a packet: which ones it refers to.

use bytes::Bytes;
use serde_json::Value;

/// An argument on its own: its placeholders numbered from 0 in document order, and the attachments
/// that they stand for. `json` is the raw text of one argument of a valid packet.
pub(crate) fn renumber(json: &str, attachments: &[Bytes]) -> (String, Vec<Bytes>) {
    if attachments.is_empty() {
        return (json.to_owned(), Vec::new());
    }
    let Ok(mut value) = serde_json::from_str::<Value>(json) else {
        return (json.to_owned(), Vec::new());
    };
    let mut kept = Vec::new();
    walk(&mut value, attachments, &mut kept);
    (value.to_string(), kept)
}

/// Depth is bounded by `wire::socket::Limits::depth_max`.
fn walk(value: &mut Value, attachments: &[Bytes], kept: &mut Vec<Bytes>) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| walk(v, attachments, kept)),
        Value::Object(map) => {
            let is_placeholder = map.get("_placeholder") == Some(&Value::Bool(true));
            let num = map
                .get("num")
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok());
            match num.filter(|_| is_placeholder).and_then(|n| attachments.get(n)) {
                Some(bytes) => {
                    map.insert("num".into(), kept.len().into());
                    kept.push(bytes.clone());
                }
                None => map.values_mut().for_each(|v| walk(v, attachments, kept)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_takes_only_its_own_attachments_along() {
        let all = [
            Bytes::from_static(b"a"),
            Bytes::from_static(b"b"),
            Bytes::from_static(b"c"),
        ];
        let (json, kept) = renumber(
            r#"{"z":{"_placeholder":true,"num":2},"a":[{"_placeholder":true,"num":1},{"_placeholder":false,"num":1}]}"#,
            &all,
        );
        assert_eq!(
            json,
            r#"{"z":{"_placeholder":true,"num":0},"a":[{"_placeholder":true,"num":1},{"_placeholder":false,"num":1}]}"#
        );
        assert_eq!(kept, [all[2].clone(), all[1].clone()]);
        assert_eq!(renumber("[1 ]", &[]), ("[1 ]".to_owned(), vec![]));
    }
}
