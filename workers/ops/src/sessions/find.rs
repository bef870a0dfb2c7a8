//! Which session is meant.

use super::shown;
use std::collections::HashSet;
use std::str::FromStr;
use store::{Inspector, Record, Sid, StoreError};

/// Fewer characters name too many.
const CHARS_MIN: usize = 4;
/// Candidates that are named when an id is not unique.
const NAMED_MAX: usize = 5;

/// An id as an operator writes it: whole, or its beginning, with or without the dots that mark it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches(['\u{2026}', '.']);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !text.bytes().all(allowed) || text.len() > Sid::CHARS {
            return Err("not the id of a session".to_owned());
        }
        if text.len() < CHARS_MIN {
            return Err(format!("at least {CHARS_MIN} characters of the id"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Id {
    /// Whether an id is meant.
    pub(crate) fn is(&self, sid: &str) -> bool {
        sid.starts_with(&self.0)
    }

    /// If it is whole.
    pub(crate) fn whole(&self) -> Option<Sid> {
        Sid::parse(&self.0).ok()
    }

    fn is_of(&self, record: &Record) -> bool {
        self.is(record.sid.as_str()) || record.namespaces.values().any(|joined| self.is(joined.sid.as_str()))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.0.len() < Sid::CHARS { "\u{2026}" } else { "" };
        write!(f, "{}{end}", self.0)
    }
}

/// What a look for an id has found.
pub(crate) enum Lookup {
    /// Just one.
    Found(Sid),
    /// Nothing, or several; for the operator.
    Not(String),
}

/// The living session that is meant. A whole id costs one command, anything else a look at all of them.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn find(inspector: &Inspector, id: &Id) -> Result<Lookup, StoreError> {
    if let Some(sid) = id.whole()
        && inspector.detail(&sid).await?.is_some()
    {
        return Ok(Lookup::Found(sid));
    }
    let mut found = Vec::new();
    each(inspector, |record| {
        if id.is_of(&record) {
            found.push(record.sid);
        }
    })
    .await?;
    Ok(match found.as_slice() {
        [] => Lookup::Not(format!("{id}: no such session")),
        [only] => Lookup::Found(only.clone()),
        several => {
            let named: Vec<String> = several.iter().take(NAMED_MAX).map(|sid| shown(sid, false)).collect();
            let more = if several.len() > NAMED_MAX { " \u{2026}" } else { "" };
            Lookup::Not(format!(
                "{id}: {} sessions begin so: {}{more}",
                several.len(),
                named.join(" ")
            ))
        }
    })
}

/// Looks at the record of every living session, once.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn each(inspector: &Inspector, mut look: impl FnMut(Record)) -> Result<(), StoreError> {
    // A scan may show one twice.
    let mut seen = HashSet::new();
    let mut cursor = 0;
    loop {
        let (next, records) = inspector.sessions(cursor).await?;
        for record in records {
            if seen.insert(record.sid.clone()) {
                look(record);
            }
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_its_beginning() {
        let sid = Sid::from_random([3; 15]);
        let beginning = &sid.as_str()[..8];
        for text in [
            beginning.to_owned(),
            format!("{beginning}\u{2026}"),
            format!("{beginning}..."),
            sid.to_string(),
        ] {
            assert!(text.parse::<Id>().unwrap().is(sid.as_str()), "{text}");
        }
        assert_eq!(sid.as_str().parse::<Id>().unwrap().whole(), Some(sid));
        for bad in ["", "abc", "abc*", "abcdefghijklmnopqrstu"] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }
}
