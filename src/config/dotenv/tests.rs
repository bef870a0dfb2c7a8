//! Against python-dotenv: `reference.json` holds files with what `dotenv_values` of python-dotenv 1.2.4 made of them
//! (with `HOME_OF_TEST=env` in the environment) and the lines of the statements that it could not parse.

use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    values: BTreeMap<String, String>,
    bad: Vec<usize>,
}

fn env() -> BTreeMap<String, String> {
    BTreeMap::from([("HOME_OF_TEST".to_owned(), "env".to_owned())])
}

/// Where a value differs, and how it reads here.
const DIFFERENT: &[(&str, &[(&str, &str)])] = &[
    // Single quotes are literal, as in a shell and in docker compose.
    ("B=1\nA='${B}'", &[("A", "${B}")]),
    ("A='${B:-d}'", &[("A", "${B:-d}")]),
    // A way to write `${` in double quotes.
    ("B=1\nA=\"\\${B}\"", &[("A", "${B}")]),
    // A bare name gives no value, so the default counts.
    ("B\nA=${B:-d}", &[("A", "d")]),
];

#[test]
fn as_python_reads_it() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("reference.json")).unwrap();
    assert!(cases.len() > 400, "{}", cases.len());
    let mut wrong = Vec::new();
    for Case { text, mut values, bad } in cases {
        let found = parse(&text, &env());
        let different = DIFFERENT.iter().find(|(differing, _)| *differing == text);
        for &(name, value) in different.map_or(&[][..], |(_, values)| values) {
            let reference = values.insert(name.to_owned(), value.to_owned());
            assert_ne!(reference.as_deref(), Some(value), "{text:?} does not differ");
        }
        let lines: Vec<usize> = found.bad.iter().map(|bad| bad.line).collect();
        if (&found.values, &lines) != (&values, &bad) {
            wrong.push(format!(
                "{text:?}: {:?} {lines:?} instead of {values:?} {bad:?}",
                found.values
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
