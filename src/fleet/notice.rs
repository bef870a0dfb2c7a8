//! What an operator is told about the fleet. The fleet says it, the shell writes it to the log.

use super::{Generation, SlotId};
use std::time::Duration;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// About the fleet.
    Fleet(FleetNotice),
    /// About the worker with this process id, in this slot.
    Worker(SlotId, Option<i32>, WorkerNotice),
}

/// About the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FleetNotice {
    /// The first new worker of a reload proves itself beside the old one.
    CanarySoaks {
        slot: SlotId,
    },
    /// A worker says that the configuration cannot work.
    ConfigurationCannotWork {
        reason: String,
    },
    /// Too many workers have died soon after their birth: only one slot tries again.
    CrashLoop {
        reason: String,
    },
    CrashLoopOver,
    /// All slots run the former generation again.
    FormerGenerationRuns {
        generation: Generation,
    },
    /// Of so many workers connections go to others.
    Rebalances {
        transfers: usize,
    },
    /// The successor of a worker that was to be replaced did not get ready.
    RecycleFailed {
        slot: SlotId,
        reason: String,
    },
    ReloadBegins {
        from: Generation,
        to: Generation,
    },
    ReloadCompleted {
        generation: Generation,
    },
    /// The former generation comes back.
    ReloadFailed {
        reason: String,
    },
    ReloadWaits,
    /// After a slot's worker died.
    RespawnDue {
        slot: SlotId,
        wait: Duration,
    },
    RollbackRetried {
        reason: String,
    },
    /// During a crash loop.
    SlotProbes {
        slot: SlotId,
        wait: Duration,
    },
    SlotsChange {
        from: u16,
        to: u16,
    },
    /// `level` says how hard.
    Stops {
        level: &'static str,
    },
    UnknownWorkerExited {
        worker: u64,
    },
}

/// About a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WorkerNotice {
    BeatsAgain {
        lagged: Duration,
    },
    BootsTooLong {
        reason: String,
    },
    /// It still drained from a generation that is not kept.
    CutShort,
    Drained {
        closed: u64,
        cut: u64,
    },
    Exited {
        generation: Generation,
        reason: String,
        how: Exited,
    },
    GivesUp {
        code: u8,
        reason: String,
    },
    Hung {
        silent: Duration,
    },
    KilledAtDeadline {
        state: &'static str,
    },
    Lags {
        silent: Duration,
    },
    LogStalled {
        stalled: Duration,
    },
    Ready {
        generation: Generation,
        boot: Duration,
    },
    Recycled {
        age: Duration,
        rss_bytes: u64,
    },
    /// It did not say in time what it handed over.
    SilentAboutHandover,
}

/// Whether the end of a worker was to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exited {
    AsAsked,
    /// Something else sent it a `SIGKILL`.
    Killed,
    Unasked,
}
