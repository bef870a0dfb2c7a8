//! House rules that a machine can check: sizes, headers, arrows between the parts, leftovers.
//! Everything that is wrong is listed at once.

#![cfg(test)]

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/terms.rs"]
mod terms;

use std::fmt::Write;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;
const TEST_LINES_MAX: usize = 800;

/// Directories that are not ours, or made by tools.
const SKIPPED: [&str; 6] = [".git", ".venv", "__pycache__", "node_modules", "target", "corpus"];

/// Where each crate may depend on others of the workspace.
const ARROWS: [(&str, &[&str]); 12] = [
    (".", &["boot", "gateway", "ops"]),
    ("bench/rtbench", &[]),
    ("fuzz", &["wire"]),
    ("tests/harness", &[]),
    ("workers/app", &["session", "wire"]),
    ("workers/boot", &["meter"]),
    ("workers/gateway", &["app", "boot", "meter", "session", "store", "wire"]),
    ("workers/meter", &[]),
    ("workers/ops", &["store"]),
    ("workers/session", &["wire"]),
    ("workers/store", &["meter", "session", "wire"]),
    ("workers/wire", &[]),
];

/// Parts without clock, runtime, Redis or socket.
const PURE: [&str; 4] = [
    "src/fleet/",
    "workers/meter/src/",
    "workers/session/src/",
    "workers/wire/src/",
];

struct File {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Numbered lines of code, without those that are comments altogether.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(nth, line)| (nth + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository.
fn files() -> Vec<File> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                directories.push(entry.path());
            }
            if kind.is_file()
                && !SKIPPED.contains(&name.as_str())
                && !name.ends_with(".log")
                && let Ok(text) = std::fs::read_to_string(entry.path())
            {
                let path = entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(File { path, text });
            }
        }
    }
    assert!(
        found.iter().any(|file| file.path == "src/main.rs"),
        "the repository was not found"
    );
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

/// Runs a rule over all files, and fails with everything that it complains about.
fn check(rule: impl Fn(&File, &mut String)) {
    let mut complaints = String::new();
    for file in &files() {
        rule(file, &mut complaints);
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

fn complain(out: &mut String, place: impl std::fmt::Display, what: &str) {
    writeln!(out, "{place}: {what}").unwrap();
}

/// Whether `word` is in the line and no longer name goes on to its left.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    check(|file, out| {
        if !file.is_rust() {
            return;
        }
        let lines = file.text.lines().count();
        let limit = if file.is_test() { TEST_LINES_MAX } else { LINES_MAX };
        if lines > limit {
            complain(out, &file.path, &format!("{lines} lines, more than {limit}"));
        }
        if !file.text.starts_with("//!") {
            complain(out, &file.path, "does not begin with //! and what it is for");
        }
    });
}

#[test]
fn unsafe_is_in_one_file() {
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"];
    check(|file, out| {
        if !file.is_rust() || matches!(file.path.as_str(), "src/sys/spawn.rs" | "tests/tidy.rs") {
            return;
        }
        for (number, line) in file.code() {
            if forms.iter().any(|form| has_word(line, form)) {
                complain(
                    out,
                    format!("{}:{number}", file.path),
                    "unsafe belongs in src/sys/spawn.rs",
                );
            }
        }
    });
}

#[test]
fn pure_parts_are_pure() {
    let banned = [
        "tokio",
        "redis::",
        "use redis",
        "Instant::now",
        "SystemTime::now",
        "std::net",
        "std::fs",
    ];
    check(|file, out| {
        if !file.is_rust() || !PURE.iter().any(|part| file.path.starts_with(part)) {
            return;
        }
        for (number, line) in file.code() {
            for word in banned.iter().filter(|word| has_word(line, word)) {
                complain(
                    out,
                    format!("{}:{number}", file.path),
                    &format!("{word} in a pure part"),
                );
            }
        }
    });
}

