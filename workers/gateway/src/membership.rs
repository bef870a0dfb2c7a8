//! Changes of a session's memberships: made in its record, and listed for what shows them (the hub, the notes). The same for both
//! transports.

use session::{Joined, Offset, Record};

/// A change that was made in a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The client has joined a namespace.
    Connected { nsp: String },
    /// It has left one, or was made to.
    Disconnected { nsp: String },
    /// Its socket has joined a room.
    Joined { nsp: String, room: String },
    /// It has left one.
    Left { nsp: String, room: String },
}

/// Makes the session a member of a namespace.
pub(crate) fn enter(record: &mut Record, nsp: &str, joined: Joined) {
    record.settled = true;
    record.join(nsp, joined);
}

/// Lets a socket in that waited for the application; nothing if it did not. Its client is told afterwards: one that resumes
/// before this is stored is let in by what it was told (`resume::find`).
pub(crate) fn admit<'a>(record: &'a mut Record, nsp: &str) -> Option<&'a Joined> {
    let joined = record.namespaces.get_mut(nsp).filter(|joined| joined.pending)?;
    joined.pending = false;
    record.settled = true;
    Some(joined)
}

/// Has a socket join a room; nothing if it is in it.
///
/// # Errors
/// It is in as many rooms as it may be.
pub(crate) fn join(
    record: &mut Record,
    nsp: &str,
    room: &str,
    since: Offset,
    rooms_max: usize,
) -> Result<Option<Change>, String> {
    let Some(joined) = record.namespaces.get_mut(nsp) else {
        return Ok(None);
    };
    if joined.rooms.contains(room) {
        return Ok(None);
    }
    if joined.rooms.len() >= rooms_max {
        return Err(format!("a socket may be in {rooms_max} rooms at most"));
    }
    joined.rooms.insert(room, since);
    Ok(Some(Change::Joined {
        nsp: nsp.to_owned(),
        room: room.to_owned(),
    }))
}

/// Has a socket leave a room; nothing if it is not in it.
pub(crate) fn leave(record: &mut Record, nsp: &str, room: &str) -> Option<Change> {
    record.namespaces.get_mut(nsp)?.rooms.remove(room)?;
    Some(Change::Left {
        nsp: nsp.to_owned(),
        room: room.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use session::{Names, Sid, Transport};

    fn record() -> Record {
        let mut record = Record::new(
            Sid::from_random([1; 15]),
            Transport::Polling,
            String::new(),
            String::new(),
            0,
        );
        let joined = Joined {
            sid: Sid::from_random([2; 15]),
            who: None,
            pid: None,
            pending: false,
            since: Offset::ZERO,
            rooms: Names::default(),
            data: None,
        };
        enter(&mut record, "/", joined);
        record
    }

    #[test]
    fn only_what_changes_is_listed() {
        let mut record = record();
        assert!(record.settled);
        let (nsp, room) = ("/".to_owned(), "a".to_owned());
        let at = Offset::new(1, 7);
        let joined = Change::Joined {
            nsp: nsp.clone(),
            room: room.clone(),
        };
        assert_eq!(join(&mut record, "/", "a", at, 2), Ok(Some(joined)));
        assert_eq!(join(&mut record, "/", "a", Offset::new(1, 8), 2), Ok(None));
        let stored = record.namespaces.get("/").and_then(|joined| joined.rooms.get("a"));
        assert_eq!(stored, Some(&at), "the first time counts");
        assert_eq!(join(&mut record, "/other", "a", at, 2), Ok(None), "no such namespace");
        assert_eq!(leave(&mut record, "/", "a"), Some(Change::Left { nsp, room }));
        assert_eq!(leave(&mut record, "/", "a"), None);
        assert_eq!(leave(&mut record, "/other", "a"), None);
    }

    #[test]
    fn rooms_have_a_limit_which_those_of_old_pass() {
        let mut record = record();
        let at = Offset::ZERO;
        for room in ["a", "b"] {
            assert!(join(&mut record, "/", room, at, 2).is_ok_and(|change| change.is_some()));
        }
        let refused = join(&mut record, "/", "c", at, 2);
        assert_eq!(refused, Err("a socket may be in 2 rooms at most".to_owned()));
        assert_eq!(join(&mut record, "/", "a", at, 2), Ok(None));
        leave(&mut record, "/", "a");
        assert!(join(&mut record, "/", "c", at, 2).is_ok_and(|change| change.is_some()));
    }
}
