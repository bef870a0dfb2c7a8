//! What a store counts.

use crate::answer::Appended;
use crate::error::{AppendError, StoreError};
use meter::{Counter, Counters, Gauge, Histogram, Histograms, Rule, instruments, labels};

labels! {
    /// Which connection a command went over.
    pub(crate) enum Over {
        Requests = "lane=requests",
        Log = "lane=log",
        Bulk = "lane=bulk",
    }
}

labels! {
    /// How a command failed.
    pub(crate) enum Failed {
        Corrupt = "kind=corrupt",
        Memory = "kind=memory",
        Refused = "kind=refused",
        Timeout = "kind=timeout",
        Unavailable = "kind=unavailable",
    }
}

labels! {
    /// What became of an entry that was to be appended.
    pub(crate) enum Published {
        Appended = "result=appended",
        Duplicate = "result=duplicate",
        Closed = "result=closed",
        QueueFull = "result=queue_full",
        Refused = "result=refused",
        Timeout = "result=timeout",
        TooLarge = "result=too_large",
        TooManyIds = "result=too_many_ids",
    }
}

instruments! {
    /// What one worker's store counts.
    pub struct Counts {
        /// How long commands to Redis took, by the connection they went over; polls and sessions are requests.
        pub(crate) op: Histograms<Over> = "gw_redis_op_seconds", SECONDS;
        /// Commands to Redis that failed; a retry may have helped.
        pub(crate) failed: Counters<Failed> = "gw_redis_errors_total";
        /// Times a connection to Redis was reopened after it had broken.
        pub(crate) reconnects: Counter = "gw_redis_reconnects_total";
        /// Entries that were to be appended to the log.
        pub(crate) published: Counters<Published> = "gw_publish_total";
        /// How long it took until an entry was in the log, or was given up.
        pub(crate) publish: Histogram = "gw_publish_seconds", SECONDS;
        /// Batches of entries that were sent to the log.
        pub(crate) batches: Counter = "gw_log_batches_total";
        /// Bytes of entries that wait for the log: at most log.queue_bytes_max for each worker.
        pub(crate) queue: Gauge = "gw_log_queue_bytes", Rule::EachSum;
        /// Bytes of entries that the log in Redis has, as of the latest canary: at most log.bytes_max and a batch.
        pub(crate) log_bytes: Gauge = "gw_log_bytes", Rule::Max;
        /// Times that pushed entries of the log left a gap, which was then read.
        pub(crate) gaps: Counter = "gw_log_gaps_total";
    }
}

/// Upper bounds of what Redis takes (seconds).
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

impl Failed {
    pub(crate) const fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } | StoreError::NotRedis { .. } => Self::Corrupt,
            StoreError::OutOfMemory { .. } => Self::Memory,
            StoreError::Clustered
            | StoreError::Refused { .. }
            | StoreError::TooOld { .. }
            | StoreError::Unauthorized { .. } => Self::Refused,
            StoreError::Timeout { .. } => Self::Timeout,
            StoreError::Unavailable { .. } | StoreError::Unwritable { .. } => Self::Unavailable,
        }
    }
}

impl Published {
    pub(crate) const fn of(outcome: &Result<Appended, AppendError>) -> Self {
        match outcome {
            Ok(Appended { duplicate: false, .. }) => Self::Appended,
            Ok(Appended { duplicate: true, .. }) => Self::Duplicate,
            Err(error) => Self::failed(error),
        }
    }

    pub(crate) const fn failed(error: &AppendError) -> Self {
        match error {
            AppendError::Closed => Self::Closed,
            AppendError::QueueFull { .. } => Self::QueueFull,
            AppendError::Refused { .. } => Self::Refused,
            AppendError::Timeout { .. } => Self::Timeout,
            AppendError::TooLarge { .. } => Self::TooLarge,
            AppendError::TooManyIds => Self::TooManyIds,
        }
    }
}
