//! Orders in the log: sockets are told from outside to join or leave rooms, or to go.

use crate::membership::note_join;
use crate::packet::Packet;
use crate::ring::Logged;
use session::{EntryKind, Names, Offset, Record};
use std::rc::Rc;
use tracing::debug;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Order {
    Join(Vec<String>),
    Leave(Vec<String>),
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
            EntryKind::Emit | EntryKind::Takeover | EntryKind::Volatile => None,
        }
    }
}

/// Carries an order out on the record of a polling session, and notes if that changes it; the packet that the client
/// gets for it.
pub(crate) fn apply(record: &mut Record, logged: &Logged, rooms_max: usize, changed: &mut bool) -> Option<Packet> {
    let nsp = logged.entry.target.nsp.as_str();
    let order = Order::of(logged)?;
    let joined = record
        .namespaces
        .get_mut(nsp)
        .filter(|joined| logged.concerns(nsp, joined))?;
    match order {
        Order::Join(rooms) => {
            for room in rooms {
                match note_join(joined, &room, logged.offset, rooms_max) {
                    Ok(new) => *changed |= new,
                    Err(why) => debug!(room, why, "room not joined"),
                }
            }
            None
        }
        Order::Leave(rooms) => {
            for room in rooms {
                *changed |= joined.rooms.remove(&room).is_some();
            }
            None
        }
        Order::Disconnect { close } => {
            record.namespaces.remove(nsp);
            if close {
                // The next poll says so, and ends it.
                record.closing = true;
                record.namespaces = Names::default();
            }
            *changed = true;
            Some(Packet::disconnect(nsp))
        }
    }
}

/// Whether an entry is an order for one of the session's sockets.
pub(crate) fn concerns(record: &Record, logged: &Logged) -> bool {
    let nsp = logged.entry.target.nsp.as_str();
    let is_order = matches!(
        logged.entry.kind,
        EntryKind::Disconnect | EntryKind::Join | EntryKind::Leave
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
