//! What a session has not seen of the log yet.

use crate::orders;
use crate::packet::Packet;
use crate::ring::Logged;
use bytes::Bytes;
use session::{EntryKind, Joined, Record};
use std::borrow::Cow;
use std::rc::Rc;
use store::{Mail, StoreError};

/// Why it cannot be told.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Missing {
    /// Redis did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The session has missed more events than are replayed (`recovery.entries_max`).
    #[error("the session missed more than {0} events (recovery.entries_max)")]
    TooMany(usize),
    /// The same in bytes.
    #[error("the session missed more than {0} bytes of events")]
    TooLarge(usize),
    /// The client has seen more of the log than there is: Redis lost its end.
    #[error("redis lost the end of the log")]
    EndLost,
    /// The log does not reach back so far.
    #[error("the log was trimmed")]
    Trimmed,
}

/// Which entries of the log concern a session.
pub(crate) enum Interest {
    /// What one membership has missed.
    Membership {
        /// Its namespace.
        nsp: String,
        /// Its rooms.
        joined: Joined,
    },
    /// Everything for the session, and the orders for it, which change its rooms.
    Session {
        /// The record as it was at the position where the reading begins.
        begun: Rc<Record>,
        /// The record as orders have changed it since.
        now: Option<Box<Record>>,
        /// `socket.rooms_max`.
        rooms_max: usize,
    },
}

impl Interest {
    /// Everything for a session.
    pub(crate) fn of(record: &Rc<Record>, rooms_max: usize) -> Self {
        Self::Session {
            begun: record.clone(),
            now: None,
            rooms_max,
        }
    }

    /// Whether an entry is wanted. Entries are asked about in the order of the log.
    pub(crate) fn concerns(&mut self, logged: &Logged) -> bool {
        match self {
            Self::Membership { nsp, joined } => is_missed(nsp, joined, logged),
            Self::Session { begun, now, rooms_max } => {
                let record = now.as_deref().unwrap_or(begun);
                if !orders::concerns(record, logged) {
                    return concerns(record, logged);
                }
                let record = now.get_or_insert_with(|| Box::new(Record::clone(begun)));
                // The packet is made when the answer is.
                orders::apply_polling(record, logged, *rooms_max);
                true
            }
        }
    }

    /// The entries come once more from the beginning.
    pub(crate) fn begin_anew(&mut self) {
        match self {
            Self::Membership { .. } => {}
            Self::Session { now, .. } => *now = None,
        }
    }
}

/// Entries that concern a session as packets, merged with its mail: an entry goes before mail that
/// was made after it.
///
/// Orders among the entries are carried out on the record; whether one changed it.
pub(crate) fn merge<'a>(
    record: &mut Cow<'_, Record>,
    entries: impl Iterator<Item = &'a Rc<Logged>>,
    mail: Mail,
    rooms_max: usize,
    mut emit: impl FnMut(Piece),
) -> bool {
    let mut changed = false;
    let mut mail = mail.into_iter().peekable();
    for logged in entries {
        let ordered = orders::concerns(record, logged);
        if !ordered && !concerns(record, logged) {
            continue;
        }
        while let Some((_, bytes)) = mail.next_if(|(tag, _)| *tag < logged.offset) {
            emit(Piece::Mail(bytes));
        }
        if ordered {
            let applied = orders::apply_polling(record.to_mut(), logged, rooms_max);
            changed |= !applied.changes.is_empty();
            if let Some(packet) = applied.packet {
                emit(Piece::Packet(packet));
            }
            continue;
        }
        let text = logged.text(record.carries_offsets(&logged.entry.target.nsp)).clone();
        emit(Piece::Packet(Packet {
            text,
            attachments: logged.entry.attachments.clone(),
        }));
    }
    for (_, bytes) in mail {
        emit(Piece::Mail(bytes));
    }
    changed
}

/// A part of an answer.
pub(crate) enum Piece {
    /// From the log.
    Packet(Packet),
    /// For this session alone.
    Mail(Bytes),
}

/// What a membership that is resumed missed: all but what is volatile.
pub(crate) fn replay<'a>(
    nsp: &str,
    joined: &Joined,
    entries: impl Iterator<Item = &'a Rc<Logged>>,
) -> impl Iterator<Item = Packet> {
    let packet = |logged: &Rc<Logged>| Packet {
        text: logged.text(true).clone(),
        attachments: logged.entry.attachments.clone(),
    };
    entries.filter(|logged| is_missed(nsp, joined, logged)).map(packet)
}

/// Whether a membership that is resumed has to get an entry.
fn is_missed(nsp: &str, joined: &Joined, logged: &Logged) -> bool {
    logged.entry.kind == EntryKind::Emit && logged.concerns(nsp, joined)
}

/// Whether an entry is to be sent to a session.
pub(crate) fn concerns(record: &Record, logged: &Logged) -> bool {
    match logged.entry.kind {
        EntryKind::Ack | EntryKind::Emit | EntryKind::Volatile => {}
        EntryKind::Admit
        | EntryKind::Join
        | EntryKind::Leave
        | EntryKind::Disconnect
        | EntryKind::Refuse
        | EntryKind::Takeover => return false,
    }
    let nsp = logged.entry.target.nsp.as_str();
    record
        .namespaces
        .get(nsp)
        .is_some_and(|joined| logged.concerns(nsp, joined))
}
