//! What one session gets of the log: it is in some namespaces, and rooms of these.

use std::collections::{BTreeMap, BTreeSet};
use store::trace::Note;
use store::{Entry, EntryKind, Record};

/// A session, and what it is a member of.
#[derive(Debug)]
pub(super) struct Audience {
    sid: String,
    /// Rooms, the own Socket.IO id among them, by namespace.
    namespaces: BTreeMap<String, BTreeSet<String>>,
}

impl Audience {
    pub(super) fn new(record: &Record) -> Self {
        let namespaces = record.namespaces.iter().map(|(nsp, joined)| {
            let own = joined.sid.as_str().to_owned();
            let rooms = joined.rooms.names().map(str::to_owned).chain([own]);
            (nsp.to_owned(), rooms.collect())
        });
        Self {
            sid: record.sid.as_str().to_owned(),
            namespaces: namespaces.collect(),
        }
    }

    /// Whether the session gets an entry.
    pub(super) fn gets(&self, entry: &Entry) -> bool {
        if entry.kind == EntryKind::Takeover {
            return entry.text.starts_with(self.sid.as_bytes());
        }
        let target = &entry.target;
        self.namespaces.get(&target.nsp).is_some_and(|rooms| {
            let is_in = |room: &String| rooms.contains(room);
            (target.rooms.is_empty() || target.rooms.iter().any(is_in)) && !target.except.iter().any(is_in)
        })
    }

    /// Whether a note is about the session; what it says about memberships is remembered.
    pub(super) fn hear(&mut self, note: &Note<'_>) -> bool {
        if note.sid != self.sid {
            return false;
        }
        let field = |name| note.field(name).unwrap_or_default().to_owned();
        let (nsp, room) = (field("namespace"), field("room"));
        match note.what {
            "connected" => {
                self.namespaces.insert(nsp, BTreeSet::from([field("socket")]));
            }
            "disconnected" => {
                self.namespaces.remove(&nsp);
            }
            "joined" => {
                self.namespaces.entry(nsp).or_default().insert(room);
            }
            "left" => {
                self.namespaces.entry(nsp).or_default().remove(&room);
            }
            // It lives on under another id.
            "goes_on_as" => self.sid = field("session"),
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::trace::read;
    use store::{Sid, Transport};

    fn entry(rooms: &[&str], except: &[&str]) -> Entry {
        let owned = |list: &[&str]| list.iter().map(|room| (*room).to_owned()).collect();
        let mut entry = Entry {
            kind: EntryKind::Emit,
            target: Default::default(),
            text: Default::default(),
            attachments: Vec::new(),
        };
        entry.target.nsp = "/".to_owned();
        entry.target.rooms = owned(rooms);
        entry.target.except = owned(except);
        entry
    }

    #[test]
    fn a_session_gets_what_its_rooms_get() {
        let sid = Sid::from_random([1; 15]);
        let record = Record::new(sid.clone(), Transport::Polling, String::new(), String::new(), 0);
        let mut audience = Audience::new(&record);
        assert!(!audience.gets(&entry(&[], &[])));
        let mut hear = |what: &str| {
            let line = format!("1\t{sid}\t{what}");
            audience.hear(&read(&line).unwrap());
            (
                audience.gets(&entry(&[], &[])),
                audience.gets(&entry(&["news"], &[])),
                audience.gets(&entry(&["news"], &["s"])),
            )
        };
        assert_eq!(hear("connected\tnamespace=/\tsocket=s"), (true, false, false));
        assert_eq!(hear("joined\tnamespace=/\troom=news"), (true, true, false));
        assert_eq!(hear("left\tnamespace=/\troom=news"), (true, false, false));
        assert_eq!(hear("disconnected\tnamespace=/"), (false, false, false));
    }
}
