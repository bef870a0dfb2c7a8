//! What can go wrong between a worker and its store.

use crate::limits::REDIS_MAJOR_MIN;
use std::time::Duration;

/// An operation of the store failed. Texts never contain the password.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It is a node of a cluster: its scripts may not touch all the keys that ours need.
    #[error("redis runs as a cluster (cluster-enabled yes), which has no database for all keys")]
    Clustered,
    /// What is stored, or was answered, cannot be understood.
    #[error("{what} not understood: {reason}")]
    Corrupt {
        /// What it should have been.
        what: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// What answers there speaks another protocol.
    #[error("{op}: {}", speaks.at(place))]
    NotRedis {
        /// The operation.
        op: &'static str,
        /// Address or path.
        place: String,
        /// What it speaks instead.
        speaks: Speaks,
    },
    /// Redis has reached its `maxmemory` and may not evict.
    #[error("{op}: redis is out of memory")]
    OutOfMemory {
        /// The operation.
        op: &'static str,
    },
    /// Redis answered with an error that is none of the others: a missing permission, a renamed
    /// command, a fault of ours.
    #[error("{op}: redis refused: {reason}")]
    Refused {
        /// The operation.
        op: &'static str,
        /// Redis' words.
        reason: String,
    },
    /// Redis says that it is older than what workers need.
    #[error("redis {found} is too old: {min}.0 or newer is needed", min = REDIS_MAJOR_MIN)]
    TooOld {
        /// Its version.
        found: String,
    },
    /// No answer in time. Whether the operation took place is unknown.
    #[error("{op}: no answer from redis within {after:?}")]
    Timeout {
        /// The operation.
        op: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// Redis wants another user or password, or any at all.
    #[error("{op}: redis refused: {reason}")]
    Unauthorized {
        /// The operation.
        op: &'static str,
        /// Redis' words.
        reason: String,
    },
    /// No connection, or it broke; or Redis is loading its data.
    #[error("{op}: redis is not available: {reason}")]
    Unavailable {
        /// The operation.
        op: &'static str,
        /// Why.
        reason: String,
    },
    /// Redis answers, and takes no writes.
    #[error("{op}: redis takes no writes: {reason}")]
    Unwritable {
        /// The operation.
        op: &'static str,
        /// What keeps it from that.
        by: Unwritable,
        /// Redis' words.
        reason: String,
    },
}

/// What is spoken where `redis.url` says that Redis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Neither Redis' protocol nor TLS.
    Other,
    /// Redis' protocol without TLS, and the URL wants TLS.
    Plain,
    /// TLS, and the URL wants none.
    Tls,
}

impl Speaks {
    fn at(self, place: &str) -> String {
        match self {
            Self::Other => format!("what answers at {place} is not Redis"),
            Self::Plain => format!(
                "{place} is a Redis without TLS, and redis.url wants TLS: write redis:// instead of rediss://, or give Redis \
                 a tls-port"
            ),
            Self::Tls => {
                format!("{place} speaks TLS, and redis.url wants none: write rediss:// instead of redis://")
            }
        }
    }
}

/// What keeps a Redis that answers from taking writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// It could not write to its disk (`MISCONF`).
    Disk,
    /// It is a replica, and read-only (`READONLY`).
    Replica,
    /// Fewer replicas follow it than it wants for a write (`NOREPLICAS`, `min-replicas-to-write`).
    Replicas,
}

/// What it takes until the same call can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// A change of the configuration, of Redis or of ours: a worker that has not served yet ends with 78.
    Person,
    /// Nothing but time: a worker that has not served yet waits.
    Time,
}

impl StoreError {
    /// What it takes until the same call can succeed.
    #[must_use]
    pub const fn cure(&self) -> Cure {
        match self {
            Self::OutOfMemory { .. } | Self::Timeout { .. } | Self::Unavailable { .. } | Self::Unwritable { .. } => {
                Cure::Time
            }
            Self::Clustered
            | Self::Corrupt { .. }
            | Self::NotRedis { .. }
            | Self::Refused { .. }
            | Self::TooOld { .. }
            | Self::Unauthorized { .. } => Cure::Person,
        }
    }

    /// Says in a few words what a call of this kind waits for; `None` if waiting does not help. The words are ours, so that a
    /// client may read them: Redis' own tell of keys, users and addresses.
    #[must_use]
    pub(crate) const fn obstacle(&self) -> Option<&'static str> {
        Some(match self {
            Self::OutOfMemory { .. } => "redis refuses writes: OOM, it has reached its maxmemory",
            Self::Unwritable {
                by: Unwritable::Disk, ..
            } => "redis refuses writes: MISCONF, it cannot write to its disk",
            Self::Unwritable {
                by: Unwritable::Replica,
                ..
            } => "redis refuses writes: READONLY, it is a replica",
            Self::Unwritable {
                by: Unwritable::Replicas,
                ..
            } => "redis refuses writes: NOREPLICAS, too few replicas follow it",
            Self::Timeout { .. } => "redis does not answer",
            Self::Unavailable { .. } => "redis is not available",
            Self::NotRedis { .. } => "what answers is not redis",
            Self::Clustered
            | Self::Corrupt { .. }
            | Self::Refused { .. }
            | Self::TooOld { .. }
            | Self::Unauthorized { .. } => return None,
        })
    }

    /// Whether a call that fails like this after others have succeeded may succeed again by itself: what
    /// answers like no Redis then is something in between, such as a proxy that has lost its Redis.
    #[must_use]
    pub const fn passing(&self) -> bool {
        matches!(self.cure(), Cure::Time) || matches!(self, Self::NotRedis { .. })
    }
}

/// An entry was not appended, or it is unknown whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The store was closed (its last clone dropped) before the entry was written.
    #[error("the log's writer is closed")]
    Closed,
    /// Too many bytes are waiting for Redis already (`queue_bytes_max`); nothing was queued.
    #[error("{queued} bytes are waiting for redis, at most {max} may")]
    QueueFull {
        /// Bytes waiting.
        queued: usize,
        /// The limit.
        max: usize,
    },
    /// So many ids are remembered for clients of this worker already; nothing was queued.
    #[error("too many ids: send it without one, or later")]
    TooManyIds,
    /// Redis refused the whole batch for a reason that waiting does not heal.
    #[error("the log's writer was refused: {reason}")]
    Refused {
        /// Redis' words.
        reason: String,
    },
    /// Not confirmed within `publish_timeout`. It may be in the log all the same: give a dedupe id
    /// to whatever is sent again.
    #[error("not confirmed by redis within {after:?}{}", because(*.obstacle))]
    Timeout {
        /// How long was waited.
        after: Duration,
        /// What stood in the way at the end, as far as Redis said so.
        obstacle: Option<&'static str>,
    },
    /// Larger than `entry_bytes_max`; nothing was queued.
    #[error("an entry of {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

fn because(obstacle: Option<&str>) -> String {
    obstacle.map(|obstacle| format!(": {obstacle}")).unwrap_or_default()
}
