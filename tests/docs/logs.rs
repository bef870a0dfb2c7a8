//! docs/logs.md lists every message that the sources log, with its levels and fields, and no other.

use crate::book::root;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

/// Macros of `tracing`, and the gateway's `line!`, which takes the level as its first argument.
const MACROS: [&str; 6] = ["debug", "error", "info", "line", "trace", "warn"];

/// What one message is logged with, all its places taken together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Logged {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

/// Every message of the product: `src` and the `src` of each crate in `workers`, without tests.
fn logged() -> BTreeMap<String, Logged> {
    let mut found = BTreeMap::new();
    let mut directories: Vec<PathBuf> = vec![root().join("src")];
    for entry in std::fs::read_dir(root().join("workers")).unwrap() {
        directories.push(entry.unwrap().path().join("src"));
    }
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            } else if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                note(&text, &mut found);
            }
        }
    }
    found
}

/// Adds the messages of one source file.
fn note(text: &str, found: &mut BTreeMap<String, Logged>) {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    for (at, _) in text.match_indices("!(") {
        let before = &text[..at];
        let start = before
            .rfind(|c: char| !c.is_ascii_lowercase())
            .map_or(0, |last| last + 1);
        let name = &before[start..];
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        if !MACROS.contains(&name) || line.starts_with("//") || before[..start].ends_with('$') {
            continue;
        }
        let mut arguments = arguments(&text[at + 2..]);
        let mut fields = BTreeSet::new();
        let level = match name {
            "line" => {
                fields.insert("untold".to_owned());
                arguments.remove(0)
            }
            level => level.to_owned(),
        };
        let Some(message) = arguments.pop().and_then(|last| literal(&last)) else {
            panic!("a line without a constant message: {line}");
        };
        fields.extend(arguments.iter().map(|argument| {
            let name = argument.split(" = ").next().unwrap_or_default();
            name.trim_start_matches(['%', '?']).to_owned()
        }));
        let logged: &mut Logged = found.entry(message).or_default();
        logged.levels.insert(level.to_uppercase());
        logged.fields.extend(fields);
    }
}

/// The arguments of a macro up to its closing parenthesis, separated at the commas of its own level.
fn arguments(text: &str) -> Vec<String> {
    let (mut found, mut current) = (Vec::new(), String::new());
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    found.push(current.trim().to_owned());
    found.retain(|argument| !argument.is_empty());
    found
}

/// The text of a string literal, with its continued lines joined.
fn literal(argument: &str) -> Option<String> {
    let inner = argument.strip_prefix('"')?.strip_suffix('"')?;
    let mut lines = inner.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    Some(lines.fold(first, |text, line| text + line.trim_start()))
}

/// The tables of docs/logs.md.
fn documented(text: &str) -> BTreeMap<String, Logged> {
    let mut found = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let message = cells[1]
            .strip_prefix("`` ")
            .and_then(|rest| rest.strip_suffix(" ``"))
            .unwrap_or(cells[1].trim_matches('`'));
        let fields = cells[3].split('`').skip(1).step_by(2).map(str::to_owned);
        let logged = Logged {
            levels: cells[2].split(", ").map(str::to_owned).collect(),
            fields: fields.collect(),
        };
        assert!(found.insert(message.to_owned(), logged).is_none(), "twice: {message}");
    }
    found
}

#[test]
fn every_log_message_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let (logged, documented) = (logged(), documented(&page));
    assert!(logged.len() > 150, "{}", logged.len());
    let mut complaints = String::new();
    for (message, lines) in &logged {
        match documented.get(message) {
            None => writeln!(complaints, "not in docs/logs.md: {message}: {lines:?}").unwrap(),
            Some(known) if known != lines => {
                writeln!(
                    complaints,
                    "{message}: docs/logs.md has {known:?}, the sources {lines:?}"
                )
                .unwrap();
            }
            Some(_) => {}
        }
    }
    for message in documented.keys().filter(|message| !logged.contains_key(*message)) {
        writeln!(complaints, "not in the sources: {message}").unwrap();
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn lines_are_found_in_every_form() {
    let source = "use tracing::warn;\n// info!(\"a comment\");\nwarn!(\n    slot = f(1, 2),\n    %error,\n    \"a \\\n     b, (c\"\n);\n\
                  line!(info, why, \"d\");\ntracing::debug!(\"e\");\nprintln!(\"f\");\n#[cfg(test)]\nmod tests {\n    info!(\"g\");\n}\n";
    let mut found = BTreeMap::new();
    note(source, &mut found);
    let logged = |level: &str, fields: &[&str]| Logged {
        levels: BTreeSet::from([level.to_owned()]),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    };
    let wanted = BTreeMap::from([
        ("a b, (c".to_owned(), logged("WARN", &["error", "slot"])),
        ("d".to_owned(), logged("INFO", &["untold", "why"])),
        ("e".to_owned(), logged("DEBUG", &[])),
    ]);
    assert_eq!(found, wanted);
}
