//! Layer upon layer of values: each key holds the last value that was set and where it came from.

use super::faults::{Fault, Faults};
use super::keys::{self, KEYS, Key, Kind};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where a value came from, in order of precedence: a later one beats an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It was not set.
    Default,
    /// `supervisor.toml`.
    File(PathBuf),
    /// A name in the `.env` file.
    DotEnv { path: PathBuf, name: String },
    /// A name in the environment.
    Env(String),
    /// A command line flag.
    Flag(&'static str),
}

impl Source {
    /// Position in the order of precedence.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::DotEnv { .. } => 2,
            Self::Env(_) => 3,
            Self::Flag(_) => 4,
        }
    }

    /// For a fault: the source, unless it is the configuration file or a default.
    pub(super) fn outside_file(&self) -> Option<String> {
        match self {
            Self::Default | Self::File(_) => None,
            Self::DotEnv { .. } | Self::Env(_) | Self::Flag(_) => Some(self.to_string()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::DotEnv { path, name } => write!(f, "{} {name}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value of the kind that its key demands; `Display` is TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Int(u64),
    List(Vec<String>),
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::List(values) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Self::Text(value) => f.write_str(&quoted(value)),
        }
    }
}

/// The text as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Kind {
    /// The default as a value.
    pub(super) fn default_value(self) -> Value {
        match self {
            Self::Bool(default) => Value::Bool(default),
            Self::Choice { default, .. } | Self::Text(default) => Value::Text(default.to_owned()),
            Self::Int { default, .. } => Value::Int(default),
            Self::List(default) => Value::List(default.iter().map(|&item| item.to_owned()).collect()),
        }
    }

    /// What a value must look like; for remedies.
    fn remedy(self, name: &str) -> String {
        match self {
            Self::Bool(_) => "use true or false".to_owned(),
            Self::Choice { options, .. } => format!("use {}", one_of(options)),
            Self::Int { min, max, .. } => {
                let unit = match name {
                    _ if name.ends_with("_ms") => " (milliseconds)",
                    _ if name.contains("_bytes") => " (bytes)",
                    _ => "",
                };
                format!("use {min} to {max}{unit}")
            }
            Self::List(_) => "use a text or a list of texts".to_owned(),
            Self::Text(_) => "use a text".to_owned(),
        }
    }
}

fn one_of(options: &[&str]) -> String {
    let options: Vec<String> = options.iter().map(|option| quoted(option)).collect();
    options.join(" or ")
}

/// A TOML value as what `key` demands.
pub(super) fn from_toml(key: &Key, name: &str, value: &toml::Value) -> Result<Value, Fault> {
    let parsed = match (key.kind, value) {
        (Kind::Bool(_), toml::Value::Boolean(value)) => Some(Value::Bool(*value)),
        (Kind::Int { .. }, toml::Value::Integer(value)) => u64::try_from(*value).ok().map(Value::Int),
        (Kind::List(_), toml::Value::String(value)) => Some(Value::List(vec![value.clone()])),
        (Kind::List(_), toml::Value::Array(values)) => {
            let texts: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            texts.map(Value::List)
        }
        (Kind::Text(_) | Kind::Choice { .. }, toml::Value::String(value)) => Some(Value::Text(value.clone())),
        (Kind::Bool(_) | Kind::Choice { .. } | Kind::Int { .. } | Kind::List(_) | Kind::Text(_), _) => None,
    };
    let shown = || match (name, value) {
        ("redis.url" | "emit.secret", _) => "the value".to_owned(),
        (_, toml::Value::Array(_) | toml::Value::Table(_)) => format!("a value of type {}", value.type_str()),
        (_, value) => value.to_string(),
    };
    match parsed {
        Some(parsed) => within(key, name, parsed),
        None => match (key.kind, value) {
            (Kind::Int { .. }, toml::Value::Integer(_)) => Err(not_allowed(key, name, &shown())),
            _ => Err(Fault::new(
                name,
                format!("{} has the wrong type", shown()),
                key.kind.remedy(name),
            )),
        },
    }
}

/// A text (of the environment or a flag) as what `key` demands.
pub(super) fn from_text(key: &Key, name: &str, text: &str) -> Result<Value, Fault> {
    let trimmed = text.trim();
    let value = match key.kind {
        Kind::Bool(_) => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => {
                return Err(Fault::new(
                    name,
                    format!("{text:?} is neither true nor false"),
                    "use true or false",
                ));
            }
        },
        Kind::Choice { .. } => Value::Text(trimmed.to_owned()),
        Kind::Int { .. } => match trimmed.replace('_', "").parse() {
            Ok(value) => Value::Int(value),
            Err(_) => {
                return Err(Fault::new(
                    name,
                    format!("{text:?} is not a whole number"),
                    key.kind.remedy(name),
                ));
            }
        },
        Kind::List(_) if trimmed.starts_with('[') && !trimmed.starts_with("[:") && trimmed.ends_with(']') => {
            match format!("list = {trimmed}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|mut table| table.remove("list"))
            {
                Some(list) => return from_toml(key, name, &list),
                None => {
                    let remedy = "separate the values by commas, or write them as in TOML";
                    return Err(Fault::new(name, format!("{text:?} is not a list"), remedy));
                }
            }
        }
        Kind::List(_) => {
            let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::List(items.map(str::to_owned).collect())
        }
        Kind::Text(_) => Value::Text(trimmed.to_owned()),
    };
    within(key, name, value)
}

