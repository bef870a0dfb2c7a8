//! What the documents name is there: keys, commands, flags, files, headings.

use crate::book::{Page, design, pages, root};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

/// Files and names of others' that look like keys.
const OTHERS: [&str; 7] = [
    "redis.conf",
    "redis.log",
    "redis.sock",
    "socket.broadcast",
    "socket.data",
    "socket.io",
    "socket.join",
];

#[test]
fn links_lead_somewhere() {
    let mut complaints = String::new();
    for page in pages().into_iter().chain(design()) {
        let directory = root().join(&page.path).parent().unwrap().to_owned();
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => root().join(&page.path),
                file => directory.join(file),
            };
            let Ok(path) = path.canonicalize() else {
                writeln!(complaints, "{}:{line}: {target}: no such file", page.path).unwrap();
                continue;
            };
            if anchor.is_empty() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.display().to_string();
            if !(Page { path, text }).anchors().iter().any(|known| known == anchor) {
                writeln!(complaints, "{}:{line}: {target}: no such heading", page.path).unwrap();
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

/// Headings of docs/configure.md, and checks of docs/doctor.md.
fn known() -> (BTreeSet<String>, BTreeSet<String>) {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let configure = read("docs/configure.md");
    let keys: BTreeSet<String> = configure
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    let mut names = keys.clone();
    let doctor = read("docs/doctor.md");
    names.extend(
        doctor
            .lines()
            .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())),
    );
    let sections = keys.iter().filter_map(|key| Some(key.split_once('.')?.0.to_owned()));
    (sections.collect(), names)
}

#[test]
fn keys_exist() {
    let (sections, names) = known();
    let mut complaints = String::new();
    for page in pages() {
        for (line, span) in page.spans() {
            // `engine.path = "/x/"` names a key, too.
            let name = span.split([' ', '=']).next().unwrap_or(span);
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | '_'));
            let is_key = name
                .split_once('.')
                .is_some_and(|(section, _)| sections.contains(section));
            let is_section = names.iter().any(|known| known.starts_with(&format!("{name}.")));
            if plain && is_key && !is_section && !names.contains(name) && !OTHERS.contains(&name) {
                writeln!(complaints, "{}:{line}: {name}: no such key or check", page.path).unwrap();
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn commands_and_flags_exist() {
    let help = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_anyworker"))
            .args(words)
            .arg("--help")
            .output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    };
    let mut complaints = String::new();
    let mut named = 0;
    for page in pages() {
        for (line, span) in page.spans() {
            let Some(words) = span.strip_prefix("anyworker ") else {
                continue;
            };
            named += 1;
            let words: Vec<&str> = words.split(' ').map(|word| word.trim_matches(['[', ']'])).collect();
            let is_command = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
            let command: Vec<&str> = words.iter().take_while(is_command).take(2).copied().collect();
            let Some(text) = help(&command).or_else(|| help(&command[..1.min(command.len())])) else {
                writeln!(complaints, "{}:{line}: {span}: no such command", page.path).unwrap();
                continue;
            };
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                if !text.contains(*flag) {
                    writeln!(complaints, "{}:{line}: {span}: no {flag}", page.path).unwrap();
                }
            }
        }
    }
    assert!(named > 30, "{named}");
    assert!(complaints.is_empty(), "\n{complaints}");
}

/// The defaults in docs/reference.md are those that docs/configure.md has from the code.
#[test]
fn defaults_are_those_of_the_code() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (reference, configure) = (read("docs/reference.md"), read("docs/configure.md"));
    let default_of = |key: &str| {
        let (_, rest) = configure.split_once(&format!("\n### {key}\n")).expect(key);
        let (_, rest) = rest.split_once("\nDefault `").expect(key);
        rest.split_once('`').unwrap().0.to_owned()
    };
    // `4; 1 without Redis`, `25 000`, `none: …`
    let plain = |text: &str| {
        let text = text.split([';', '*']).next().unwrap_or_default().replace("none", "");
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, '/' | '.' | ':');
        text.chars().filter(kept).collect::<String>()
    };
    let (_, table) = reference.split_once("## Configuration").unwrap();
    let (table, _) = table.split_once("## Commands").unwrap();
    let mut compared = 0;
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let names: Vec<&str> = cells[0].split('`').skip(1).step_by(2).collect();
        let section = names[0].split_once('.').unwrap().0;
        for (name, said) in names.iter().zip(cells[1].split(", ")) {
            let name = name.trim_start_matches(section).trim_start_matches('.');
            let said = said.split(": ").next().unwrap();
            assert_eq!(plain(said), plain(&default_of(&format!("{section}.{name}"))), "{row}");
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");
}

/// The table of limits in docs/security.md: each key has that default, each test exists, and no row is without either.
#[test]
fn limits_and_their_tests_exist() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (security, configure) = (read("docs/security.md"), read("docs/configure.md"));
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let tests = sources();
    let (_, table) = security.split_once("| what grows |").expect("the table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let mut rows = 0;
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [_, limit, _, shown] = cells.as_slice() else {
            panic!("{row}");
        };
        for limit in limit.split("; ").filter(|limit| limit.starts_with('`')) {
            let (key, said) = limit.trim_start_matches('`').split_once("`: ").expect(limit);
            let said = digits(said.split(',').next().unwrap());
            let (_, rest) = configure.split_once(&format!("\n### {key}\n")).expect(key);
            let (_, rest) = rest.split_once("\nDefault `").expect(key);
            assert_eq!(said, digits(rest.split('`').next().unwrap()), "{key}");
        }
        assert!(limit.chars().any(|c| c.is_ascii_digit()), "no limit: {row}");
        for name in shown.split('`').skip(1).step_by(2) {
            assert!(tests.contains(&format!("fn {name}(")), "{name}: no such test");
        }
        assert!(shown.contains('`'), "no test: {row}");
        rows += 1;
    }
    assert!(rows > 15, "{rows}");
}

/// All tests, and what they test.
fn sources() -> String {
    let mut text = String::new();
    let mut directories = vec![root().join("tests"), root().join("workers")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("node_modules") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}
