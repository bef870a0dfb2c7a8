//! The `.env` format as python-dotenv reads it, because a Python backend reads the same file: values over several lines,
//! bare names, `export`, comments, `${NAME}` and `${NAME:-default}`. A statement that is not understood costs only
//! itself. It differs from python-dotenv 1.2 in two points: nothing is replaced in single quotes, as in a shell and in
//! docker compose, and `\$` in double quotes is a `$` that begins no reference.

use std::collections::BTreeMap;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct DotEnv {
    /// Names and their values; the last assignment of a name counts.
    pub(super) values: BTreeMap<String, String>,
    /// What was not understood.
    pub(super) bad: Vec<Bad>,
    /// Pairs of a name and a name in its value that has neither a value nor a default: nothing stands there now.
    pub(super) unset: Vec<(String, String)>,
}

/// A statement that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// Line of the file in which the statement begins, from 1.
    pub(super) line: usize,
    /// The name that it seems to assign to.
    pub(super) name: Option<String>,
}

/// Reads a file. References find the variables of `env` first, then the names above.
pub(super) fn parse(text: &str, env: &BTreeMap<String, String>) -> DotEnv {
    let mut found = DotEnv::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text };
    loop {
        reader.skip(is_space);
        if reader.rest.is_empty() {
            return found;
        }
        let before = text.get(..text.len() - reader.rest.len()).unwrap_or_default();
        let line = 1 + line_ends(before);
        let mut name = None;
        match reader.statement(&mut name) {
            Some(value) => found.take(name, value, env),
            None => {
                reader.skip(|c| !is_line_end(c));
                found.bad.push(Bad { line, name });
            }
        }
    }
}

/// A value as it is written.
enum Written {
    /// A name without `=`: the file gives it no value.
    Nothing,
    /// Single quotes.
    Literal(String),
    /// Pieces of text, and whether the piece may hold references.
    Pieces(Vec<(String, bool)>),
}

impl DotEnv {
    fn take(&mut self, name: Option<String>, value: Written, env: &BTreeMap<String, String>) {
        let Some(name) = name else {
            return; // A comment.
        };
        let value = match value {
            Written::Nothing => {
                self.values.remove(&name);
                return;
            }
            Written::Literal(value) => value,
            Written::Pieces(pieces) => {
                let mut value = String::new();
                for (piece, has_references) in pieces {
                    if has_references {
                        self.expand(&mut value, &name, &piece, env);
                    } else {
                        value.push_str(&piece);
                    }
                }
                value
            }
        };
        self.values.insert(name, value);
    }

    /// Appends a text with its references replaced.
    fn expand(&mut self, out: &mut String, name: &str, text: &str, env: &BTreeMap<String, String>) {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((variable, default, behind)) = reference(after) else {
                out.push_str("${");
                rest = after;
                continue;
            };
            match (env.get(variable).or_else(|| self.values.get(variable)), default) {
                (Some(value), _) => out.push_str(value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => self.unset.push((name.to_owned(), variable.to_owned())),
            }
            rest = behind;
        }
        out.push_str(rest);
    }
}

/// What follows `${`: the name, its default, and what stands behind the brace.
fn reference(after: &str) -> Option<(&str, Option<&str>, &str)> {
    let (inner, behind) = after.split_once('}')?;
    match inner.split_once(':') {
        None => Some((inner, None, behind)),
        Some((variable, default)) => Some((variable, Some(default.strip_prefix('-')?), behind)),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Reads one statement with its end of line. On failure the reader stays where the mistake is, and `name` is set if
    /// the statement has one.
    fn statement(&mut self, name: &mut Option<String>) -> Option<Written> {
        let behind_export = self
            .rest
            .strip_prefix("export")
            .filter(|rest| rest.starts_with(is_blank));
        if let Some(rest) = behind_export {
            self.rest = rest;
            self.skip(is_blank);
        }
        if !self.rest.starts_with('#') {
            *name = Some(self.name()?);
            self.skip(is_blank);
        }
        let value = match self.rest.strip_prefix('=') {
            Some(rest) => {
                self.rest = rest;
                self.value()?
            }
            None => Written::Nothing,
        };
        self.end().then_some(value)
    }

    fn name(&mut self) -> Option<String> {
        let name = if let Some(rest) = self.rest.strip_prefix('\'') {
            let (name, rest) = rest.split_once('\'')?;
            self.rest = rest;
            name
        } else {
            self.skip(|c| !is_space(c) && !matches!(c, '=' | '#'))
        };
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn value(&mut self) -> Option<Written> {
        let gap = self.skip(is_blank);
        if let Some(rest) = self.rest.strip_prefix('\'') {
            let (inner, rest) = quoted(rest, '\'')?;
            self.rest = rest;
            return Some(Written::Literal(unescaped_single(inner)));
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            let (inner, rest) = quoted(rest, '"')?;
            self.rest = rest;
            return Some(Written::Pieces(unescaped_double(inner)));
        }
        if !gap.is_empty() && self.rest.starts_with('#') {
            return Some(Written::Pieces(Vec::new()));
        }
        let line = self.skip(|c| !is_line_end(c));
        // A blank and a `#` begin a comment, so that a password may hold a `#`.
        let comment = line.char_indices().find(|&(at, c)| {
            let before = line.get(..at).unwrap_or_default();
            c == '#' && before.ends_with(is_space)
        });
        let value = line.get(..comment.map_or(line.len(), |(at, _)| at)).unwrap_or_default();
        Some(Written::Pieces(vec![(
            value.trim_end_matches(is_space).to_owned(),
            true,
        )]))
    }

    /// A comment, and the end of the line or of the file.
    fn end(&mut self) -> bool {
        let before = self.rest;
        self.skip(is_blank);
        if self.rest.starts_with('#') {
            self.skip(|c| !is_line_end(c));
        }
        let is_end = self.rest.is_empty() || self.rest.starts_with(is_line_end);
        if !is_end {
            self.rest = before;
        }
        is_end
    }

    fn skip(&mut self, is_skipped: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_skipped(c)).unwrap_or(self.rest.len());
        let (skipped, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        skipped
    }
}

/// The text up to the quote that no backslash precedes, and what follows the quote.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, c) if c == quote => return Some((text.get(..at)?, text.get(at + quote.len_utf8()..)?)),
            (_, '\\') => chars.next().map(drop)?,
            _ => {}
        }
    }
}

fn unescaped_single(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some(next @ ('\\' | '\''))) => {
                chars.next();
                out.push(next);
            }
            _ => out.push(c),
        }
    }
    out
}

fn unescaped_double(inner: &str) -> Vec<(String, bool)> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let escaped = chars.as_str().chars().next().filter(|_| c == '\\');
        let meant = match escaped {
            Some(next @ ('\\' | '\'' | '"')) => next,
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some('$') => {
                pieces.extend([(std::mem::take(&mut piece), true), ("$".to_owned(), false)]);
                chars.next();
                continue;
            }
            _ => {
                piece.push(c);
                continue;
            }
        };
        chars.next();
        piece.push(meant);
    }
    pieces.push((piece, true));
    pieces
}

/// Line ends as python-dotenv counts them: LF, CR, and both together.
fn line_ends(text: &str) -> usize {
    text.matches('\n').count() + text.matches('\r').count() - text.matches("\r\n").count()
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

/// What Python's `\s` matches.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_blank(c: char) -> bool {
    is_space(c) && !is_line_end(c)
}

#[cfg(test)]
mod tests;
