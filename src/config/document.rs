//! The page about every key, `docs/configure.md`: what a key means comes from the reference `supervisor.toml`,
//! all else about it from [`keys`](super::keys).

use super::keys::{self, Kind};
use super::layers::{FLAGS, GUIDE, env_name};
use std::fmt::Write;

const REFERENCE: &str = include_str!("../../supervisor.toml");

const HEAD: &str = "\
# Every key

`make docs` writes this page from [supervisor.toml](../supervisor.toml), which is \"this file\" below, and from the code. Do not edit it.
";

const RULES: &str = "
- An unknown key, a value of the wrong type or out of bounds, and values that contradict each other are faults: anyworker exits with 78,
  or a reload changes nothing, and each fault is reported with its source and the remedy.
- In the environment a list is `a,b`, and a truth value is `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`. An empty value means off, or automatic,
  where the key is a text or a list; numbers, truth values and choices have no empty value, so it sets nothing, with a notice. Empty `REDIS_URL`, `REDIS_DB` and `REDIS_ENABLED` set nothing.
- An environment variable that begins with `ANYWORKER_`, has no `__` and resembles no key is ignored with a notice: Kubernetes sets
  `ANYWORKER_PORT` and others for a Service of that name.
- A reload applies every key, unless this page says that a change needs a restart.
";

/// What the reference says of a key.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name as in [`keys::KEYS`].
    pub(super) name: String,
    /// What stands behind `=`.
    pub(super) value: String,
    /// The comment above it.
    pub(super) comment: Vec<&'static str>,
}

/// What the reference consists of, in its order.
#[derive(Debug)]
pub(super) enum Piece {
    Entry(Entry),
    /// A header, with the comment above it.
    Section {
        name: String,
        comment: Vec<&'static str>,
    },
    /// A comment that belongs to neither.
    Text(Vec<&'static str>),
}

/// Takes the reference apart. A comment ends with a blank line or with what it belongs to; `# key = value` and
/// `# [section]` are a key and a section that are off.
pub(super) fn pieces() -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut section = String::new();
    let mut comment: Vec<&'static str> = Vec::new();
    for line in REFERENCE.lines().chain([""]) {
        let is_comment = line.starts_with('#');
        let line = line.trim_start_matches('#');
        let line = line.strip_prefix(' ').unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            // The examples of checks are several of one kind.
            let name = if name.starts_with("checks.") {
                "checks.NAME"
            } else {
                name
            };
            if section != name {
                name.clone_into(&mut section);
                let comment = std::mem::take(&mut comment);
                pieces.push(Piece::Section {
                    name: section.clone(),
                    comment,
                });
            }
        } else if let Some((name, value)) = assignment(line) {
            pieces.push(Piece::Entry(Entry {
                name: format!("{section}.{name}"),
                value: value.to_owned(),
                comment: std::mem::take(&mut comment),
            }));
        } else if is_comment {
            comment.push(line);
        } else if !comment.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut comment)));
        }
    }
    pieces
}

fn assignment(line: &'static str) -> Option<(&'static str, &'static str)> {
    let (name, value) = line.split_once(" = ")?;
    let is_key = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then_some((name, value))
}

/// `docs/configure.md`.
pub(crate) fn page() -> String {
    let mut out = HEAD.to_owned();
    for (nth, piece) in pieces().into_iter().enumerate() {
        match piece {
            Piece::Text(comment) => {
                // The first line is a title for readers of the file.
                let comment = if nth == 0 {
                    comment.get(2..).unwrap_or_default()
                } else {
                    &comment
                };
                if nth > 0 {
                    let subject = comment.first().and_then(|line| line.split(' ').next());
                    out.extend(["\n## ", subject.unwrap_or_default(), "\n"]);
                }
                paragraph(&mut out, comment);
                if nth == 0 {
                    out.push_str(RULES);
                }
            }
            Piece::Section { name, comment } => {
                out.extend(["\n## [", &name, "]\n"]);
                paragraph(&mut out, &comment);
            }
            Piece::Entry(entry) => {
                out.extend(["\n### ", &entry.name, "\n"]);
                paragraph(&mut out, &entry.comment);
                facts(&mut out, &entry);
            }
        }
    }
    out
}

/// A comment as Markdown: lines that are indented, or are a list by their form, stay as they are.
fn paragraph(out: &mut String, comment: &[&str]) {
    let mut was_text = None;
    for line in comment.iter().filter(|line| !line.is_empty()) {
        let is_text = !line.starts_with("  ");
        if was_text != Some(is_text) {
            out.push('\n');
        }
        was_text = Some(is_text);
        if is_text {
            let line = line.replace('*', "\\*").replace('$', "\\$");
            out.extend([line.trim_end(), "\n"]);
        } else {
            out.extend(["  ", line, "\n"]);
        }
    }
}

/// Default, bounds, names, and what a change needs, on a line.
fn facts(out: &mut String, entry: &Entry) {
    let Some(key) = keys::find(&entry.name) else {
        return;
    };
    let (default, bounds) = match key.kind {
        Kind::Bool(default) => (default.to_string(), String::new()),
        Kind::Choice { .. } | Kind::List(_) | Kind::Text(_) => (key.kind.default_value().to_string(), String::new()),
        Kind::Int { default, min, max } => {
            let unit = match entry.name.as_str() {
                name if name.ends_with("_ms") => " milliseconds",
                name if name.contains("_bytes") => " bytes",
                _ => "",
            };
            (
                grouped(default),
                format!("; {} to {}{unit}", grouped(min), grouped(max)),
            )
        }
    };
    let names = [&GUIDE[..], &FLAGS[..]].concat();
    let others = names.iter().filter(|(_, key)| *key == entry.name);
    let others: String = others.map(|(name, _)| format!(", `{name}`")).collect();
    // Only an example differs from the default.
    let example = if entry.name.starts_with("checks.NAME.") && !matches!(key.kind, Kind::Int { .. }) {
        format!("Example `{}`", entry.value)
    } else {
        format!("Default `{default}`{bounds}")
    };
    let environment = env_name(&entry.name);
    // Writing to a text does not fail.
    write!(out, "\n{example}. Set by `{environment}`{others}.").ok();
    if let Some((_, when)) = keys::RESTART.iter().find(|(name, _)| *name == entry.name) {
        write!(out, " **A change needs a restart{when}.**").ok();
    }
    out.push('\n');
}

/// With `_` between thousands, as in the reference.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_code_says() {
        let page = page();
        let written = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configure.md"));
        assert!(
            written.is_ok_and(|written| written == page),
            "docs/configure.md is stale: run `make docs`"
        );
    }

    #[test]
    fn every_key_is_explained() {
        let mut missing: Vec<&str> = keys::KEYS.iter().chain(keys::CHECK_KEYS).map(|key| key.name).collect();
        for piece in pieces() {
            let Piece::Entry(entry) = piece else { continue };
            assert!(!entry.comment.is_empty(), "nothing is said of {}", entry.name);
            missing.retain(|name| *name != entry.name);
        }
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn thousands() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1_000"),
            (31_536_000_000, "31_536_000_000"),
        ] {
            assert_eq!(grouped(value), text);
        }
    }
}
