//! How workers ended, told and counted; and what else of the fleet is counted.

use super::machine::{Fleet, Phase};
use super::notice::{Exited, Notice, WorkerNotice};
use super::slot::{State, Worker};
use super::{End, Moment, SlotId};
use boot::meter::text_of;
use boot::{Exit, Restart};
use std::collections::BTreeMap;
use std::time::Duration;

/// Workers that ended without being asked to, by the labels of [`Restart`].
pub(super) type Restarts = BTreeMap<String, u64>;

/// What is counted of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct FleetStatistics {
    /// Configured number of slots.
    pub(crate) slots: u16,
    /// Workers ever spawned.
    pub(crate) spawned: u64,
    /// See [`Restart`]; by its labels.
    pub(crate) restarts: BTreeMap<String, u64>,
    /// Slots of workers, and how long those have said nothing.
    pub(crate) silent: Vec<(u16, Duration)>,
}

impl Fleet {
    /// What is counted.
    pub(crate) fn statistics(&self, now: Moment) -> FleetStatistics {
        let silent = self.slots.iter().flat_map(|slot| {
            let number = slot.id.number();
            slot.workers()
                .map(move |worker| (number, now.saturating_sub(worker.beat_at)))
        });
        FleetStatistics {
            slots: self.target,
            spawned: self.spawns,
            restarts: self.restarts.clone(),
            silent: silent.collect(),
        }
    }

    /// The worker in the place of a slot ended without being asked to.
    pub(super) fn count_restart(&mut self, worker: &Worker, exit: Option<Exit>, end: End) {
        let aborted = matches!(worker.state, State::Aborting { .. } | State::Killed);
        let why = match (exit, end) {
            (Some(Exit::Config), _) => Restart::Config,
            (Some(Exit::Dependency), _) => Restart::Dependency,
            _ if aborted && worker.was_ready => Restart::Hung,
            _ if aborted => Restart::Boot,
            (_, End::Signal(nix::libc::SIGKILL)) => Restart::Killed,
            (_, End::Signal(_)) => Restart::Signal,
            (_, End::Code(_)) => Restart::Exit,
        };
        *self.restarts.entry(text_of(why).to_owned()).or_default() += 1;
    }

    /// What is told of it.
    pub(super) fn exit_notice(&self, slot: SlotId, worker: &Worker, end: End, reason: String) -> Notice {
        let asked = matches!(
            worker.state,
            State::Draining { .. } | State::Stopping { .. } | State::Killed | State::Aborting { .. }
        );
        let how = if asked || matches!(self.phase, Phase::Stopping(_)) {
            Exited::AsAsked
        } else if end == End::Signal(nix::libc::SIGKILL) {
            Exited::Killed
        } else {
            Exited::Unasked
        };
        let generation = worker.generation;
        let notice = WorkerNotice::Exited {
            generation,
            reason,
            how,
        };
        Notice::Worker(slot, worker.pid, notice)
    }
}
