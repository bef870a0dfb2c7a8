//! What the emitters' messages do here, beside what they do at the original servers: `compared.tsv`.
//!
//! A line is a source, a name, a message, what the original server did with it (socket.io 4.8 with its Redis adapters,
//! python-socketio 5.18), what is done here if that is not the same, and why. Three clients are there: `a` is in room `a`;
//! `n` in the rooms `42`, `-7`, `0.5`, `1e+21` and 2^60, as numbers and as their texts; `o` in none.

use super::*;
use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("compared.tsv");
const ROOMS_OF_N: [&str; 5] = ["42", "-7", "0.5", "1e+21", "1152921504606847000"];

fn read(source: &str, message: &str) -> Result<Order, ForeignError> {
    match source {
        "broadcast" => {
            let byte = |at| u8::from_str_radix(&message[at..at + 2], 16).unwrap();
            broadcast(&(0..message.len()).step_by(2).map(byte).collect::<Vec<_>>())
        }
        "request" => request("/", message.as_bytes()),
        "stream" => {
            let fields: std::collections::BTreeMap<String, String> = serde_json::from_str(message).unwrap();
            stream_item(|name| fields.get(name).map(String::as_str))
        }
        "python" => python(message.as_bytes()),
        other => panic!("no source {other}"),
    }
}

fn rooms_of(who: char) -> Vec<&'static str> {
    match who {
        'a' => vec!["a", "SID-A"],
        'n' => ROOMS_OF_N.to_vec(),
        _ => vec![],
    }
}

fn reached(audience: &Audience) -> String {
    let is_in = |who: char, rooms: &[String]| rooms_of(who).iter().any(|room| rooms.iter().any(|r| r == room));
    "ano"
        .chars()
        .filter(|who| {
            audience.nsp == "/"
                && (audience.rooms.is_empty() || is_in(*who, &audience.rooms))
                && !is_in(*who, &audience.except)
        })
        .collect()
}

/// Bytes in their places; text that serde_json has no value for stays as it is.
fn filled(args: &str, attachments: &[Bytes]) -> String {
    fn walk(value: Value, attachments: &[Bytes]) -> Value {
        match value {
            Value::Object(map) if !attachments.is_empty() && map.get("_placeholder") == Some(&json!(true)) => {
                let at = usize::try_from(map["num"].as_u64().unwrap()).unwrap();
                let hex: String = attachments[at].iter().map(|b| format!("{b:02x}")).collect();
                json!({ "$bytes": hex })
            }
            Value::Object(map) => map
                .into_iter()
                .map(|(k, v)| (k, walk(v, attachments)))
                .collect::<Map<_, _>>()
                .into(),
            Value::Array(list) => list.into_iter().map(|v| walk(v, attachments)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
        }
    }
    match serde_json::from_str(args) {
        Ok(value) => walk(value, attachments).to_string(),
        Err(_) => args.to_owned(),
    }
}

/// What an order does, in the words of the table.
fn outcome(order: Result<Order, ForeignError>) -> String {
    let changed = |word: &str, audience: &Audience, rooms: &[String], leaving: bool| {
        let mut by = Map::new();
        for who in reached(audience).chars() {
            let own = rooms_of(who);
            let list: Vec<&String> = rooms
                .iter()
                .filter(|room| own.contains(&room.as_str()) == leaving)
                .collect();
            if !list.is_empty() {
                by.insert(who.to_string(), json!(list));
            }
        }
        if by.is_empty() {
            "nothing".to_owned()
        } else {
            format!("{word} {}", Value::Object(by))
        }
    };
    match order {
        Err(_) => "refused".to_owned(),
        Ok(Order::Nothing) => "ignored".to_owned(),
        Ok(Order::Emit {
            audience,
            args,
            attachments,
            ..
        }) => {
            let max = socket::Limits::default().attachments_max;
            if socket::check_attachments(&args, attachments.len(), max).is_err() {
                return "refused".to_owned();
            }
            match reached(&audience).as_str() {
                "" => "nothing".to_owned(),
                who => format!("{who} {}", filled(&args, &attachments)),
            }
        }
        Ok(Order::Join { audience, rooms }) => changed("join", &audience, &rooms, false),
        Ok(Order::Leave { audience, rooms }) => changed("leave", &audience, &rooms, true),
        Ok(Order::Disconnect { audience, .. }) => match reached(&audience).as_str() {
            "" => "nothing".to_owned(),
            who => format!("gone {who}"),
        },
    }
}

#[test]
fn messages_do_what_they_do_at_the_original_servers_or_the_table_says_why() {
    let mut wrong = Vec::new();
    let mut sources: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [source, name, message, original, here, why] = columns[..] else {
            panic!("columns of {line}");
        };
        // Both are the one emitter's.
        let emitter = if source == "request" { "broadcast" } else { source };
        *sources.entry(emitter).or_default() += 1;
        let got = outcome(read(source, message));
        // An event that reached no client there may be refused here, with a line in the log.
        let as_original = match original {
            "nothing" => matches!(got.as_str(), "nothing" | "refused" | "ignored"),
            original => {
                let (who, args) = original.split_once(' ').unwrap_or((original, ""));
                got == original || got == format!("{who} {}", filled(args, &[]))
            }
        };
        let as_told = match here {
            "" => as_original && why.is_empty(),
            here => got == here && !as_original && !why.is_empty(),
        };
        if !as_told {
            wrong.push(format!(
                "{source} {name}: original {original:?}, here {got:?}, the table {here:?} {why:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        sources.len() == 3 && sources.values().all(|lines| *lines > 50),
        "{sources:?}"
    );
}
