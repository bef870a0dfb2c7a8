//! The machine: one function takes an event, the rest brings every slot up to date.

use super::breaker::{Breaker, Cause, backoff, jitter};
use super::handover::Rebalance;
use super::notice::{FleetNotice, Notice, WorkerNotice};
use super::reload::Reload;
use super::slot::{Place, Slot, State, Worker};
use super::stop::Stop;
use super::{
    Action, End, Event, FAST_GRACE, Generation, LAG_AFTER, Moment, Policy, SLOTS_MAX, STABLE_AFTER, STEER_AFTER,
    SlotId, WorkerId,
};
use boot::{Exit, Handover, ToSupervisor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All slots, and what the fleet is doing with them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fleet {
    #[serde(with = "seed")]
    pub(super) rng: fastrand::Rng,
    /// Of the current generation.
    pub(super) policy: Policy,
    /// Slots to have; the slots beyond it retire.
    pub(super) target: u16,
    /// The current generation: what new slots run.
    pub(super) generation: Generation,
    /// The highest generation ever adopted.
    pub(super) generation_last: Generation,
    /// Workers ever spawned.
    pub(super) spawns: u64,
    pub(super) slots: Vec<Slot>,
    pub(super) phase: Phase,
    /// None runs when the fleet is handed over.
    #[serde(skip)]
    pub(super) reload: Reload,
    pub(super) breaker: Breaker,
    /// Where new connections go; the last [`Action::Steer`].
    pub(super) steered: Vec<(SlotId, u8)>,
    /// When the shares were reckoned last.
    #[serde(default)]
    pub(super) weighed_at: Moment,
    /// No worker is recycled before.
    #[serde(default)]
    pub(super) recycle_after: Moment,
    /// What came of the connections that were to move, since the latest reload or rebalance began.
    #[serde(default)]
    pub(super) handover: Option<Handover>,
    #[serde(default)]
    pub(super) restarts: super::exits::Restarts,
    #[serde(skip)]
    pub(super) rebalance: Option<Rebalance>,
    /// Slots whose listeners another worker has, too; lent again after an upgrade.
    #[serde(skip)]
    pub(super) lent: Vec<(SlotId, WorkerId)>,
    /// Filled during a step.
    #[serde(skip)]
    pub(super) actions: Vec<Action>,
}

/// What the fleet as a whole is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Before [`Event::Begin`].
    Waiting,
    /// No full fleet yet; a configuration that cannot work ends it.
    Booting { first_ready: Option<Moment> },
    /// It serves, or tries to.
    Serving,
    /// On the way out; not handed over.
    #[serde(skip)]
    Stopping(Stop),
    /// Everything is reaped.
    Ended,
}

/// A worker's seat in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    Place,
    Incoming,
    Leaving(usize),
}

