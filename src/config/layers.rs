//! The layers over the defaults: the file, then `.env`, then the environment, then the flags.

use super::faults::Fault;
use super::keys;
use super::values::{self, Source, Values};
use super::{Overrides, dotenv};
use std::collections::BTreeMap;
use std::num::IntErrorKind;
use std::path::Path;
use toml::de::{DeInteger, DeTable, DeValue};

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
            DeValue::Integer(number) if is_large(number) => {
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

/// Whether it has digits, and too many of them: `0x` alone is no number.
fn is_large(number: &DeInteger<'_>) -> bool {
    let parsed = i64::from_str_radix(number.as_str(), number.radix());
    parsed.is_err_and(|error| matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow))
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

/// Lays the text of a `.env` file over the values; the names that are ignored. Only what concerns a name of ours can be a
/// fault: the file belongs to other programs too, and what they make of their names is theirs.
pub(super) fn dot_env(
    values: &mut Values,
    path: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
    notices: &mut Vec<String>,
) -> Vec<String> {
    let found = dotenv::parse(text, env);
    for bad in found.bad {
        let place = format!("{}:{}", path.display(), bad.line);
        match bad.name.filter(|name| is_ours(name)) {
            Some(name) => {
                let what =
                    format!("the value of {name} is not understood: quotes do not match, or something follows them");
                values.faults.push(Fault::new(
                    place,
                    what,
                    format!("write {name}='value' in one pair of quotes"),
                ));
            }
            None => notices.push(format!("{place}: not an assignment, ignored")),
        }
    }
    for (name, variable) in found.unset.iter().filter(|(name, _)| is_ours(name)) {
        let path = path.display();
        notices.push(format!("{path}: {name} refers to ${{{variable}}}, which has no value: nothing stands there; set {variable} above, or write \\$ in double quotes"));
    }
    environment(values, &found.values, notices, |name| Source::DotEnv {
        path: path.to_owned(),
        name: name.to_owned(),
    })
}

/// What a name of the environment means.
enum Meant {
    /// It sets this key.
    Key(String),
    /// It was to set one; what to write instead.
    Misspelled { key: String, remedy: String },
    /// It begins like ours and is not meant for us.
    Ignored,
    /// It belongs to another program.
    Foreign,
}

fn meant(name: &str) -> Meant {
    if let Some((_, key)) = GUIDE.iter().find(|(guide, _)| *guide == name) {
        return Meant::Key((*key).to_owned());
    }
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Meant::Foreign;
    };
    let key = rest.to_ascii_lowercase().replace("__", ".");
    if keys::find(&key).is_some() {
        return Meant::Key(key);
    }
    match keys::nearest(&key) {
        Some(nearest) => Meant::Misspelled {
            key,
            remedy: format!("did you mean {}?", env_name(&nearest)),
        },
        None if !rest.contains("__") => Meant::Ignored,
        None => Meant::Misspelled {
            key,
            remedy: format!("remove it; the form is {PREFIX}SECTION__KEY"),
        },
    }
}

/// Whether a name, or what seems to be one (`NAME:`), is meant to set a key.
fn is_ours(name: &str) -> bool {
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
    matches!(meant(name), Meant::Key(_) | Meant::Misspelled { .. })
}

/// Lays the names of an environment over the values; `source` makes the source of a name. Those that are ignored although
/// they begin like ours.
pub(super) fn environment(
    values: &mut Values,
    names: &BTreeMap<String, String>,
    notices: &mut Vec<String>,
    source: impl Fn(&str) -> Source,
) -> Vec<String> {
    let mut ignored = Vec::new();
    // The guide's names first: those of the form of ours beat them.
    let is_guide = |name: &str| GUIDE.iter().any(|(guide, _)| *guide == name);
    let (guide, others): (Vec<_>, Vec<_>) = names.iter().partition(|(name, _)| is_guide(name));
    for (name, text) in guide.into_iter().chain(others) {
        match meant(name) {
            Meant::Key(key) => {
                let is_empty = text.trim().is_empty();
                if is_empty && is_guide(name) {
                    continue;
                }
                if is_empty && keys::find(&key).is_some_and(|key| !key.kind.has_empty()) {
                    notices.push(format!("{} is empty: it sets nothing", source(name)));
                    continue;
                }
                set(values, &key, text, source(name));
            }
            Meant::Misspelled { key, remedy } => {
                let fault = Fault::new(key, "unknown key", remedy);
                values.faults.push(fault.with_source(source(name).outside_file()));
            }
            Meant::Ignored => ignored.push(name.clone()),
            Meant::Foreign => {}
        }
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
        // Bytes that are no UTF-8 were replaced when the text was read.
        let parsed = if text.contains(char::REPLACEMENT_CHARACTER) {
            Err(Fault::new(
                key,
                "the value has bytes that are not UTF-8",
                "write it in UTF-8",
            ))
        } else {
            values::from_text(known, key, text)
        };
        values.set(key, parsed, source);
    }
}