fn within(key: &Key, name: &str, value: Value) -> Result<Value, Fault> {
    match (key.kind, &value) {
        (Kind::Int { min, max, .. }, &Value::Int(int)) if int < min || int > max => {
            Err(not_allowed(key, name, &int.to_string()))
        }
        (Kind::Choice { options, .. }, Value::Text(text)) if !options.contains(&text.as_str()) => {
            Err(not_allowed(key, name, &quoted(text)))
        }
        _ => Ok(value),
    }
}

/// A value beyond the bounds of its key.
pub(super) fn not_allowed(key: &Key, name: &str, shown: &str) -> Fault {
    Fault::new(name, format!("{shown} is not allowed"), key.kind.remedy(name))
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// The values of all keys, and the faults found so far.
pub(super) struct Values {
    entries: BTreeMap<String, Entry>,
    pub(super) faults: Faults,
}

impl Values {
    /// Every key at its default.
    pub(super) fn defaults() -> Self {
        let entry = |key: &Key| Entry {
            value: key.kind.default_value(),
            source: Source::Default,
        };
        let entries = KEYS.iter().map(|key| (key.name.to_owned(), entry(key))).collect();
        Self {
            entries,
            faults: Faults::default(),
        }
    }

    /// Lays a value over the earlier ones, or keeps the fault.
    pub(super) fn set(&mut self, name: &str, value: Result<Value, Fault>, source: Source) {
        match value {
            Ok(value) => {
                self.entries.insert(name.to_owned(), Entry { value, source });
            }
            Err(fault) => self.faults.push(fault.with_source(source.outside_file())),
        }
    }

    /// Replaces a value by what it means here; its source stays.
    pub(super) fn resolve(&mut self, name: &str, value: Value) {
        let source = self.source(name);
        self.entries.insert(name.to_owned(), Entry { value, source });
    }

    /// Keeps a fault of the value of `name`, with the value's source.
    pub(super) fn fault(&mut self, name: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let source = self.source(name).outside_file();
        self.faults.push(Fault::new(name, what, remedy).with_source(source));
    }

    /// Unwraps what a parser made of the value of `name`, or keeps its fault: (what, remedy).
    pub(super) fn accept<T>(&mut self, name: &str, parsed: Result<T, (String, String)>) -> Option<T> {
        match parsed {
            Ok(parsed) => Some(parsed),
            Err((what, remedy)) => {
                self.fault(name, what, remedy);
                None
            }
        }
    }

    /// Names of the `[checks.NAME]` sections.
    pub(super) fn check_names(&self) -> Vec<String> {
        let names = self
            .entries
            .keys()
            .filter_map(|key| key.strip_prefix("checks.")?.split_once('.'));
        let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
        names.dedup();
        names
    }

    /// Where the value of `name` came from.
    pub(super) fn source(&self, name: &str) -> Source {
        self.entries
            .get(name)
            .map_or(Source::Default, |entry| entry.source.clone())
    }

    /// Whether `name` was set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.source(name) != Source::Default
    }

    /// Whether a key that begins like this was set.
    pub(super) fn is_any_set(&self, prefix: &str) -> bool {
        self.entries
            .iter()
            .any(|(name, entry)| name.starts_with(prefix) && entry.source != Source::Default)
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Bool(true))
    }

    pub(super) fn int(&self, name: &str) -> u64 {
        if let Value::Int(value) = self.value(name) {
            value
        } else {
            0
        }
    }

    /// An integer as a size; limits keep it in range.
    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or(usize::MAX)
    }

    /// An integer of milliseconds.
    pub(super) fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.int(name))
    }

    pub(super) fn text(&self, name: &str) -> String {
        if let Value::Text(value) = self.value(name) {
            value
        } else {
            String::new()
        }
    }

    /// A text, `None` when empty.
    pub(super) fn text_if_any(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        if let Value::List(values) = self.value(name) {
            values
        } else {
            Vec::new()
        }
    }

    /// The value of `name`: what was set, or its default.
    pub(super) fn value(&self, name: &str) -> Value {
        let set = self.entries.get(name).map(|entry| entry.value.clone());
        let value = set.or_else(|| keys::find(name).map(|key| key.kind.default_value()));
        debug_assert!(value.is_some(), "no such key: {name}");
        value.unwrap_or(Value::Text(String::new()))
    }

    /// Every key in the order of the reference file, then the checks.
    pub(super) fn names(&self) -> Vec<String> {
        let known = KEYS.iter().map(|key| key.name.to_owned());
        let checks = self.entries.keys().filter(|name| name.starts_with("checks.")).cloned();
        known.chain(checks).collect()
    }
}
