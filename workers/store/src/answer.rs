//! What the store is asked with and answers with: sessions, polls, posts, upgrades, the log.

use bytes::Bytes;
use session::{Offset, Record};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::time::Duration;

/// One HTTP request or WebSocket of this worker; unique within its incarnation. A repeated call
/// with the same id does nothing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    number: u64,
    given: Option<u64>,
}

impl RequestId {
    /// The `n`th request of this incarnation. See also [`crate::Store::request`].
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self { number: n, given: None }
    }

    /// The same, of a request that came with an id of its own, which a proxy that repeats the request repeats as well:
    /// whichever worker gets it then knows that it has been here. The id counts within a session. It stands in leases, so
    /// its hash is the same on every host and in every build: SipHash-1-3 with keys of zero, which the standard library's
    /// `DefaultHasher` happened to be in the builds before.
    #[must_use]
    pub fn repeatable(self, id: &[u8]) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(id);
        Self {
            given: Some(hasher.finish()),
            ..self
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.number
    }

    /// What stands for the id that it came with.
    #[must_use]
    pub(crate) const fn given(self) -> Option<u64> {
        self.given
    }
}

/// Revision of the record of a polling session that was just created; every change of it is one more.
pub const CREATED_REVISION: u64 = 1;

/// Packets for one polling session alone, each with the log offset that it was made at: it comes
/// after the entries up to there and before those that follow.
pub type Mail = Vec<(Offset, Bytes)>;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Written.
    Done,
    /// Someone took the session over: nothing was written.
    Fenced {
        /// The epoch that the stored record has.
        current: u64,
    },
    /// There is no such session any more: nothing was written.
    Gone,
}

/// What became of a session's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Prolonged.
    Alive,
    /// There is no such session: ended, kicked, expired, or lost with Redis' data.
    Gone,
}

/// Whether [`crate::Store::restore`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The record was missing and is back.
    Done,
    /// There was a record already; it stands.
    Present,
}

/// Why the poll is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollMode {
    /// The worker has something to send: the poll ends now.
    Answer,
    /// The request has just arrived: it proves receipt of the previous answer.
    Begin,
    /// By the worker's clock the ping is due, whatever Redis' clock says meanwhile: the poll ends now.
    Ping,
    /// The parked poll was woken ([`crate::TailEvent::Wake`]): is there anything?
    Wake,
}

/// What a poll is to do.
#[derive(Clone, Debug)]
pub enum Poll {
    /// Answer it now: the log's entries for this session after `after` up to `upto`, merged with
    /// `mail` by offset, then ping, then noop. The lease is free again.
    Answer {
        /// The session's record; `None` if it is still the revision that the caller said it knows.
        record: Option<Record>,
        /// Revision of the record.
        revision: u64,
        /// The client has all up to here.
        after: Offset,
        /// The answer covers the log up to here.
        upto: Offset,
        /// Packets for this session alone.
        mail: Mail,
        /// A ping is due and is part of this answer.
        ping: bool,
        /// An upgrade is under way: a noop ends the poll.
        noop: bool,
    },
    /// The session ended while the poll was parked (or was ended for an overlap elsewhere).
    Ended,
    /// This poll holds the lease no longer; another request answered or broke it.
    LeaseLost,
    /// The session exists but does not poll: it has moved to WebSocket.
    Moved(Box<Record>),
    /// Another poll is already waiting. The session has to end.
    Overlap,
    /// Nothing yet: the poll has the lease and waits for the log, a wake, or the times below.
    Parked {
        /// The session's record; `None` if it is still the revision that the caller said it knows.
        record: Option<Record>,
        /// Revision of the record.
        revision: u64,
        /// The client has all up to here.
        after: Offset,
        /// When to ask again with [`PollMode::Ping`] because a ping is due; `None` while a pong
        /// is outstanding.
        ping_in: Option<Duration>,
        /// When the session is over unless a pong comes.
        expires_in: Duration,
    },
    /// There is no such session.
    Unknown,
}

/// Whether a POST may be handled.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum PostBegin {
    /// The same request was here before, and is still under way or ended in the middle with its worker: what came of it
    /// is not known, so it must not be done.
    Broken,
    /// It may; it holds the lease.
    Go {
        /// The session's record; `None` if it is still the revision that the caller said it knows.
        record: Option<Record>,
        /// Revision of the record.
        revision: u64,
        /// What the last poll answer covered: the client has seen nothing later.
        sent: Offset,
        /// Whether a poll of the session is waiting somewhere.
        parked: bool,
    },
    /// The session exists but does not poll: it has moved to WebSocket.
    Moved(Box<Record>),
    /// Another POST is already under way. The session has to end.
    Overlap,
    /// The same request was here before and is done.
    Repeated,
    /// There is no such session.
    Unknown,
}

