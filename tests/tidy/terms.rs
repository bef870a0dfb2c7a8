//! Names that have a standard term instead. ARCHITECTURE.md has the glossary of what is left.

use proc_macro2::{TokenStream, TokenTree};

/// Parts of names, in lower case and one, and what to write instead. `heir_beside`, `FleetTally` and `LEAP` count.
const PARTS: [(&str, &str); 36] = [
    ("arrival", "restored connection"),
    ("asker", "requester"),
    ("banish", "evict"),
    ("bequeath", "export, hand over"),
    (concat!("bur", "ied"), "void leases, declared dead"),
    ("bury", "void leases, declare dead"),
    ("deaf", "log stalled, unreachable"),
    ("deed", "action"),
    ("doors", "ingest, sources"),
    ("ear", "inbox"),
    ("epitaph", "exit reason"),
    ("estate", "inherited descriptors"),
    ("excuse", "cancel"),
    ("farewell", "error report, last packet"),
    ("fate", "idle policy"),
    ("ghost", "stale connection"),
    ("gift", "handoff"),
    ("heart", "keep-alive"),
    ("heir", "successor"),
    ("insist", "retry on conflict"),
    ("lane", "connection class"),
    ("leap", "re-exec, jump"),
    ("leapt", "jumped"),
    ("leaver", "frozen connection"),
    ("ledger", "metrics aggregator, report"),
    ("legacy", "handoff state"),
    (concat!("lob", "by"), "startup responder"),
    ("luggage", "buffers"),
    ("muffler", "fault proxy"),
    ("pardon", "extend"),
    ("parcel", "batch, unit"),
    ("portrait", "connection state"),
    ("pulse", "keep-alive state"),
    ("speech", "protocol"),
    ("tally", "fleet statistics"),
    ("weather", "network fault"),
];

/// Types whose name is a common word otherwise.
const WHOLE: [(&str, &str); 1] = [("Something", "poll wake-up")];

/// What is wrong with the names of a file: those in its code, and its path. Texts and comments are not names: a serialized
/// name stays as it is.
pub(crate) fn complaints(path: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    stem.split('/').for_each(|name| judge(0, name, &mut found));
    match code.parse::<TokenStream>() {
        Ok(tokens) => walk(tokens, &mut found),
        Err(error) => found.push((0, format!("not understood: {error}"))),
    }
    found
}

fn walk(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => walk(group.stream(), found),
            TokenTree::Ident(name) => judge(name.span().start().line, &name.to_string(), found),
            TokenTree::Literal(_) | TokenTree::Punct(_) => {}
        }
    }
}

fn judge(line: usize, name: &str, found: &mut Vec<(usize, String)>) {
    let parts = parts(name);
    let part = PARTS.iter().find(|(old, _)| {
        parts
            .iter()
            .any(|part| part == old || part.strip_suffix('s') == Some(old))
    });
    if let Some((old, new)) = part.or_else(|| WHOLE.iter().find(|(old, _)| *old == name)) {
        found.push((line, format!("{name}: not {old}, but {new}")));
    }
}

/// `HTTPServer_startsLate2` has `http`, `server`, `starts`, `late2`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let letters: Vec<char> = name.chars().collect();
    let mut part = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let after = letters.get(at + 1);
        let begins = letter.is_uppercase()
            && (before.is_some_and(|c| !c.is_uppercase()) || after.is_some_and(|c| c.is_lowercase()));
        if (begins || !letter.is_alphanumeric()) && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
        if letter.is_alphanumeric() {
            part.extend(letter.to_lowercase());
        }
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts() {
        for (name, expect) in [
            ("gifts_beside", "gifts beside"),
            ("FleetTally", "fleet tally"),
            ("LEAP_MAX", "leap max"),
            ("HTTPServer_startsLate2", "http server starts late2"),
            ("__a", "a"),
            ("_", ""),
        ] {
            assert_eq!(parts(name).join(" "), expect, "{name}");
        }
    }

    #[test]
    fn old_names_are_found_in_code_and_path_only() {
        for (path, code, expect) in [
            ("src/a.rs", "struct Heir;", &[1][..]),
            ("src/a.rs", "fn f() {\n    let gifts_beside = LEAP;\n}", &[2, 2]),
            ("src/a.rs", "f!(Legacy { ghost_of: x.tally() })", &[1, 1, 1]),
            ("src/muffler.rs", "", &[0]),
            ("tests/doors/main.rs", "", &[0]),
            ("src/a.rs", "enum Something { Spurious }", &[1]),
            // Texts and comments may say it, and longer words are others.
            ("src/a.rs", "#[serde(rename = \"ledger\")] // a ghost\nstruct A;", &[]),
            (
                "src/a.rs",
                "let something = (theirs, clear, early, door, planes, Heartbeat);",
                &[],
            ),
            ("src/year.rs", "fn buryat() {}", &[]),
        ] {
            let lines: Vec<_> = complaints(path, code).into_iter().map(|(line, _)| line).collect();
            assert_eq!(lines, expect, "{path}: {code}");
        }
    }
}
