//! Ids under which an entry of the log counts once.

use std::fmt::Write as _;

/// The id of an entry: a second one with the same id within the window is not appended.
///
/// It is made of several names, joined by `|`; a `|` or `\` in one of them gets a `\` before it, so no two lists of names make
/// one id. Builds before this joined names as they are: what they write, and look for, is [`Self::former`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    id: String,
    former: Option<String>,
}

impl Dedupe {
    /// Of an event: the sender's own id counts within the namespace and the rooms that are meant.
    #[must_use]
    pub fn event(nsp: &str, rooms: &[String], id: &str) -> Self {
        let mut names = vec![nsp];
        // No room is written as one without a name; a room without a name is written in another way.
        names.extend(rooms.iter().map(String::as_str));
        if rooms.is_empty() {
            names.push("");
        }
        names.push(id);
        let mut joined = Self::join(&names, "|");
        if rooms.iter().any(String::is_empty) {
            // An escape that nothing else leads to.
            joined.former = Some(joined.former.unwrap_or_else(|| joined.id.clone()));
            joined.id.push_str("\\e");
        }
        joined
    }

    /// Of an item of a stream, which is known by the stream's name and its own id there.
    #[must_use]
    pub fn item(stream: &str, id: &str) -> Self {
        Self::join(&[stream, id], " ")
    }

    fn join(names: &[&str], separator: &str) -> Self {
        let former = names.join(separator);
        if !former.contains('\\') && names.iter().all(|name| !name.contains('|')) {
            return Self {
                id: former,
                former: None,
            };
        }
        let mut id = String::with_capacity(former.len() + 8);
        for (nth, name) in names.iter().enumerate() {
            if nth > 0 {
                id.push_str(separator);
            }
            for c in name.chars() {
                if matches!(c, '|' | '\\') {
                    id.push('\\');
                }
                // A string takes everything.
                id.write_char(c).ok();
            }
        }
        Self {
            id,
            former: Some(former),
        }
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What builds before this know it by, if that is something else. Several ids may share it.
    #[must_use]
    pub fn former(&self) -> Option<&str> {
        self.former.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn event(nsp: &str, rooms: &[&str], id: &str) -> Dedupe {
        let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
        Dedupe::event(nsp, &rooms, id)
    }

    #[test]
    fn plain_names_make_the_id_that_former_builds_know() {
        for (dedupe, id) in [
            (event("/", &["a"], "c"), "/|a|c"),
            (event("/chat", &["a", "b"], "job 1"), "/chat|a|b|job 1"),
            (event("/", &[], "c"), "/||c"),
            (Dedupe::item("socketio:ingest", "5-0"), "socketio:ingest 5-0"),
        ] {
            assert_eq!((dedupe.id(), dedupe.former()), (id, None));
        }
        let escaped = event("/", &["a|b"], "c");
        assert_eq!((escaped.id(), escaped.former()), (r"/|a\|b|c", Some("/|a|b|c")));
        let backslash = event("/", &[r"a\"], "c");
        assert_eq!((backslash.id(), backslash.former()), (r"/|a\\|c", Some(r"/|a\|c")));
    }

    #[test]
    fn no_two_lists_of_names_make_one_id() {
        // All names of up to two of these characters, in all places.
        let signs = ["|", r"\", "e", " "];
        let mut names = vec![String::new()];
        names.extend(signs.iter().map(|sign| (*sign).to_owned()));
        names.extend(signs.iter().flat_map(|a| signs.map(|b| [a, b].concat())));
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut check = |dedupe: Dedupe, what: String| {
            if let Some(before) = known.insert(dedupe.id().to_owned(), what.clone()) {
                panic!("{:?} is {before} and {what}", dedupe.id());
            }
        };
        for id in names.iter().filter(|id| !id.is_empty()) {
            check(event("/", &[], id), format!("no room, {id:?}"));
            for a in &names {
                check(event("/", &[a], id), format!("{a:?}, {id:?}"));
                for b in &names {
                    check(event("/", &[a, b], id), format!("{a:?} {b:?}, {id:?}"));
                }
            }
            check(Dedupe::item(id, "5-0"), format!("stream {id:?}"));
            check(Dedupe::item("/||", id), format!("stream /||, {id:?}"));
        }
    }
}
