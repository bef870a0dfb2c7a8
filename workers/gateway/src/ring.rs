//! The recent entries of the log, in memory: what a poll or a resuming client missed a moment ago
//! is answered from here, without Redis. Bounded in bytes.

use crate::entries;
use crate::lines::{Lines, line};
use bytes::Bytes;
use session::{Entry, EntryKind, Joined, Limits, Offset};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tracing::warn;
use wire::socket;

/// An entry of the log at its position, with what is sent for it: encoded once for all members.
pub(crate) struct Logged {
    pub(crate) offset: Offset,
    pub(crate) entry: Entry,
    plain: OnceCell<Utf8Bytes>,
    with_offset: OnceCell<Utf8Bytes>,
}

impl Logged {
    pub(crate) fn new(offset: Offset, entry: Entry) -> Rc<Self> {
        Rc::new(Self {
            offset,
            entry,
            plain: OnceCell::new(),
            with_offset: OnceCell::new(),
        })
    }

    /// Makes an entry of its bytes; what cannot be read, here or by clients, is reported and left out.
    pub(crate) fn read(offset: Offset, bytes: &Bytes, limits: &Limits, unreadable: &Lines) -> Option<Rc<Self>> {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                line!(warn, %offset, %error, "log entry not understood");
                return None;
            }
        };
        if let Err(error) = entries::check(&entry, limits) {
            if let Some(untold) = unreadable.line(Instant::now()) {
                warn!(%offset, %error, untold, "log entry skipped: clients would disconnect because of it");
            }
            return None;
        }
        Some(Self::new(offset, entry))
    }

    /// The Engine.IO message; with its offset as last argument for clients that can resume. Every event has it, volatile
    /// ones too, since the official client takes the last argument of any event for its offset if that is a string. (The
    /// reference server leaves it out of volatile events, and its clients come back with the application's string.) An ack has
    /// none: its arguments are the application's alone.
    pub(crate) fn text(&self, with_offset: bool) -> &Utf8Bytes {
        if with_offset && self.entry.kind != EntryKind::Ack {
            return self.with_offset.get_or_init(|| {
                let text = std::str::from_utf8(&self.entry.text).unwrap_or_default();
                socket::event_with_offset(text, &self.offset.to_string()).into()
            });
        }
        // `Entry::decode` checked that it is UTF-8.
        self.plain
            .get_or_init(|| Utf8Bytes::try_from(self.entry.text.clone()).unwrap_or_default())
    }

    /// Whether a member of the namespace has to get it.
    pub(crate) fn concerns(&self, nsp: &str, joined: &Joined) -> bool {
        let target = &self.entry.target;
        if target.nsp != nsp || self.offset <= joined.since {
            return false;
        }
        let is_in = |room: &String| {
            room.as_str() == joined.sid.as_str() || joined.rooms.get(room).is_some_and(|since| self.offset > *since)
        };
        (target.rooms.is_empty() || target.rooms.iter().any(is_in)) && !target.except.iter().any(is_in)
    }
}

/// See the module.
pub(crate) struct Ring {
    entries: VecDeque<Rc<Logged>>,
    bytes: usize,
    bytes_max: usize,
    /// Position of the last entry, or where the ring was begun.
    head: Offset,
    /// Everything after this position, up to `head`, is here.
    floor: Offset,
}

impl Ring {
    pub(crate) fn new(position: Offset, bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
            head: position,
            floor: position,
        }
    }

    /// Position up to which the log has been seen.
    pub(crate) fn head(&self) -> Offset {
        self.head
    }

    /// Everything after this position, up to the head, is here.
    pub(crate) fn floor(&self) -> Offset {
        self.floor
    }

    /// How much is here.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, logged: Rc<Logged>) {
        self.head = logged.offset;
        self.bytes += logged.entry.size();
        self.entries.push_back(logged);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.entry.size();
            self.floor = oldest.offset;
        }
    }

    /// The log went on elsewhere: nothing before `position` can be told any more.
    pub(crate) fn reset(&mut self, position: Offset) {
        *self = Self::new(position, self.bytes_max);
    }

    /// The entries after a position, or nothing if they do not all stand here.
    pub(crate) fn after(&self, position: Offset) -> Option<impl Iterator<Item = &Rc<Logged>>> {
        if position < self.floor {
            return None;
        }
        let first = self.entries.partition_point(|e| e.offset <= position);
        Some(self.entries.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use session::{Names, Sid, Target};

    fn logged(seq: u64, rooms: &[&str], except: &[&str]) -> Rc<Logged> {
        let list = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect();
        let target = Target {
            nsp: "/".into(),
            rooms: list(rooms),
            except: list(except),
        };
        let text = Bytes::from_static(b"42[\"m\"]");
        Logged::new(
            Offset::new(1, seq),
            Entry {
                kind: EntryKind::Emit,
                target,
                text,
                attachments: vec![],
            },
        )
    }

    #[test]
    fn a_ring_tells_what_it_no_longer_holds() {
        let size = logged(1, &[], &[]).entry.size();
        let mut ring = Ring::new(Offset::new(1, 0), size * 2);
        for seq in 1..=3 {
            ring.push(logged(seq, &[], &[]));
        }
        assert!(ring.after(Offset::new(1, 0)).is_none());
        let seqs = |after| {
            ring.after(Offset::new(1, after))
                .map(|e| e.map(|e| e.offset.seq()).collect::<Vec<_>>())
        };
        assert_eq!(seqs(1), Some(vec![2, 3]));
        assert_eq!(seqs(3), Some(vec![]));
        assert_eq!(ring.head(), Offset::new(1, 3));
    }

    #[test]
    fn an_entry_concerns_those_who_were_in_the_room_by_then() {
        let rooms = Names::from([("a", Offset::new(1, 5)), ("b", Offset::new(1, 1))]);
        let joined = Joined {
            sid: Sid::from_random([1; 15]),
            who: None,
            pid: None,
            pending: false,
            since: Offset::new(1, 1),
            rooms,
            data: None,
        };
        let check = |seq, rooms: &[&str], except: &[&str], expect| {
            assert_eq!(
                logged(seq, rooms, except).concerns("/", &joined),
                expect,
                "{seq} {rooms:?} {except:?}"
            );
        };
        check(1, &[], &[], false);
        check(2, &[], &[], true);
        check(5, &["a"], &[], false);
        check(6, &["a"], &[], true);
        check(6, &["a"], &["b"], false);
        check(6, &["c"], &[], false);
        check(6, &["c", "b"], &[], true);
        check(6, &[joined.sid.as_str()], &[], true);
        assert!(!logged(6, &[], &[]).concerns("/other", &joined));
    }

    #[test]
    fn the_offset_is_the_last_argument_of_every_event() {
        for kind in [EntryKind::Emit, EntryKind::Volatile] {
            let entry = Entry {
                kind,
                ..logged(7, &[], &[]).entry.clone()
            };
            let entry = Logged::new(Offset::new(1, 7), entry);
            assert_eq!(entry.text(false).as_str(), "42[\"m\"]");
            assert_eq!(entry.text(true).as_str(), "42[\"m\",null,\"1-7\"]");
        }
    }
}
