//! ARCHITECTURE.md and docs/design: every file and function that they name exists, and the map stays short.

use crate::book::{Page, design, root};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// A newcomer reads it in one go.
const ARCHITECTURE_LINES_MAX: usize = 200;

/// Endings of files that the documents name.
const ENDINGS: [&str; 8] = ["lua", "md", "mjs", "py", "rs", "sh", "toml", "yml"];

/// Names of files that are not in the repository: those of others, and those made when anyworker runs.
const OTHERS: [&str; 1] = ["socket.js"];

/// Every path of the repository, without what tools make.
fn paths() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if [".git", "corpus", "node_modules", "target"].contains(&name.as_str()) {
                continue;
            }
            let path = entry.path();
            found.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            }
        }
    }
    found
}

/// Whether a span names a file or a directory, by its form.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let ending = Path::new(span).extension().and_then(|ending| ending.to_str());
    let top = ["src/", "workers/", "tests/", "docs/", "scripts/"];
    span.chars().all(plain)
        && !span.starts_with(['/', '.'])
        && (ending.is_some_and(|ending| ENDINGS.contains(&ending)) || top.iter().any(|top| span.starts_with(top)))
}

/// Whether a path of the repository is `named`, or ends in it.
fn is_there(paths: &BTreeSet<String>, named: &str) -> bool {
    let named = named.trim_end_matches('/');
    let inner = format!("/{named}");
    paths.contains(named) || paths.iter().any(|path| path.ends_with(&inner))
}

#[test]
fn files_that_are_named_exist() {
    let paths = paths();
    let mut complaints = String::new();
    let mut named = 0;
    for page in design() {
        for (line, span) in page.spans() {
            if !is_path(span) || OTHERS.contains(&span) {
                continue;
            }
            named += 1;
            if !is_there(&paths, span) {
                writeln!(complaints, "{}:{line}: {span}: no such file", page.path).unwrap();
            }
        }
    }
    assert!(named > 100, "{named}");
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn what_is_a_path_is_known_by_its_form() {
    for path in [
        "ws.rs",
        "src/fleet/",
        "workers/store/src/remote/keys.rs",
        "scripts/log.lua",
    ] {
        assert!(is_path(path), "{path}");
    }
    for other in ["Fleet::step", "socket.io", "/api/ready", "fd::SETUP", "socketio:log"] {
        assert!(!is_path(other), "{other}");
    }
}

#[test]
fn the_map_is_short() {
    let pages = design();
    let page: &Page = pages.iter().find(|page| page.path == "ARCHITECTURE.md").expect("it");
    let lines = page.text.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "{lines}");
}

/// Flows that ARCHITECTURE.md shows.
const FLOWS: usize = 4;

/// Whether the text of a source file defines a function. Lua scripts are one function each.
fn defines(text: &str, function: &str) -> bool {
    text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<"))
}

#[test]
fn flows_name_functions_that_exist_and_cross_few_files() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, flows) = text.split_once("\n## The flows\n").expect("the flows");
    let (flows, _) = flows.split_once("\n## ").expect("what follows them");
    let mut complaints = String::new();
    let (mut shown, mut bound, mut files) = (0, 0, BTreeSet::new());
    for line in flows.lines() {
        if let Some((_, rest)) = line.split_once("(at most ") {
            let number = rest.split_once(" files):").expect(line).0;
            (shown, bound) = (shown + 1, number.parse::<usize>().expect(line));
            files.clear();
            continue;
        }
        let Some(step) = line.strip_prefix("    ") else {
            continue;
        };
        let (file, functions) = step.split_once(": ").unwrap_or((step, ""));
        let Ok(source) = std::fs::read_to_string(root().join(file)) else {
            writeln!(complaints, "{file}: no such file").unwrap();
            continue;
        };
        for function in functions.split(", ").filter(|function| !function.is_empty()) {
            if !defines(&source, function) {
                writeln!(complaints, "{file}: no function {function}").unwrap();
            }
        }
        if functions.is_empty() && !file.ends_with(".lua") {
            writeln!(complaints, "{file}: which function?").unwrap();
        }
        assert!(files.insert(file), "{file}: twice in one flow");
        if files.len() > bound {
            writeln!(complaints, "{step}: file {} of at most {bound}", files.len()).unwrap();
        }
    }
    assert_eq!(shown, FLOWS);
    assert!(complaints.is_empty(), "\n{complaints}");
}
