//! Orders in the log: sockets are told from outside to join or leave rooms, or to go.

use crate::membership::{self, Change};
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
