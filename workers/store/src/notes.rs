//! Notes about the lives of sessions, as they stand in Redis. What a line says: [`session::trace`].

use std::time::Duration;

/// How much is kept of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoteBounds {
    /// Bytes in Redis, about; the oldest go.
    pub bytes_max: u64,
    /// Older ones go, sooner or later.
    pub age_max: Duration,
}

/// Some notes of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Of the batch, from 1: the same number again is the same batch, written twice.
    pub number: u64,
    /// Milliseconds since 1970 at the first note.
    pub began_ms: u64,
    /// Notes of this worker that were lost before these.
    pub lost: u64,
    /// How many there are; not stored.
    pub count: u64,
    /// A line for each.
    pub text: String,
}

/// Notes that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Of the stream's item.
    pub id: String,
    /// Who wrote them: a worker's incarnation, or `operator-…`.
    pub worker: String,
    /// What they say.
    pub notes: Notes,
}
