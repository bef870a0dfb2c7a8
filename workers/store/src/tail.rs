//! What a worker hears of the log.

use bytes::Bytes;
use session::{Offset, Sid};
use std::time::Duration;

/// What the tailer has to say.
#[derive(Clone, Debug)]
pub enum TailEvent {
    /// A canary passed: the log's push path lives.
    Canary {
        /// Entries that this worker had not seen when it came; they follow.
        behind: u64,
        /// How long it took from this worker through Redis back; `None` if another worker sent it.
        took: Option<Duration>,
    },
    /// Nothing was pushed for too long, not even a canary, and yet Redis lets us subscribe again: the way from it is
    /// stalled. What was missed has been delivered from the stream; wakes, as after [`Self::Up`], were not.
    Stalled,
    /// The connection is lost; the tailer keeps trying. Sent once per outage.
    Down(String),
    /// The next entries: in order, no gap, never twice.
    Entries(Vec<(Offset, Bytes)>),
    /// Entries are lost: those after `from`; `to` is the position from which the log continues.
    Reset {
        /// Last position before.
        from: Offset,
        /// New position.
        to: Offset,
        /// Why.
        reason: ResetReason,
    },
    /// The connection is back, and the entries that were missed have been delivered. Wakes were
    /// not: every parked poll asks again ([`crate::PollMode::Wake`]).
    Up,
    /// The parked poll of this session has something to look at.
    Wake(Sid),
}

/// Why entries are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// Redis lost its data, wholly or the latest: another log has begun.
    RedisLostData,
    /// This worker was away for longer than the log reaches back.
    Trimmed,
}
