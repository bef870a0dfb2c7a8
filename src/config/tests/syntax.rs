//! Files of every kind, against Python's `tomllib` (3.11, TOML 1.0): `syntax.json` holds texts, and whether it reads them.

use super::*;

/// Refused by `tomllib`, read here: TOML 1.1 has inline tables over several lines and with a comma at the end.
const OF_TOML_1_1: [&str; 2] = [
    "[engine]\ncookie = { name = \"x\" , }",
    "[engine]\ncookie = {\n name = \"x\" }",
];

#[test]
fn as_python_reads_it() {
    let cases: Vec<(String, bool)> = serde_json::from_str(include_str!("syntax.json")).unwrap();
    assert!(cases.len() > 100, "{}", cases.len());
    let mut wrong = Vec::new();
    for (text, reads) in cases {
        let faults: Vec<String> = from_file(&text).map_or_else(|faults| faults.lines().collect(), |_| Vec::new());
        let syntax = faults
            .iter()
            .filter(|fault| fault.starts_with("supervisor.toml:"))
            .count();
        let expect = usize::from(!reads && !OF_TOML_1_1.contains(&text.as_str()));
        if syntax != expect {
            wrong.push(format!("{text:?}: {faults:?}, tomllib reads it: {reads}"));
        }
        for fault in faults {
            let (key, rest) = fault.split_once(": ").unwrap_or_else(|| panic!("{text:?}: {fault}"));
            assert!(
                !key.is_empty() && rest.contains("; "),
                "no remedy for {text:?}: {fault}"
            );
            assert!(!fault.contains('\n'), "{text:?}: {fault}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Texts, and how their only fault begins: the key, the value, and what to write.
const WRONG: &[(&str, &str)] = &[
    (
        "workers.count = 3.0",
        "workers.count: 3.0 has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = inf",
        "workers.count: inf has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = true",
        "workers.count: true has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = [3]",
        "workers.count: a value of type array has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = { a = 3 }",
        "workers.count: a value of type table has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = 1979-05-27",
        "workers.count: 1979-05-27 has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = 07:32:00",
        "workers.count: 07:32:00 has the wrong type; use 1 to 1024",
    ),
    (
        "workers.count = 9223372036854775808",
        "workers.count: 9223372036854775808 is not allowed; use 1 to 1024",
    ),
    (
        "workers.count = -9223372036854775808",
        "workers.count: -9223372036854775808 is not allowed; use 1 to 1024",
    ),
    (
        "recovery.enabled = 'true'",
        "recovery.enabled: \"true\" has the wrong type; use true or false",
    ),
    (
        "recovery.enabled = 1",
        "recovery.enabled: 1 has the wrong type; use true or false",
    ),
    (
        "logging.level = 'INFO'",
        "logging.level: \"INFO\" is not allowed; use \"error\" or \"warn\"",
    ),
    (
        "logging.level = 3",
        "logging.level: 3 has the wrong type; use \"error\" or \"warn\"",
    ),
    (
        "http.origins = ['http://a', 1]",
        "http.origins: a value of type array has the wrong type; use a text or a list",
    ),
    (
        "http.origins = [['http://a']]",
        "http.origins: a value of type array has the wrong type; use a text or a list",
    ),
    (
        "http.origins = 5",
        "http.origins: 5 has the wrong type; use a text or a list of texts",
    ),
    (
        "engine.path = false",
        "engine.path: false has the wrong type; use a text",
    ),
    (
        "redis.url = ['redis://:secret@h']",
        "redis.url: the value has the wrong type; use a text",
    ),
    (
        "emit.secret = 1234567890123456",
        "emit.secret: the value has the wrong type; use a text",
    ),
    (
        "WORKERS.COUNT = 3",
        "WORKERS.COUNT: unknown key; did you mean workers.count?",
    ),
    (
        "workers.COUNT = 3",
        "workers.COUNT: unknown key; did you mean workers.count?",
    ),
    (
        "[Workers]\ncount = 3",
        "Workers.count: unknown key; did you mean workers.count?",
    ),
    (
        "[[workers]]\ncount = 3",
        "workers: is a section, not a key; write [workers] and its keys below",
    ),
    (
        "[workers.count]\n",
        "workers.count: a value of type table has the wrong type; use 1 to 1024",
    ),
];

#[test]
fn values_of_the_wrong_kind() {
    for (text, fault) in WRONG {
        check_faults(from_file(text), &[fault]);
    }
}
