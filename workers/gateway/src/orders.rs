//! Orders in the log: sockets are told from outside to join or leave rooms, or to go.

use crate::membership::{self, Change};
use crate::packet::Packet;
use crate::ring::Logged;
use bytes::Bytes;
use session::{EntryKind, Names, Offset, Record};
use std::rc::Rc;
use tracing::debug;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Order {
    Join(Vec<String>),
    Leave(Vec<String>),
    /// The application lets it in.
    Admit,
    /// It does not, and this is the CONNECT_ERROR.
    Refuse(Bytes),
    Disconnect {
        /// The connection is closed too.
        close: bool,
    },
}

impl Order {
    /// The order in an entry, if it is one.
    pub(crate) fn of(logged: &Logged) -> Option<Self> {
        let text = &logged.entry.text;
        let rooms = || serde_json::from_slice(text).ok();
        match logged.entry.kind {
            EntryKind::Join => rooms().map(Self::Join),
            EntryKind::Leave => rooms().map(Self::Leave),
            EntryKind::Disconnect => Some(Self::Disconnect {
                close: &text[..] == b"true",
            }),
            EntryKind::Admit => Some(Self::Admit),
            EntryKind::Refuse => Some(Self::Refuse(text.clone())),
            EntryKind::Ack | EntryKind::Emit | EntryKind::Takeover | EntryKind::Volatile => None,
        }
    }
}

/// What came of an order.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) changes: Vec<Change>,
    /// Rooms that were not joined: their number is limited.
    pub(crate) refused: u64,
    /// For the client.
    pub(crate) packet: Option<Packet>,
    /// The connection is closed too.
    pub(crate) closes: bool,
}

/// Carries an order out on a record.
pub(crate) fn apply(record: &mut Record, logged: &Logged, order: &Order, rooms_max: usize) -> Applied {
    let nsp = logged.entry.target.nsp.as_str();
    let mut applied = Applied::default();
    let joined = record.namespaces.get(nsp);
    if !joined.is_some_and(|joined| logged.concerns(nsp, joined)) {
        return applied;
    }
    match order {
        Order::Join(rooms) => {
            for room in rooms {
                match membership::join(record, nsp, room, logged.offset, rooms_max) {
                    Ok(change) => applied.changes.extend(change),
                    Err(why) => {
                        applied.refused += 1;
                        debug!(room, why, "room not joined");
                    }
                }
            }
        }
        Order::Leave(rooms) => {
            let left = rooms.iter().filter_map(|room| membership::leave(record, nsp, room));
            applied.changes.extend(left);
        }
        Order::Admit => {
            if let Some(admitted) = membership::admit(record, nsp) {
                applied.packet = Some(Packet::connect(nsp, admitted));
                applied.changes.push(Change::Connected { nsp: nsp.to_owned() });
            }
        }
        Order::Refuse(error) => {
            record.namespaces.remove(nsp);
            applied.changes.push(Change::Disconnected { nsp: nsp.to_owned() });
            applied.packet = Some(Packet::refusal(nsp, error));
        }
        Order::Disconnect { close } => {
            record.namespaces.remove(nsp);
            applied.changes.push(Change::Disconnected { nsp: nsp.to_owned() });
            applied.packet = Some(Packet::disconnect(nsp));
            applied.closes = *close;
        }
    }
    applied
}

/// The same on the record of a polling session, which hears of its end by its next poll; nothing if the entry is no order.
pub(crate) fn apply_polling(record: &mut Record, logged: &Logged, rooms_max: usize) -> Applied {
    let applied = Order::of(logged).map(|order| apply(record, logged, &order, rooms_max));
    let applied = applied.unwrap_or_default();
    if applied.closes {
        record.closing = true;
        record.namespaces = Names::default();
    }
    applied
}

/// Whether an entry is an order for one of the session's sockets.
pub(crate) fn concerns(record: &Record, logged: &Logged) -> bool {
    let nsp = logged.entry.target.nsp.as_str();
    let is_order = matches!(
        logged.entry.kind,
        EntryKind::Admit | EntryKind::Disconnect | EntryKind::Join | EntryKind::Leave | EntryKind::Refuse
    );
    is_order
        && record
            .namespaces
            .get(nsp)
            .is_some_and(|joined| logged.concerns(nsp, joined))
}