#[test]
fn crates_depend_as_drawn() {
    let mut complaints = String::new();
    for (directory, allowed) in ARROWS {
        let path = root().join(directory).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        for name in dependencies.keys() {
            if let Some(part) = name.strip_prefix("anyworker-")
                && !allowed.contains(&part)
            {
                complain(&mut complaints, directory, &format!("must not depend on {part}"));
            }
            let is_pure = PURE.contains(&format!("{directory}/src/").as_str());
            if is_pure && ["tokio", "hyper", "socket2", "nix"].contains(&name.as_str()) {
                complain(
                    &mut complaints,
                    directory,
                    &format!("is pure and must not depend on {name}"),
                );
            }
            if directory != "workers/store" && ["redis", "deadpool-redis"].contains(&name.as_str()) {
                complain(&mut complaints, directory, &format!("{name} belongs in workers/store"));
            }
        }
        if manifest.get("lints").and_then(|lints| lints.get("workspace")) != Some(&toml::Value::Boolean(true)) {
            complain(&mut complaints, directory, "does not take the workspace's lints");
        }
    }
    let crates = std::fs::read_dir(root().join("workers")).unwrap().count();
    // And the supervisor, the load tool, the fuzz targets and the harness.
    assert_eq!(crates + 4, ARROWS.len(), "a crate without arrows");
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn modules_form_no_circles() {
    let mut complaints = String::new();
    for (directory, _) in ARROWS {
        let files = ["src/lib.rs", "src/main.rs", "mod.rs"].map(|name| root().join(directory).join(name));
        let crate_root = files.iter().find(|path| path.is_file()).expect("a root file");
        let found = graph::Graph::read(crate_root).complaints();
        if !found.is_empty() {
            complain(&mut complaints, directory, &found);
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn no_leftovers() {
    // Put together, so that this file passes.
    let banned = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
    ];
    check(|file, out| {
        if file.path.ends_with(".lock") || file.path.ends_with("package-lock.json") {
            return;
        }
        for (number, line) in file.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(*word)) {
                complain(
                    out,
                    format!("{}:{}", file.path, number + 1),
                    &format!("{word} is left over"),
                );
            }
        }
    });
}

#[test]
fn exceptions_have_reasons() {
    check(|file, out| {
        if !file.is_rust() || file.path == "tests/tidy.rs" {
            return;
        }
        for form in ["#[allow(", "#[expect(", "#![allow(", "#![expect("] {
            for (at, _) in file.text.match_indices(form) {
                let attribute = file.text[at..].split_once(")]").map_or("", |(attribute, _)| attribute);
                if !attribute.contains("reason = ") {
                    let number = file.text[..at].lines().count() + 1;
                    complain(
                        out,
                        format!("{}:{number}", file.path),
                        "an exception without its reason",
                    );
                }
            }
        }
    });
}

/// Words that hide which process, client or thing is meant, and names of a former vocabulary.
/// Put together, so that this file passes.
const FORBIDDEN_WORDS: [&str; 7] = [
    concat!("no", "body"),
    concat!("who", "ever"),
    concat!("who", "m"),
    concat!("le", "st"),
    concat!("bur", "ied"),
    concat!("hei", "rs"),
    concat!("lob", "by"),
];

/// Lines that may hold one: the Unix account of that name, and messages of others that are kept as they came.
/// By file, and by what stands in the line.
const ALLOWED_WORDS: [(&str, &str); 8] = [
    ("tests/ops/doctor.rs", "User::from_name("),
    ("tests/ops/doctor.rs", "uid.as_raw()"),
    ("tests/supervisor/privilege.rs", "user = '"),
    ("tests/supervisor/privilege.rs", "User::from_name("),
    ("tests/supervisor/privilege.rs", "uid.to_string()"),
    ("tests/supervisor/privilege.rs", " = said("),
    ("tests/supervisor/redis.rs", "user = '"),
    ("tests/supervisor/redis.rs", "User::from_name("),
];

/// Files that others wrote: texts of licenses, vectors recorded from other servers.
const FOREIGN_FILES: [&str; 4] = [
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "tests/clients/package-lock.json",
    "workers/wire/src/foreign/compared.tsv",
];

/// The words of a line: letters only, so that those of `a_name_like_this` count, too.
fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase)
}

#[test]
fn text_is_plain() {
    let is_allowed = |path: &str, line: &str| {
        let mut allowed = ALLOWED_WORDS.iter();
        allowed.any(|(file, part)| *file == path && line.contains(part))
    };
    check(|file, out| {
        if FOREIGN_FILES.contains(&file.path.as_str()) {
            return;
        }
        for (number, line) in file.text.lines().enumerate() {
            for word in words(line).filter(|word| FORBIDDEN_WORDS.contains(&word.as_str())) {
                if !is_allowed(&file.path, line) {
                    complain(
                        out,
                        format!("{}:{}", file.path, number + 1),
                        &format!("\"{word}\": say which process, client or thing"),
                    );
                }
            }
        }
    });
}

#[test]
fn exceptions_to_plain_text_are_needed() {
    let files = files();
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| &file.text);
    let has_forbidden = |line: &str| words(line).any(|word| FORBIDDEN_WORDS.contains(&word.as_str()));
    let mut complaints = String::new();
    for (path, part) in ALLOWED_WORDS {
        let needed =
            text_of(path).is_some_and(|text| text.lines().any(|line| line.contains(part) && has_forbidden(line)));
        if !needed {
            complain(
                &mut complaints,
                path,
                &format!("no line with {part:?} needs an exception"),
            );
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn forbidden_words_are_found_in_prose_and_in_names() {
    let found = |line: &str| {
        words(line)
            .filter(|word| FORBIDDEN_WORDS.contains(&word.as_str()))
            .count()
    };
    assert_eq!(found(concat!("// ", "No", "body waits")), 1);
    assert_eq!(found(concat!("fn it_refuses_no", "body() {")), 1);
    assert_eq!(found("// Nothing waits, and the lobes of a leaf are not meant."), 0);
}

#[test]
fn names_are_standard_terms() {
    check(|file, out| {
        if !file.is_rust() {
            return;
        }
        for (line, what) in terms::complaints(&file.path, &file.text) {
            complain(out, format!("{}:{line}", file.path), &what);
        }
    });
}
