//! The layers over the defaults: the file, then `.env`, then the environment, then the flags.

use super::faults::Fault;
use super::keys;
use super::values::{self, Source, Values};
use super::{Overrides, dotenv};
use std::collections::BTreeMap;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Names of the environment that begin so are ours. One that names no key is a fault, if it has the form of ours or comes
/// close to one; others are not meant for us: Kubernetes sets `ANYWORKER_PORT` and the like for a Service of our name.
const PREFIX: &str = "ANYWORKER_";

/// The guide's names and the keys that they set.
pub(super) const GUIDE: [(&str, &str); 3] = [
    ("REDIS_URL", "redis.url"),
    ("REDIS_DB", "redis.db"),
    ("REDIS_ENABLED", "redis.enabled"),
];

/// The flags that set a key.
pub(super) const FLAGS: [(&str, &str); 3] = [
    ("--listen", "listen.address"),
    ("--workers", "workers.count"),
    ("--redis", "redis.url"),
];

/// Lays the text of a configuration file over the defaults.
pub(super) fn file(values: &mut Values, path: &Path, text: &str) {
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let large = DeTable::parse(text).map(|table| large_numbers("", table.get_ref()));
            let large: Vec<Fault> = large.unwrap_or_default();
            if large.is_empty() {
                values.faults.push(syntax(path, text, &error));
            }
            large.into_iter().for_each(|fault| values.faults.push(fault));
            return;
        }
    };
    section(values, path, "", &table);
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Fault {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1;
    // Only the message: the line itself may hold a password.
    let what = error.message().lines().collect::<Vec<_>>().join(", ");
    Fault::new(format!("{}:{line}", path.display()), what, "correct the TOML syntax")
}

/// A whole number with more digits than a `toml::Value` can hold is good TOML, and beyond the bounds of any key.
fn large_numbers(prefix: &str, table: &DeTable<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (part, value) in table {
        let name = joined(prefix, part.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => faults.extend(large_numbers(&name, inner)),
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
                faults.push(match keys::find(&name) {
                    Some(key) => values::not_allowed(key, &name, &number.to_string()),
                    None => unknown(&name),
                });
            }
            DeValue::Array(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_)
            | DeValue::String(_) => {}
        }
    }
    faults
}

fn joined(prefix: &str, part: &str) -> String {
    if prefix.is_empty() {
        part.to_owned()
    } else {
        format!("{prefix}.{part}")
    }
}

fn section(values: &mut Values, path: &Path, prefix: &str, table: &toml::Table) {
    for (part, value) in table {
        let name = joined(prefix, part);
        match (keys::find(&name), value) {
            (Some(key), value) => {
                let parsed = values::from_toml(key, &name, value);
                values.set(&name, parsed, Source::File(path.to_owned()));
            }
            (None, toml::Value::Table(inner)) if !inner.is_empty() => section(values, path, &name, inner),
            (None, toml::Value::Table(_)) if keys::is_section(&name) => {}
            (None, toml::Value::Table(_)) if prefix == "checks" => {
                let remedy = "give one of http, tcp and writable_path";
                values.faults.push(Fault::new(name, "nothing to check", remedy));
            }
            (None, _) => values.faults.push(unknown(&name)),
        }
    }
}

fn unknown(name: &str) -> Fault {
    if keys::is_section(name) {
        return Fault::new(
            name,
            "is a section, not a key",
            format!("write [{name}] and its keys below"),
        );
    }
    let remedy = match (keys::nearest_section(name), keys::nearest(name)) {
        (Some(section), _) => format!("did you mean [{section}]?"),
        (None, Some(meant)) => format!("did you mean {meant}?"),
        (None, None) => "remove it".to_owned(),
    };
    Fault::new(name, "unknown key", remedy)
}

/// Lays the text of a `.env` file over the values; the names that are ignored.
pub(super) fn dot_env(values: &mut Values, path: &Path, text: &str) -> Vec<String> {
    let (names, bad) = dotenv::parse(text);
    for line in bad {
        let place = format!("{}:{line}", path.display());
        values
            .faults
            .push(Fault::new(place, "not an assignment", "write NAME=value"));
    }
    environment(values, &names, |name| Source::DotEnv {
        path: path.to_owned(),
        name: name.to_owned(),
    })
}

/// Lays the names of an environment over the values; `source` makes the source of a name. Those that are ignored although
/// they begin like ours.
pub(super) fn environment(
    values: &mut Values,
    names: &BTreeMap<String, String>,
    source: impl Fn(&str) -> Source,
) -> Vec<String> {
    let mut ignored = Vec::new();
    for (name, key) in GUIDE {
        if let Some(text) = names.get(name).filter(|text| !text.trim().is_empty()) {
            set(values, key, text, source(name));
        }
    }
    for (name, text) in names {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        if keys::find(&key).is_some() {
            set(values, &key, text, source(name));
            continue;
        }
        let remedy = match keys::nearest(&key) {
            Some(meant) => format!("did you mean {}?", env_name(&meant)),
            None if !rest.contains("__") => {
                ignored.push(name.clone());
                continue;
            }
            None => format!("remove it; the form is {PREFIX}SECTION__KEY"),
        };
        values
            .faults
            .push(Fault::new(key, "unknown key", remedy).with_source(source(name).outside_file()));
    }
    ignored
}

/// The name by which the environment sets a key.
pub(super) fn env_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Lays the command line flags over the values.
pub(super) fn flags(values: &mut Values, overrides: &Overrides) {
    let Overrides { listen, redis, workers } = overrides;
    let listen = Some(listen.join(",")).filter(|addresses| !addresses.is_empty());
    let given = [listen, workers.map(|count| count.to_string()), redis.clone()];
    for ((flag, key), text) in FLAGS.iter().zip(given) {
        if let Some(text) = text {
            set(values, key, &text, Source::Flag(flag));
        }
    }
}

fn set(values: &mut Values, key: &str, text: &str, source: Source) {
    if let Some(known) = keys::find(key) {
        values.set(key, values::from_text(known, key, text), source);
    }
}
