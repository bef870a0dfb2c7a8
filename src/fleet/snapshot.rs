//! What `status` shows of the fleet.

use super::machine::{Fleet, Phase};
use super::slot::{Place, Slot, Worker};
use boot::Handover;

/// What a fleet is doing, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FleetState {
    Booting,
    /// In a crash loop.
    Degraded,
    Reloading,
    Serving,
    Stopping,
}

impl FleetState {
    /// For `status` and systemd.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Degraded => "degraded",
            Self::Reloading => "reloading",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
        }
    }
}

/// The fleet at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The current generation.
    pub(crate) generation: u64,
    /// What it is doing.
    pub(crate) state: FleetState,
    /// What came of the connections that were to move, since the latest reload or rebalance began.
    pub(crate) handover: Option<Handover>,
    /// How far the reload is that runs.
    pub(crate) reload: Option<Progress>,
    /// One for each process, and one for each slot without any.
    pub(crate) rows: Vec<Row>,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// What every slot is to run.
    pub(crate) to: u64,
    /// `canary` (the first new worker proves itself), `replacing`, or `back` to what ran before.
    pub(crate) stage: &'static str,
    /// Slots that run it.
    pub(crate) done: u16,
    /// Slots that are to.
    pub(crate) slots: u16,
}

/// One process, or a slot without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Number of the slot.
    pub(crate) slot: u16,
    /// The process, if any.
    pub(crate) pid: Option<i32>,
    /// What it runs, or what its next worker will run.
    pub(crate) generation: u64,
    /// What its binary calls itself; `None` before it was ready.
    pub(crate) version: Option<String>,
    /// A worker's state, `unready` for one that is ready and reports that it should get no new clients now, or `backoff`,
    /// `parked`, `empty`.
    pub(crate) state: &'static str,
    /// Checks of its readiness that do not pass now.
    pub(crate) failing: Vec<String>,
    /// Open connections.
    pub(crate) connections: u64,
    /// Sessions held.
    pub(crate) sessions: u64,
    /// How often the slot's worker ended without being asked to.
    pub(crate) restarts: u64,
    /// How the slot's last worker ended.
    pub(crate) last_exit: Option<String>,
    /// How late its event loop ran its last beat (microseconds); `None` without a process.
    pub(crate) lag_us: Option<u64>,
    /// Epoch and number of the latest entry of the log that it has heard; `None` before its first beat.
    pub(crate) log_position: Option<(u64, u64)>,
    /// It gives its live connections to another worker.
    pub(crate) handing_over: bool,
}

impl Fleet {
    /// [`Snapshot::state`].
    #[must_use]
    pub(crate) const fn state(&self) -> FleetState {
        match self.phase {
            Phase::Stopping(_) | Phase::Ended => FleetState::Stopping,
            Phase::Booting { .. } | Phase::Serving | Phase::Waiting if self.reload.is_running() => {
                FleetState::Reloading
            }
            Phase::Booting { .. } | Phase::Serving | Phase::Waiting if self.breaker.is_open() => FleetState::Degraded,
            Phase::Booting { .. } | Phase::Waiting => FleetState::Booting,
            Phase::Serving => FleetState::Serving,
        }
    }

    /// What `status` shows.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Snapshot {
        let rows = self.slots.iter().flat_map(rows).collect();
        Snapshot {
            generation: self.generation.number(),
            state: self.state(),
            handover: self.handover.clone(),
            reload: self.reload_progress(),
            rows,
        }
    }
}

fn rows(slot: &Slot) -> Vec<Row> {
    let mut rows: Vec<Row> = slot.workers().map(|worker| row(slot, worker)).collect();
    if rows.is_empty() {
        let state = match slot.place {
            Place::Backoff { .. } => "backoff",
            Place::Parked => "parked",
            Place::Empty | Place::Filled(_) => "empty",
        };
        rows.push(Row {
            slot: slot.id.number(),
            pid: None,
            generation: slot.generation.number(),
            version: None,
            state,
            failing: Vec::new(),
            connections: 0,
            sessions: 0,
            restarts: slot.restarts,
            last_exit: slot.last_exit.clone(),
            lag_us: None,
            log_position: None,
            handing_over: false,
        });
    }
    rows
}

fn row(slot: &Slot, worker: &Worker) -> Row {
    Row {
        slot: slot.id.number(),
        pid: worker.pid,
        generation: worker.generation.number(),
        version: worker.version.clone(),
        state: if worker.is_unready() {
            "unready"
        } else {
            worker.state.name()
        },
        failing: worker.beat.failing.clone(),
        connections: worker.beat.connections,
        sessions: worker.beat.sessions,
        restarts: slot.restarts,
        last_exit: slot.last_exit.clone(),
        lag_us: Some(worker.beat.lag_us),
        log_position: Some((worker.beat.log_epoch, worker.beat.log_seq)).filter(|(epoch, _)| *epoch > 0),
        handing_over: worker.giving.is_some(),
    }
}
