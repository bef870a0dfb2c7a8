//! The effective configuration as TOML, secrets masked, each value with its source.

use super::values::{Value, Values};
use boot::Settings;

/// What `anyworker check` prints.
pub(super) fn masked_toml(values: &mut Values, settings: &Settings, managed_redis: bool) -> String {
    if let Some(redis) = &settings.redis {
        if let Ok(db) = u64::try_from(redis.db) {
            values.resolve("redis.db", Value::Int(db));
        }
        let url = if managed_redis {
            String::new()
        } else {
            redis.to_string()
        };
        values.resolve("redis.url", Value::Text(url));
    } else if values.is_set("redis.url") {
        values.resolve("redis.url", Value::Text("***".to_owned()));
    }
    if settings.emit.secret.is_some() {
        values.resolve("emit.secret", Value::Text("***".to_owned()));
    }
    let mut out = String::new();
    let mut section = String::new();
    for name in values.names() {
        let Some((table, key)) = name.rsplit_once('.') else {
            continue;
        };
        let is_off = table == "engine.cookie" && settings.engine.cookie.is_none();
        if is_off {
            continue;
        }
        if table != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = table.to_owned();
            out.extend([gap, "[", table, "]\n"]);
        }
        out.extend([format!("{key} = {}  # {}\n", values.value(&name), values.source(&name))]);
    }
    out
}