/// What a POST led to.
#[derive(Clone, Debug, Default)]
pub struct PostEffects<'a> {
    /// The record, if it changed.
    pub record: Option<&'a Record>,
    /// Packets for this session alone, in order, each with the log position it was made at.
    pub mail: &'a [(Offset, Bytes)],
    /// A pong was in it: the session lives on, the next ping is due one interval from now.
    pub pong: bool,
    /// A membership was resumed that has seen the log only up to here: the next poll reads it from
    /// here on. Each membership's own `since` says what of it is new to it.
    pub rewind: Option<Offset>,
    /// Whether the session has joined a namespace, which decides how long it is kept.
    pub settling: Settling,
}

/// Whether a session has joined a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Settling {
    /// Not yet. A pong does not prolong it beyond this time from now.
    Still(Duration),
    /// With this POST: it is kept from now on as others are.
    Now,
    /// Long ago.
    #[default]
    Over,
}

/// What became of a POST's effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostDone {
    /// The caller of [`crate::Store::post_at_once`] is behind: the record has another revision by now, a POST
    /// is under way, or the session does not poll. Nothing was stored; [`crate::Store::post_begin`] says which.
    Behind,
    /// Stored.
    Done {
        /// Revision of the record.
        revision: u64,
    },
    /// Someone took the session over meanwhile: nothing was stored.
    Fenced {
        /// The epoch that the stored record has.
        current: u64,
    },
    /// The client posts without polling, and more mail than a session may have would wait for it
    /// (4096 packets, 8 MiB): the session was ended, a parked poll is being woken.
    Full,
    /// The session ended, moved, or the lease ran out: nothing was stored.
    Gone,
    /// The same request was here before and is done: nothing was stored.
    Repeated,
}

/// Whether a probe may go ahead.
#[derive(Clone, Debug)]
pub enum UpgradeBegin {
    /// Another upgrade of this session is under way.
    Busy,
    /// It may.
    Go {
        /// The session's record.
        record: Box<Record>,
    },
    /// The session is on WebSocket already.
    Moved(Box<Record>),
    /// There is no such session.
    Unknown,
}

/// What became of a step of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeStep {
    /// Done.
    Done,
    /// The session ended, or the upgrade is not this request's (any more).
    Gone,
}

/// Whether the session has left polling.
#[derive(Clone, Debug)]
pub enum UpgradeFinish {
    /// A POST is still running: ask again in a moment.
    Busy,
    /// Polling is over; a still parked poll is being woken. The caller sends what is below over the
    /// WebSocket and saves the record with the new transport and an epoch one higher.
    Done {
        /// The session's record.
        record: Box<Record>,
        /// The client has all of the log up to here.
        after: Offset,
        /// Packets for this session alone that no poll carried.
        mail: Mail,
    },
    /// The session ended, or the upgrade is not this request's (any more).
    Gone,
}

/// Where an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position; for a duplicate that of the first one.
    pub offset: Offset,
    /// An entry with the same dedupe id was there already: nothing was appended.
    pub duplicate: bool,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The entries that follow the position, in order, without a gap; at least one, unless none was asked for.
    Entries(Vec<(Offset, Bytes)>),
    /// The entry that follows the position is not there any more, or belongs to a log that was lost.
    Trimmed,
}

/// How an attempt to change a record between requests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amended {
    /// It is as wanted.
    Done,
    /// There is no such session.
    Gone,
    /// Another writer changed it, or is about to: read it again.
    Again,
}

/// What Redis does when it is full, and has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// `maxmemory-policy`.
    pub policy: String,
    /// There is a `maxmemory`.
    pub is_bounded: bool,
    /// Keys that were thrown away.
    pub keys: u64,
}

impl Evictions {
    /// Whether any key may go, the log and its numbering among them.
    #[must_use]
    pub fn endangers(&self) -> bool {
        self.is_bounded && self.policy.starts_with("allkeys-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These numbers stand in leases that a worker of another build or host has written.
    #[test]
    fn the_hash_of_an_id_never_changes() {
        let hash = |id: &[u8]| RequestId::new(1).repeatable(id).given();
        for (id, expect) in [
            (&b"one"[..], 0x80bf_7733_f120_7381),
            (b"Oq3xK9_", 0x081e_8dc6_d16f_86b8),
            (b"", 0xd1fb_a762_150c_532c),
        ] {
            assert_eq!(hash(id), Some(expect), "{id:?}");
            // What the builds before wrote.
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write(id);
            assert_eq!(hasher.finish(), expect, "{id:?}");
        }
    }
}
