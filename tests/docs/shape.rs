//! Whether an output is of the shape that a document shows: the same words, whatever the numbers, times and ids.

use serde_json::Value;

/// Lines of `shown` that have no like in `actual`, each with one of its own. Their order does not count, as that of workers
/// that act at the same time does not; a shown line `…` says that lines are left out.
pub(crate) fn unlike(shown: &[String], actual: &str) -> Vec<String> {
    if let (Ok(shown), Ok(actual)) = (serde_json::from_str(&shown.join("\n")), serde_json::from_str(actual)) {
        let mut faults = Vec::new();
        compare("", &shown, &actual, &mut faults);
        return faults;
    }
    let mut lines: Vec<String> = actual.lines().map(of).collect();
    let shown = shown.iter().filter(|line| !matches!(line.trim(), "" | "…"));
    let missing = shown.filter(|line| {
        let wanted = of(line);
        let found = lines.iter().position(|line| *line == wanted);
        found.map(|at| lines.swap_remove(at)).is_none()
    });
    missing.cloned().collect()
}

/// The words of a line that are always there.
fn of(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(word).collect();
    words.join(" ")
}

/// A word with a digit, or that is an id or a path, is any such word; of `key=value` the key counts.
fn word(word: &str) -> String {
    if let Some((key, value)) = word.split_once('=')
        && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    {
        return format!("{key}={}", self::word(value));
    }
    let id = word.len() == 20
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let shortened = word.contains('…');
    let path = word.matches('/').count() > 1;
    if id || path || shortened || word.chars().any(|c| c.is_ascii_digit()) {
        return "#".to_owned();
    }
    word.to_owned()
}

/// Keys and kinds of values.
fn compare(at: &str, shown: &Value, actual: &Value, faults: &mut Vec<String>) {
    match (shown, actual) {
        (Value::Object(shown), Value::Object(actual)) => {
            for (key, value) in shown {
                let at = format!("{at}.{key}");
                match actual.get(key) {
                    Some(actual) => compare(&at, value, actual, faults),
                    None => faults.push(format!("{at} is not there")),
                }
            }
            let unknown = actual.keys().filter(|key| !shown.contains_key(*key));
            faults.extend(unknown.map(|key| format!("{at}.{key} is not shown")));
        }
        (Value::Array(shown), Value::Array(actual)) => match (shown.first(), actual.first()) {
            (Some(shown), Some(actual)) => compare(&format!("{at}[]"), shown, actual, faults),
            (Some(_), None) => faults.push(format!("{at} is empty")),
            (None, _) => {}
        },
        _ if std::mem::discriminant(shown) == std::mem::discriminant(actual) => {}
        _ => faults.push(format!("{at} is {actual}")),
    }
}

#[test]
fn numbers_and_ids_do_not_count() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let table = "slot pid state\n  0  17 ready\n …\n all";
    assert!(unlike(&shown(table), "slot   pid  state\n1  345 ready\n2 9 x\n all").is_empty());
    assert_eq!(
        unlike(&shown(table), "slot pid state\n0 1 gone\nall"),
        ["  0  17 ready"]
    );
    assert_eq!(unlike(&shown("a\nb\na"), "a\nb"), ["a"]);
    assert!(
        unlike(
            &shown("opened x=y worker=ab-1.2 MLnxZ7LF…"),
            "opened x=y worker=cd-3.4 zzzzzzzz…"
        )
        .is_empty()
    );
    assert!(!unlike(&shown("opened x=y"), "opened x=z").is_empty());
    assert!(unlike(&shown(r#"{"a":1,"b":[{"c":""}]}"#), r#"{"b":[{"c":"x"}],"a":2}"#).is_empty());
    let faults = unlike(&shown(r#"{"a":1}"#), r#"{"a":"1","b":2}"#);
    assert_eq!(faults, [".a is \"1\"", ".b is not shown"]);
}
