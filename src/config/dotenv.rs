//! The `.env` format, as the usual libraries read it: `NAME=value` lines, `export` allowed, single
//! quotes literal, double quotes with escapes. A `#` begins a comment only at the start of a line
//! or after a blank, so that a password may contain one.

use std::collections::BTreeMap;

/// The names and values of the text, and the number of each line that is not understood.
pub(super) fn parse(text: &str) -> (BTreeMap<String, String>, Vec<usize>) {
    let mut values = BTreeMap::new();
    let mut bad = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match assignment(line) {
            Some((name, value)) => {
                values.insert(name, value);
            }
            None => bad.push(nth + 1),
        }
    }
    (values, bad)
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some('\'') => {
            let (inner, rest) = value.strip_prefix('\'')?.split_once('\'')?;
            comment_or_nothing(rest)?;
            inner.to_owned()
        }
        Some('"') => {
            let (inner, rest) = double_quoted(value.strip_prefix('"')?)?;
            comment_or_nothing(&rest)?;
            inner
        }
        _ => {
            let comment = value.char_indices().zip(value.chars().skip(1)).find(|((_, c), next)| {
                // The blank before a comment.
                c.is_whitespace() && *next == '#'
            });
            let end = if value.starts_with('#') {
                0
            } else {
                comment.map_or(value.len(), |((at, _), _)| at)
            };
            value.get(..end)?.trim_end().to_owned()
        }
    };
    Some((name.to_owned(), value))
}

/// The text up to the closing quote, with its escapes resolved, and what follows.
fn double_quoted(text: &str) -> Option<(String, String)> {
    let mut inner = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((inner, chars.collect())),
            '\\' => match chars.next()? {
                'n' => inner.push('\n'),
                't' => inner.push('\t'),
                c @ ('"' | '\\' | '$' | '\'') => inner.push(c),
                c => inner.extend(['\\', c]),
            },
            c => inner.push(c),
        }
    }
}

fn comment_or_nothing(rest: &str) -> Option<()> {
    let rest = rest.trim();
    (rest.is_empty() || rest.starts_with('#')).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, expect) in [
            ("REDIS_DB=0", Some(("REDIS_DB", "0"))),
            ("  export  A = b  ", Some(("A", "b"))),
            ("export A=b", Some(("A", "b"))),
            ("A = b c ", Some(("A", "b c"))),
            ("A=b # comment", Some(("A", "b"))),
            ("A=b#c", Some(("A", "b#c"))),
            ("A=# nothing", Some(("A", ""))),
            ("A=", Some(("A", ""))),
            ("A='it # is' # c", Some(("A", "it # is"))),
            (r#"A="say \"hi\"\n""#, Some(("A", "say \"hi\"\n"))),
            (r#"A="open"#, None),
            ("A='b' c", None),
            ("no assignment", None),
            ("=b", None),
            (
                "REDIS_URL=redis://:YourVeryStrong!Redis@Password#2024@localhost:6379",
                Some((
                    "REDIS_URL",
                    "redis://:YourVeryStrong!Redis@Password#2024@localhost:6379",
                )),
            ),
        ] {
            let (values, bad) = parse(line);
            let found = values
                .first_key_value()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            assert_eq!(found, expect, "{line}");
            assert_eq!(bad, if expect.is_none() { vec![1] } else { vec![] }, "{line}");
        }
        let (values, bad) = parse("# c\n\nA=1\nA=2\n???\n");
        assert_eq!((values.get("A").map(String::as_str), bad), (Some("2"), vec![5]));
    }
}
