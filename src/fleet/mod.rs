//! The fleet: which worker runs in which slot, and what happens next.
//!
//! Pure: [`Fleet::step`] takes the time and one [`Event`] and answers with [`Action`]s. No clock,
//! no system call, no async; `src/reactor` is the shell that feeds it and obeys it.
//! `src/LIFECYCLE.md` draws the sequences.

mod breaker;
mod exits;
mod handover;
mod machine;
mod notice;
mod recycle;
mod reload;
mod settle;
mod slot;
mod snapshot;
mod steer;
mod stop;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub(crate) use machine::Fleet;
pub(crate) use notice::{Exited, FleetNotice, Notice, WorkerNotice};
pub(crate) use snapshot::{FleetState, Progress, Row, Snapshot};

use boot::{Exit, Handover, ToSupervisor, ToWorker};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A point in time: monotonic, since the supervisor started.
pub(crate) type Moment = Duration;

/// A worker that lived this long was stable: its death is no sign of a crash loop, which shows by
/// workers that die soon after their birth. Killing a worker of four every two seconds, for hours,
/// must leave a fleet that serves; a loop as slow as this costs next to nothing.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Respawns of stable workers are spread over this span.
pub(crate) const RESPAWN_JITTER: Duration = Duration::from_millis(200);
/// First backoff of an unstable slot; doubles with each death.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest backoff.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Longest backoff when a dependency (Redis) was not there: no slot waits half a minute for a
/// Redis that is back.
pub(crate) const DEPENDENCY_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Silence of the event loop after which new connections go elsewhere, and the slot's listeners are
/// lent: together with what follows, no client is to wait for a second. Nothing is said about it; three
/// beats may be late.
pub(crate) const STEER_AFTER: Duration = Duration::from_millis(700);
/// Interval between two adjustments of the steering weights.
pub(crate) const WEIGH_EVERY: Duration = Duration::from_secs(1);
/// Weight of a slot with as many connections as the average.
pub(crate) const WEIGHT: u8 = 16;
/// No slot gets less than a quarter, nor more than twice, of an average share: a new worker is not
/// flooded, a full one not starved.
pub(crate) const WEIGHTS: std::ops::RangeInclusive<u8> = 4..=32;
/// Smallest difference in connections that counts; a smaller one is noise.
pub(crate) const WEIGHED_CONNECTIONS_MIN: u64 = 64;
/// Silence of the event loop after which the worker is said to lag.
pub(crate) const LAG_AFTER: Duration = Duration::from_secs(2);
/// Silence after which the worker is hung and is aborted.
pub(crate) const HUNG_AFTER: Duration = Duration::from_secs(10);
/// The same, when more than half of the workers fell silent together (host stall).
pub(crate) const HUNG_TOGETHER_AFTER: Duration = Duration::from_secs(30);
/// From `SIGABRT` to `SIGKILL`.
pub(crate) const ABORT_GRACE: Duration = Duration::from_secs(3);
/// From "stop now" to `SIGKILL`.
pub(crate) const FAST_GRACE: Duration = Duration::from_secs(2);
/// From the end of a drain's grace to `SIGKILL`.
pub(crate) const KILL_MARGIN: Duration = Duration::from_secs(2);
/// Between steering new connections away from a retiring slot and draining its worker, so that
/// its accept queue is empty when its listener is closed: a handshake that began with this listener
/// (RFC 9293, 3.5) ends in its queue, a round trip later.
pub(crate) const RETIRE_SETTLE: Duration = Duration::from_secs(1);
/// A worker that gives its connections away says by then what came of it; a reload waits for that, for
/// the drain of what stayed it does not.
pub(crate) const GIVE_PATIENCE: Duration = Duration::from_secs(8);
/// How long a reload waits for workers that an earlier one drained: what they serve ends by itself. By then they have
/// closed the WebSockets that could not move (`drain.rs`, `WINDOW_MAX`); what is left, an endless upload perhaps, is cut short.
pub(crate) const LEAVING_PATIENCE: Duration = Duration::from_secs(10);
/// Time window in which the breaker counts deaths.
pub(crate) const BREAKER_WINDOW: Duration = Duration::from_secs(60);
/// Deaths before ready, per slot, beyond which the breaker opens.
pub(crate) const BOOT_DEATHS_PER_SLOT_MAX: usize = 3;
/// Crashes after ready, per slot, beyond which the breaker opens.
pub(crate) const CRASHES_PER_SLOT_MAX: usize = 5;
/// How long a probe must be ready to close the breaker.
pub(crate) const PROBE_STABLE_AFTER: Duration = Duration::from_secs(10);
/// Minimum age at which a worker is replaced for its size: a limit that is too low must
/// not make the fleet do nothing else.
pub(crate) const RECYCLE_AGE_MIN: Duration = Duration::from_secs(60);
/// After a successor that did not get ready.
pub(crate) const RECYCLE_RETRY: Duration = Duration::from_secs(60);
/// How long a worker may receive nothing of the log while others do, before it is replaced.
pub(crate) const LOG_STALLED_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a canary that has soaked long enough but is not ready just now.
pub(crate) const SOAK_RETRY: Duration = Duration::from_millis(250);
/// Most slots; steering programs and descriptors are bounded by it.
pub(crate) const SLOTS_MAX: u16 = 1024;

/// The number of a slot, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SlotId(u16);

impl SlotId {
    /// The slot with this number.
    #[must_use]
    pub(crate) const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub(crate) const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An accepted configuration and binary; counts up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Generation(u64);

impl Generation {
    /// The generation of the start.
    pub(crate) const FIRST: Self = Self(1);

