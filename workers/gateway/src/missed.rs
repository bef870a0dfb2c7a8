//! What a session has not seen of the log yet.

use crate::orders;
use crate::packet::Packet;
use crate::ring::Logged;
use crate::worker::Worker;
use session::{Entry, EntryKind, Joined, Offset, Record};
use std::borrow::Cow;
use std::rc::Rc;
use store::{Mail, Range, StoreError};
use tracing::warn;

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    /// Redis did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is more than is replayed (`recovery.entries_max`).
    #[error("more than {0} entries were missed")]
    TooMany(usize),
    /// The client has seen more of the log than there is: Redis lost its end.
    #[error("redis lost the end of the log")]
    EndLost,
    /// The log does not reach back so far.
    #[error("the log was trimmed")]
    Trimmed,
}

/// Entries after `after` that may no longer stand in the ring, and the position from which the ring
/// knows everything: what follows must be taken from it without an await in between. None of them is
/// later than what this worker has seen: its tailer delivers those.
pub(crate) async fn older_than_ring(worker: &Worker, after: Offset) -> Result<(Vec<Rc<Logged>>, Offset), Missing> {
    let max = worker.settings.recovery.entries_max;
    let (mut list, mut position) = (Vec::new(), after);
    while worker.ring.borrow().after(position).is_none() {
        let head = worker.head();
        match worker.store.range(position, Some(head), max).await? {
            Range::Trimmed => return Err(Missing::Trimmed),
            Range::TooMany => return Err(Missing::TooMany(max)),
            Range::Entries(entries) => {
                position = head;
                list.extend(entries.into_iter().filter_map(|(offset, bytes)| read(offset, &bytes)));
                if list.len() > max {
                    return Err(Missing::TooMany(max));
                }
            }
        }
    }
    Ok((list, position))
}

/// Makes an entry of its bytes; what cannot be read is reported and left out.
pub(crate) fn read(offset: Offset, bytes: &bytes::Bytes) -> Option<Rc<Logged>> {
    match Entry::decode(bytes) {
        Ok(entry) => Some(Logged::new(offset, entry)),
        Err(error) => {
            warn!(%offset, %error, "log entry not understood");
            None
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
            if let Some(packet) = orders::apply(record.to_mut(), logged, rooms_max, &mut changed) {
                emit(Piece::Packet(packet));
            }
            continue;
        }
        let text = logged.text(record.offsets).clone();
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
    Mail(bytes::Bytes),
}

/// What a membership that is resumed missed: all but what is volatile.
pub(crate) fn replay<'a>(
    nsp: &str,
    joined: &Joined,
    entries: impl Iterator<Item = &'a Rc<Logged>>,
) -> impl Iterator<Item = Packet> {
    let is_missed = |logged: &&Rc<Logged>| logged.entry.kind == EntryKind::Emit && logged.concerns(nsp, joined);
    let packet = |logged: &Rc<Logged>| Packet {
        text: logged.text(true).clone(),
        attachments: logged.entry.attachments.clone(),
    };
    entries.filter(is_missed).map(packet)
}

/// Whether an entry is to be sent to a session.
pub(crate) fn concerns(record: &Record, logged: &Logged) -> bool {
    match logged.entry.kind {
        EntryKind::Emit | EntryKind::Volatile => {}
        EntryKind::Join | EntryKind::Leave | EntryKind::Disconnect | EntryKind::Takeover => return false,
    }
    let nsp = logged.entry.target.nsp.as_str();
    record
        .namespaces
        .get(nsp)
        .is_some_and(|joined| logged.concerns(nsp, joined))
}