/// Orders among entries, up to a position.
pub(crate) fn among<'a>(entries: impl Iterator<Item = &'a Rc<Logged>>, upto: Offset) -> Vec<Rc<Logged>> {
    entries
        .take_while(|logged| logged.offset <= upto)
        .filter(|logged| Order::of(logged).is_some())
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::enter;
    use session::{Entry, Joined, Sid, Target, Transport};

    const ROOMS_MAX: usize = 3;

    fn at(seq: u64) -> Offset {
        Offset::new(1, seq)
    }

    /// A session in `/` and `/b`, in room `a` of each since entry 2.
    fn record() -> Record {
        let mut record = Record::new(
            Sid::from_random([1; 15]),
            Transport::Polling,
            String::new(),
            String::new(),
            0,
        );
        for (nsp, byte) in [("/", 2), ("/b", 3)] {
            let joined = Joined {
                sid: Sid::from_random([byte; 15]),
                who: None,
                pid: None,
                pending: false,
                since: at(1),
                rooms: Names::from([("a", at(2))]),
                data: None,
            };
            enter(&mut record, nsp, joined);
        }
        record
    }

    fn order(seq: u64, kind: EntryKind, nsp: &str, rooms: &[&str], text: &'static str) -> Rc<Logged> {
        let target = Target {
            nsp: nsp.to_owned(),
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
            except: Vec::new(),
        };
        let entry = Entry {
            kind,
            target,
            text: text.into(),
            attachments: Vec::new(),
        };
        Logged::new(at(seq), entry)
    }

    fn apply_to(record: &mut Record, logged: &Logged) -> Applied {
        let order = Order::of(logged).expect("an order");
        apply(record, logged, &order, ROOMS_MAX)
    }

    fn rooms(record: &Record, nsp: &str) -> Vec<String> {
        let joined = record.namespaces.get(nsp).expect("joined");
        joined.rooms.names().map(str::to_owned).collect()
    }

    #[test]
    fn rooms_are_joined_and_left_by_those_that_are_meant() {
        for (kind, nsp, target, text, changes, expect) in [
            (EntryKind::Join, "/", &["a"][..], r#"["x","y"]"#, 2, vec!["a", "x", "y"]),
            (EntryKind::Join, "/", &[], r#"["a","x"]"#, 1, vec!["a", "x"]),
            (EntryKind::Join, "/", &["other"], r#"["x"]"#, 0, vec!["a"]),
            (EntryKind::Join, "/b", &["a"], r#"["x"]"#, 1, vec!["a"]),
            (EntryKind::Join, "/c", &[], r#"["x"]"#, 0, vec!["a"]),
            (EntryKind::Leave, "/", &["a"], r#"["a","x"]"#, 1, vec![]),
            (EntryKind::Leave, "/", &["other"], r#"["a"]"#, 0, vec!["a"]),
        ] {
            let mut record = record();
            let applied = apply_to(&mut record, &order(5, kind, nsp, target, text));
            assert_eq!(applied.changes.len(), changes, "{kind:?} {nsp} {target:?} {text}");
            assert_eq!(rooms(&record, "/"), expect, "{kind:?} {nsp} {target:?} {text}");
            assert!(applied.packet.is_none() && !applied.closes && applied.refused == 0);
        }
    }

    #[test]
    fn an_order_before_the_membership_is_not_for_it() {
        let mut record = record();
        let early = order(1, EntryKind::Leave, "/", &[], r#"["a"]"#);
        assert!(apply_to(&mut record, &early).changes.is_empty());
        // In the room since entry 2.
        let early = order(2, EntryKind::Leave, "/", &["a"], r#"["a"]"#);
        assert!(apply_to(&mut record, &early).changes.is_empty());
        assert_eq!(rooms(&record, "/"), ["a"]);
    }

    #[test]
    fn rooms_beyond_the_limit_are_refused_and_counted() {
        let mut record = record();
        let many = order(5, EntryKind::Join, "/", &[], r#"["w","x","y","z"]"#);
        let applied = apply_to(&mut record, &many);
        assert_eq!((applied.changes.len(), applied.refused), (2, 2));
        assert_eq!(rooms(&record, "/"), ["a", "w", "x"]);
    }

    #[test]
    fn a_disconnect_takes_the_namespace_and_says_so_to_the_client() {
        for (text, closes) in [("false", false), ("true", true)] {
            let disconnect = order(5, EntryKind::Disconnect, "/", &["a"], text);
            let mut socket = record();
            let applied = apply_to(&mut socket, &disconnect);
            let gone = Change::Disconnected { nsp: "/".to_owned() };
            assert_eq!((applied.changes, applied.closes), (vec![gone], closes));
            assert_eq!(applied.packet.expect("a packet").text.as_str(), "41");
            assert!(socket.namespaces.get("/").is_none() && socket.namespaces.get("/b").is_some());
            assert!(!socket.closing, "a connection ends by itself");

            let mut polling = record();
            let applied = apply_polling(&mut polling, &disconnect, ROOMS_MAX);
            assert_eq!(applied.packet.expect("a packet").text.as_str(), "41");
            assert_eq!(polling.closing, closes, "its next poll says so");
            assert_eq!(polling.namespaces.is_empty(), closes);
        }
    }

    #[test]
    fn an_event_is_no_order() {
        let mut record = record();
        let event = order(5, EntryKind::Emit, "/", &[], r#"42["m"]"#);
        assert!(Order::of(&event).is_none() && !concerns(&record, &event));
        let applied = apply_polling(&mut record, &event, ROOMS_MAX);
        assert!(applied.changes.is_empty() && applied.packet.is_none());
    }
}