    /// Its number.
    #[must_use]
    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one process of one slot: the supervisor's spawn counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerId(u64);

impl WorkerId {
    /// Its number.
    #[must_use]
    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client that waits for the end of a reload; the shell gives the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What a generation's configuration says about the fleet itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Slots to have.
    pub(crate) workers: u16,
    /// How long a drain may take.
    pub(crate) grace: Duration,
    /// How long a worker may take until it is ready.
    pub(crate) boot_timeout: Duration,
    /// How long the first new worker of a reload must stay ready beside the old one.
    pub(crate) soak: Duration,
    /// Part of the grace in which a stopping fleet reports not ready before it drains any client.
    pub(crate) notice: Duration,
    /// A worker this old is replaced, give or take a tenth; zero: never.
    pub(crate) max_age: Duration,
    /// A worker this large is replaced; 0: never.
    pub(crate) max_rss_bytes: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// How fast to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Drain; asked again: fast; once more: kill.
    Graceful {
        /// The listeners close: a client that connects meanwhile is told so. Otherwise it waits for the next supervisor.
        last: bool,
    },
    /// Fast at once; asked again: kill.
    Fast,
}

/// What can happen to a fleet. Closed: whatever is not here does not happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Listeners are bound and the managed Redis (if any) accepts: spawn.
    Begin,
    /// A worker was reaped.
    Exited {
        /// Which.
        worker: WorkerId,
        /// How.
        end: End,
    },
    /// One slot less (`SIGTTOU`).
    Fewer,
    /// A worker closed its control socket, or does not read it.
    HungUp {
        /// Which.
        worker: WorkerId,
    },
    /// The supervisor itself ran late by this much: silence proves nothing.
    Late {
        /// How late.
        by: Duration,
    },
    /// A worker spoke.
    Message {
        /// Which.
        worker: WorkerId,
        /// What it said.
        message: ToSupervisor,
    },
    /// One slot more (`SIGTTIN`).
    More,
    /// Even the connections of the slots out.
    Rebalance {
        /// Who waits for the outcome.
        tickets: Vec<Ticket>,
    },
    /// A checked configuration waits to become the next generation.
    Reload {
        /// Who waits for the outcome.
        tickets: Vec<Ticket>,
        /// What it says about the fleet.
        policy: Policy,
    },
    /// So many slots, from now on.
    Scale(u16),
    /// A spawn failed before there was a process.
    SpawnFailed {
        /// The worker that will not be.
        worker: WorkerId,
        /// The failed step.
        reason: String,
    },
    /// A worker has a process.
    Spawned {
        /// Which.
        worker: WorkerId,
        /// Its process id.
        pid: i32,
    },
    /// Stop everything.
    Stop(Pace),
    /// A deadline may have passed.
    Tick,
}

/// What the shell is to do. Order matters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Log forensics of this hung worker, then `SIGABRT`.
    Abort {
        /// Which.
        worker: WorkerId,
    },
    /// The waiting configuration is this generation now.
    Adopt {
        /// Its number.
        generation: Generation,
    },
    /// Tell all other workers that this one is gone: what it held is void.
    AnnounceGone {
        /// The dead worker.
        worker: WorkerId,
        /// Where it ran.
        slot: SlotId,
    },
    /// Close the listeners of this slot; always the highest.
    Close {
        /// Which.
        slot: SlotId,
    },
    /// Everything is reaped: end.
    Exit {
        /// The verdict.
        code: Exit,
        /// Why, when not asked to.
        reason: Option<String>,
    },
    /// Nothing will be spawned from this generation again.
    Forget {
        /// Which.
        generation: Generation,
    },
    /// Connect two workers, and tell them to hand live connections over: [`ToWorker::Give`], [`ToWorker::Take`].
    HandOver {
        /// Who gives.
        from: WorkerId,
        /// Who takes.
        to: WorkerId,
        /// So many at most.
        most: u64,
        /// The order to drain comes next.
        leaving: bool,
    },
    /// `SIGKILL`.
    Kill {
        /// Which.
        worker: WorkerId,
    },
    /// Send the listeners of this slot to a worker that serves, with [`ToWorker::Lend`].
    Lend {
        /// Whose listeners.
        slot: SlotId,
        /// The receiver.
        worker: WorkerId,
    },
    /// Bind the listeners of a further slot.
    Open {
        /// Which; always the next number.
        slot: SlotId,
    },
    /// Connections are evened out as far as they can be.
    RebalanceEnded {
        /// Who waited for it.
        tickets: Vec<Ticket>,
        /// What moved, or why nothing was tried.
        outcome: Result<Handover, String>,
    },
    /// A reload ended.
    ReloadEnded {
        /// Who waited for it.
        tickets: Vec<Ticket>,
        /// The new generation, or why there is none.
        outcome: Result<Generation, String>,
    },
    /// A reload began (after [`Action::Adopt`]).
    ReloadStarted,
    /// Send a control message.
    Send {
        /// The receiver.
        worker: WorkerId,
        /// What.
        message: ToWorker,
    },
    /// The fleet serves, for the first time.
    Serving,
    /// Start a worker.
    Spawn {
        /// Its name from now on.
        worker: WorkerId,
        /// Where.
        slot: SlotId,
        /// From which configuration and binary.
        generation: Generation,
        /// How many slots there are to be.
        workers: u16,
    },
    /// New connections go to these slots only; to all when empty.
    Steer {
        /// Sorted, each with its share: a slot of twice the weight gets twice as many.
        slots: Vec<(SlotId, u8)>,
    },
    /// Write this to the log.
    Tell(Notice),
}
