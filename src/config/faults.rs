//! What is wrong with a configuration: all of it, one line each.

use std::fmt;

/// One thing that is wrong: `key: what is wrong with the value; remedy (source)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Fault {
    /// The key, or `file:line` for a file that is not TOML.
    key: String,
    /// What is wrong, with the value unless it may be secret.
    what: String,
    /// What to write instead.
    remedy: String,
    /// Where the value came from, when that is not the configuration file.
    source_name: Option<String>,
}

impl Fault {
    /// A fault of the value of `key`.
    pub(crate) fn new(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            what: what.into(),
            remedy: remedy.into(),
            source_name: None,
        }
    }

    /// Adds where the value came from.
    pub(crate) fn with_source(mut self, source: Option<String>) -> Self {
        self.source_name = source;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{}: {}", self.key, self.what);
        if !self.remedy.is_empty() {
            line.extend(["; ", &self.remedy]);
        }
        if let Some(name) = &self.source_name {
            line.extend([" (from ", name, ")"]);
        }
        // A quoted key of TOML, or a path, may hold a line feed; a fault is one line.
        f.write_str(&ops::printer::clean(&line))
    }
}

/// Every fault of a configuration; as an error it is never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds one.
    pub(crate) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each fault as its line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, fault) in self.0.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