impl Fleet {
    /// A fleet of the first generation, before [`Event::Begin`]. `seed` decides all its randomness.
    #[must_use]
    pub(crate) fn new(policy: Policy, seed: u64) -> Self {
        let generation = Generation::FIRST;
        Self {
            rng: fastrand::Rng::with_seed(seed),
            target: policy.workers,
            policy,
            generation,
            generation_last: generation,
            spawns: 0,
            slots: (0..policy.workers)
                .map(|number| Slot::new(SlotId::new(number), generation))
                .collect(),
            phase: Phase::Waiting,
            reload: Reload::default(),
            breaker: Breaker::default(),
            steered: Vec::new(),
            weighed_at: Moment::ZERO,
            recycle_after: Moment::ZERO,
            handover: None,
            restarts: BTreeMap::new(),
            rebalance: None,
            lent: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Takes one event at a time `now` that never goes back; what it answers is to be done in order.
    pub(crate) fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        match event {
            Event::Begin => self.begin(now),
            Event::Exited { worker, end } => self.exited(now, worker, end),
            Event::Fewer => self.scale(self.target.saturating_sub(1)),
            Event::HungUp { worker } => self.hung_up(now, worker),
            Event::Late { by } => self.forgive(now, by),
            Event::Message { worker, message } => self.heard(now, worker, message),
            Event::More => self.scale(self.target.saturating_add(1)),
            Event::Rebalance { tickets } => self.rebalance(now, tickets),
            Event::Reload { tickets, policy } => self.request_reload(now, tickets, policy),
            Event::Scale(workers) => self.scale(workers),
            Event::SpawnFailed { worker, reason } => self.spawn_failed(now, worker, reason),
            Event::Spawned { worker, pid } => self.spawned(worker, pid),
            Event::Stop(pace) => self.stop(now, pace),
            Event::Tick => {}
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let workers = self
            .slots
            .iter()
            .flat_map(Slot::workers)
            .filter_map(|worker| match worker.state {
                State::Ready { .. } if worker.quiet => Some(worker.beat_at + LAG_AFTER),
                State::Ready { .. } => Some(worker.beat_at + STEER_AFTER),
                State::Lagging { .. } => Some(worker.beat_at + self.hung_after()),
                State::Aborting { .. }
                | State::Booting { .. }
                | State::Draining { .. }
                | State::Exiting { .. }
                | State::Killed
                | State::Stopping { .. } => worker.state.deadline(),
            });
        let places = self.slots.iter().filter_map(|slot| match slot.place {
            Place::Backoff { until } => Some(until),
            Place::Empty | Place::Filled(_) | Place::Parked => None,
        });
        let probe = self.probe_stable_at();
        let boot = match self.phase {
            Phase::Booting { first_ready } => first_ready.map(|at| at + self.policy.boot_timeout),
            Phase::Ended | Phase::Serving | Phase::Stopping(_) | Phase::Waiting => None,
        };
        let retiring = self
            .slots
            .iter()
            .filter(|slot| slot.active())
            .filter_map(|slot| slot.retire_at);
        workers
            .chain(places)
            .chain(retiring)
            .chain(boot)
            .chain(probe)
            .chain(self.reload.deadline())
            .chain(self.giving_until())
            .min()
    }

    /// Slots whose worker serves.
    #[must_use]
    pub(crate) fn active(&self) -> usize {
        self.slots.iter().filter(|slot| slot.active()).count()
    }

    /// Whether another supervisor process may go on with it: nothing is under way that only this one
    /// could end.
    #[must_use]
    pub(crate) const fn is_movable(&self) -> bool {
        matches!(self.phase, Phase::Booting { .. } | Phase::Serving)
            && !self.reload.is_running()
            && self.rebalance.is_none()
    }

    /// Whether a request to stop was taken.
    #[must_use]
    pub(crate) const fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_) | Phase::Ended)
    }

    // === events ===

    fn begin(&mut self, now: Moment) {
        if self.phase != Phase::Waiting {
            return;
        }
        self.phase = Phase::Booting { first_ready: None };
        for slot in &mut self.slots {
            slot.place = Place::Backoff { until: now };
        }
    }

    fn spawned(&mut self, id: WorkerId, pid: i32) {
        if let Some(worker) = self.worker_mut(id) {
            worker.pid = Some(pid);
        }
    }

    fn spawn_failed(&mut self, now: Moment, id: WorkerId, reason: String) {
        if let Some(worker) = self.worker_mut(id) {
            worker.failure = Some(reason);
        }
        self.exited(now, id, End::Code(i32::from(Exit::Internal.code())));
    }

    fn heard(&mut self, now: Moment, id: WorkerId, message: ToSupervisor) {
        let Some((slot_id, seat)) = self.seat(id) else { return };
        let boot_timeout = self.policy.boot_timeout;
        let Some(worker) = self.worker_mut(id) else { return };
        worker.beat_at = now;
        match message {
            ToSupervisor::Beat(beat) => *worker.beat = beat,
            ToSupervisor::Waiting { reason } => {
                // Killing it would not bring Redis back. A reload is not held up by that, it fails.
                if let State::Booting { deadline } = &mut worker.state {
                    worker.failure = Some(reason).filter(|reason| !reason.is_empty());
                    if seat == Seat::Place {
                        *deadline = now + boot_timeout;
                    }
                }
            }
            // The shell's.
            ToSupervisor::Metrics(_) | ToSupervisor::Scrape { .. } => {}
            ToSupervisor::Given(report) => self.given(now, id, &report),
            ToSupervisor::Drained { closed, cut } => {
                let notice = WorkerNotice::Drained { closed, cut };
                let pid = worker.pid;
                self.actions.push(Action::Tell(Notice::Worker(slot_id, pid, notice)));
            }
            ToSupervisor::Failed { code, reason } => {
                worker.failure = Some(reason.clone());
                let (pid, notice) = (worker.pid, WorkerNotice::GivesUp { code, reason });
                self.actions.push(Action::Tell(Notice::Worker(slot_id, pid, notice)));
            }
            ToSupervisor::Ready { version } => {
                worker.version = Some(version);
                if matches!(worker.state, State::Booting { .. }) {
                    worker.state = State::Ready { since: now };
                    worker.was_ready = true;
                    worker.failure = None;
                    let notice = WorkerNotice::Ready {
                        generation: worker.generation,
                        boot: now.saturating_sub(worker.born),
                    };
                    let pid = worker.pid;
                    self.actions.push(Action::Tell(Notice::Worker(slot_id, pid, notice)));
                    if let Phase::Booting { first_ready } = &mut self.phase {
                        first_ready.get_or_insert(now);
                    }
                    match seat {
                        Seat::Incoming => self.incoming_ready(now, slot_id),
                        // Its forerunner may have died while it was given connections.
                        Seat::Place => self.hand_over_again(now, slot_id, &[(id, u64::MAX)]),
                        Seat::Leaving(_) => {}
                    }
                }
            }
        }
    }

    fn hung_up(&mut self, now: Moment, id: WorkerId) {
        let Some(worker) = self.worker_mut(id) else { return };
        match worker.state {
            State::Booting { .. } | State::Ready { .. } | State::Lagging { .. } => {
                worker.state = State::Exiting {
                    kill_at: now + FAST_GRACE,
                };
            }
            State::Aborting { .. }
            | State::Draining { .. }
            | State::Exiting { .. }
            | State::Killed
            | State::Stopping { .. } => {}
        }
    }

    /// The supervisor was late and could receive no beats, so no worker counts as silent.
    fn forgive(&mut self, now: Moment, by: std::time::Duration) {
        self.reload.prolong_soak(by);
        for worker in self.slots.iter_mut().flat_map(Slot::workers_mut) {
            worker.beat_at = now;
            if let State::Booting { deadline } = &mut worker.state {
                *deadline += by;
            }
        }
    }

    fn exited(&mut self, now: Moment, id: WorkerId, end: End) {
        let Some((slot_id, seat)) = self.seat(id) else {
            let worker = id.number();
            return self
                .actions
                .push(Action::Tell(Notice::Fleet(FleetNotice::UnknownWorkerExited { worker })));
        };
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == slot_id) else {
            return;
        };
        let worker = match seat {
            Seat::Incoming => slot.incoming.take(),
            Seat::Leaving(index) => Some(slot.leaving.remove(index)),
            Seat::Place => match std::mem::replace(&mut slot.place, Place::Empty) {
                Place::Filled(worker) => Some(worker),
                Place::Backoff { .. } | Place::Empty | Place::Parked => None,
            },
        };
        let Some(worker) = worker else { return };
        let reason = worker.exit_reason(end);
        slot.last_exit = Some(reason.clone());
        self.not_awaited(now, id);
        let notice = self.exit_notice(slot_id, &worker, end, reason.clone());
        self.actions.push(Action::Tell(notice));
        self.actions.push(Action::AnnounceGone {
            worker: id,
            slot: slot_id,
        });
        if matches!(self.phase, Phase::Stopping(_)) {
            return;
        }
        if seat == Seat::Place {
            let successors = self.successors_beside(slot_id);
            self.hand_over_again(now, slot_id, &successors);
        }
        match seat {
            Seat::Leaving(_) => {}
            Seat::Incoming => self.incoming_failed(now, slot_id, worker.generation, &reason),
            Seat::Place => self.crashed(now, slot_id, &worker, end, reason),
        }
    }

    /// The worker in the place of a slot ended without being asked to.
    fn crashed(&mut self, now: Moment, slot_id: SlotId, worker: &Worker, end: End, reason: String) {
        let exit = match end {
            End::Code(code) => Exit::from_code(code),
            End::Signal(_) => None,
        };
        let first_boot = matches!(self.phase, Phase::Booting { first_ready: None });
        if exit == Some(Exit::Config) && first_boot {
            let notice = FleetNotice::ConfigurationCannotWork { reason: reason.clone() };
            self.actions.push(Action::Tell(Notice::Fleet(notice)));
            return self.give_up(now, Exit::Config, reason);
        }
        let cause = if exit == Some(Exit::Dependency) {
            Cause::Dependency
        } else {
            Cause::Crash
        };
        let slots = self.slots.len();

        self.count_restart(worker, exit, end);
        let stable = now.saturating_sub(worker.born) >= STABLE_AFTER && worker.was_ready;
        if !stable {
            self.newcomer_died(now, slot_id, worker.generation, &reason);
        }
        if cause == Cause::Crash && !stable && self.breaker.count(now, worker.was_ready, slots) {
            self.actions
                .push(Action::Tell(Notice::Fleet(FleetNotice::CrashLoop { reason })));
        }
        let retiring = slot_id.number() >= self.target;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == slot_id) else {
            return;
        };
        slot.restarts += 1;
        if retiring || slot.incoming.is_some() {
            return;
        }
        if self.breaker.is_open() {
            // Who retries, and when, is for `govern` to say.
            slot.place = Place::Parked;
            return;
        }
        let wait = if stable {
            slot.deaths = 0;
            jitter(&mut self.rng)
        } else {
            let wait = backoff(&mut self.rng, slot.deaths, cause);
            slot.deaths = slot.deaths.saturating_add(1);
            wait
        };
        slot.place = Place::Backoff { until: now + wait };
        let slot = slot_id;
        self.actions
            .push(Action::Tell(Notice::Fleet(FleetNotice::RespawnDue { slot, wait })));
    }

    fn scale(&mut self, workers: u16) {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ended) {
            return;
        }
        let workers = workers.clamp(1, SLOTS_MAX);
        if workers != self.target {
            let (from, to) = (self.target, workers);
            self.actions
                .push(Action::Tell(Notice::Fleet(FleetNotice::SlotsChange { from, to })));
            self.target = workers;
        }
    }

    // === small things that others need ===

    /// Names a worker and asks for its process.
    pub(super) fn spawn(
        &mut self,
        now: Moment,
        slot: SlotId,
        generation: Generation,
        boot_timeout: std::time::Duration,
    ) -> Worker {
        self.spawns += 1;
        let mut worker = Worker::new(WorkerId(self.spawns), generation, now, boot_timeout);
        // All of the same age must not go together.
        worker.jitter = 0.9 + self.rng.f64() / 5.0;
        self.actions.push(Action::Spawn {
            worker: worker.id,
            slot,
            generation,
            workers: self.target,
        });
        worker
    }

    pub(super) fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.slots
            .iter_mut()
            .flat_map(Slot::workers_mut)
            .find(|worker| worker.id == id)
    }

    pub(super) fn seat(&self, id: WorkerId) -> Option<(SlotId, Seat)> {
        self.slots.iter().find_map(|slot| {
            let seat = if slot.current().is_some_and(|worker| worker.id == id) {
                Some(Seat::Place)
            } else if slot.incoming.as_ref().is_some_and(|worker| worker.id == id) {
                Some(Seat::Incoming)
            } else {
                slot.leaving
                    .iter()
                    .position(|worker| worker.id == id)
                    .map(Seat::Leaving)
            };
            seat.map(|seat| (slot.id, seat))
        })
    }
}

/// The random sequence continues where it was.
mod seed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(rng: &fastrand::Rng, to: S) -> Result<S::Ok, S::Error> {
        rng.get_seed().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<fastrand::Rng, D::Error> {
        u64::deserialize(from).map(fastrand::Rng::with_seed)
    }
}

/// Whole milliseconds, for log fields.
pub(super) fn saturating_ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
