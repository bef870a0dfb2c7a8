//! Bringing everything up to date after each event: deadlines, slots, breaker, respawns, steering.

use super::breaker::jitter;
use super::machine::{Fleet, Phase, Seat};
use super::notice::{FleetNotice, Notice, WorkerNotice};
use super::slot::{Place, Slot, State};
use super::{
    Action, BACKOFF_MAX, HUNG_AFTER, HUNG_TOGETHER_AFTER, LAG_AFTER, Moment, PROBE_STABLE_AFTER, RETIRE_SETTLE,
    STEER_AFTER, SlotId, WorkerId,
};

impl Fleet {
    pub(super) fn settle(&mut self, now: Moment) {
        self.expire(now);
        self.expire_handovers(now);
        if matches!(self.phase, Phase::Booting { .. } | Phase::Serving) {
            self.resize(now);
            self.advance_reload(now);
            self.govern(now);
            self.refill(now);
            self.recycle(now);
            self.steer(now);
            self.announce_serving(now);
            self.lend();
        } else if matches!(self.phase, Phase::Stopping(_)) {
            self.steer(now);
        }
        self.end_if_empty();
    }

    /// More than half of the serving workers are silent: the host is, not they.
    pub(super) fn hung_after(&self) -> std::time::Duration {
        let lagging = |slot: &&Slot| slot.current().is_some_and(|w| matches!(w.state, State::Lagging { .. }));
        let silent = self.slots.iter().filter(lagging).count();
        if silent >= 2 && silent * 2 > self.active() {
            HUNG_TOGETHER_AFTER
        } else {
            HUNG_AFTER
        }
    }

    fn expire(&mut self, now: Moment) {
        let hung_after = self.hung_after();
        let heard = self.log_is_heard();
        let mut late = Vec::new();
        for slot in &mut self.slots {
            let id = slot.id;
            let stalled = heard && slot.current().is_some_and(|worker| worker.beat.log_stalled);
            slot.log_stalled_since = stalled.then(|| slot.log_stalled_since.unwrap_or(now));
            for worker in slot.workers_mut() {
                let silent = now.saturating_sub(worker.beat_at);
                worker.quiet = silent >= STEER_AFTER;
                match worker.state {
                    State::Ready { .. } if silent >= LAG_AFTER => {
                        worker.state = State::Lagging { since: now };
                        self.actions.push(Action::Tell(Notice::Worker(
                            id,
                            worker.pid,
                            WorkerNotice::Lags { silent },
                        )));
                    }
                    State::Lagging { since } if silent < LAG_AFTER => {
                        let lagged = now.saturating_sub(since);
                        worker.state = State::Ready { since: now };
                        self.actions.push(Action::Tell(Notice::Worker(
                            id,
                            worker.pid,
                            WorkerNotice::BeatsAgain { lagged },
                        )));
                    }
                    State::Lagging { .. } if silent >= hung_after => {
                        self.actions.push(Action::Tell(Notice::Worker(
                            id,
                            worker.pid,
                            WorkerNotice::Hung { silent },
                        )));
                        worker.aborting(now);
                        self.actions.push(Action::Abort { worker: worker.id });
                    }
                    State::Booting { deadline } if now >= deadline => late.push(worker.id),
                    State::Aborting { kill_at: deadline }
                    | State::Exiting { kill_at: deadline }
                    | State::Draining { deadline }
                    | State::Stopping { deadline }
                        if now >= deadline =>
                    {
                        let state = worker.state.name();
                        self.actions.push(Action::Tell(Notice::Worker(
                            id,
                            worker.pid,
                            WorkerNotice::KilledAtDeadline { state },
                        )));
                        worker.state = State::Killed;
                        self.actions.push(Action::Kill { worker: worker.id });
                    }
                    State::Aborting { .. }
                    | State::Booting { .. }
                    | State::Draining { .. }
                    | State::Exiting { .. }
                    | State::Killed
                    | State::Lagging { .. }
                    | State::Ready { .. }
                    | State::Stopping { .. } => {}
                }
            }
        }
        for id in late {
            self.boot_timed_out(now, id);
        }
    }

    fn boot_timed_out(&mut self, now: Moment, id: WorkerId) {
        let Some((slot_id, seat)) = self.seat(id) else { return };
        let Some(worker) = self.worker_mut(id) else { return };
        let generation = worker.generation;
        let mut reason = format!("not ready within {} ms", now.saturating_sub(worker.born).as_millis());
        if let Some(why) = worker.failure.take() {
            reason = format!("{reason}: {why}");
        }
        worker.failure = Some(reason.clone());
        worker.aborting(now);
        let (pid, notice) = (worker.pid, WorkerNotice::BootsTooLong { reason: reason.clone() });
        self.actions.push(Action::Tell(Notice::Worker(slot_id, pid, notice)));
        self.actions.push(Action::Abort { worker: id });
        if seat == Seat::Incoming {
            if let Some(slot) = self.slot_mut(slot_id) {
                let worker = slot.incoming.take();
                slot.leaving.extend(worker);
            }
            self.incoming_failed(now, slot_id, generation, &reason);
        }
    }

    /// Opens missing slots, retires those beyond the target, closes empty ones from the top.
    fn resize(&mut self, now: Moment) {
        while self.slots.len() < usize::from(self.target) {
            let Ok(number) = u16::try_from(self.slots.len()) else {
                break;
            };
            let mut slot = Slot::new(SlotId::new(number), self.generation);
            slot.place = Place::Backoff { until: now };
            self.actions.push(Action::Open { slot: slot.id });
            self.slots.push(slot);
        }
        for index in 0..self.slots.len() {
            let spawnable = self.spawnable();
            let Some(slot) = self.slots.get_mut(index) else { break };
            // A reload has passed it by: wanted again or not, its worker goes.
            let stale = slot.retire_at.is_some() && !spawnable.contains(&slot.generation);
            if index < usize::from(self.target) && !(stale && slot.active()) {
                if slot.retire_at.take().is_some() && matches!(slot.place, Place::Empty) {
                    slot.place = Place::Backoff { until: now };
                }
                if stale {
                    slot.generation = self.generation;
                }
                continue;
            }
            let retire_at = *slot.retire_at.get_or_insert(now + RETIRE_SETTLE);
            if let Some(mut worker) = slot.incoming.take() {
                let told = worker.stopping(now).then_some(Action::Send {
                    worker: worker.id,
                    message: boot::ToWorker::Stop,
                });
                self.actions.extend(told);
                slot.leaving.push(worker);
            }
            if now >= retire_at || !slot.active() {
                let id = SlotId::new(u16::try_from(index).unwrap_or(u16::MAX));
                let successors = self.successors_beside(id);
                self.unseat(now, id, &successors);
            }
        }
        while self.slots.len() > usize::from(self.target)
            && let Some(slot) = self.slots.last()
            && slot.workers().next().is_none()
        {
            self.actions.push(Action::Close { slot: slot.id });
            self.slots.pop();
        }
    }

    /// When the probe will have been ready for long enough.
    pub(super) fn probe_stable_at(&self) -> Option<Moment> {
        let probe = self.breaker.probe.filter(|_| self.breaker.is_open())?;
        let worker = self.slots.iter().find(|slot| slot.id == probe)?.current()?;
        match worker.state {
            State::Ready { since } => Some(since + PROBE_STABLE_AFTER),
            State::Aborting { .. }
            | State::Booting { .. }
            | State::Draining { .. }
            | State::Exiting { .. }
            | State::Killed
            | State::Lagging { .. }
            | State::Stopping { .. } => None,
        }
    }

    /// While the breaker is open, exactly one vacant slot is retried, at the cap.
    fn govern(&mut self, now: Moment) {
        if !self.breaker.is_open() {
            return;
        }
        let probe = self
            .breaker
            .probe
            .and_then(|id| self.slots.iter().find(|slot| slot.id == id));
        let recovered = self.probe_stable_at().is_some_and(|at| now >= at);
        if recovered {
            self.actions
                .push(Action::Tell(Notice::Fleet(FleetNotice::CrashLoopOver)));
            self.breaker.reset();
            for slot in &mut self.slots {
                if matches!(slot.place, Place::Parked) {
                    slot.place = Place::Backoff {
                        until: now + jitter(&mut self.rng),
                    };
                }
            }
            return;
        }
        let probing = probe.is_some_and(|slot| !matches!(slot.place, Place::Empty | Place::Parked));
        if !probing {
            let vacant = |slot: &Slot| matches!(slot.place, Place::Backoff { .. } | Place::Parked);
            // With every place filled, the youngest worker has to prove itself.
            let youngest = self
                .slots
                .iter()
                .max_by_key(|slot| slot.current().map(|worker| worker.born));
            self.breaker.probe = youngest.filter(|_| !self.slots.iter().any(vacant)).map(|slot| slot.id);
        }
        for slot in &mut self.slots {
            let vacant = matches!(slot.place, Place::Backoff { .. } | Place::Parked);
            if !vacant || self.breaker.probe == Some(slot.id) {
                continue;
            }
            if self.breaker.probe.is_none() {
                self.breaker.probe = Some(slot.id);
                let wait = BACKOFF_MAX.mul_f64(0.5 + self.rng.f64() / 2.0);
                slot.place = Place::Backoff { until: now + wait };
                let slot = slot.id;
                self.actions
                    .push(Action::Tell(Notice::Fleet(FleetNotice::SlotProbes { slot, wait })));
            } else {
                slot.place = Place::Parked;
            }
        }
    }

    /// Spawns what is due.
    fn refill(&mut self, now: Moment) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { break };
            let due = matches!(slot.place, Place::Backoff { until } if now >= until);
            if due && slot.incoming.is_none() && slot.retire_at.is_none() {
                let (id, generation) = (slot.id, slot.generation);
                let boot_timeout = self.policy.boot_timeout;
                let worker = self.spawn(now, id, generation, boot_timeout);
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.place = Place::Filled(worker);
                }
            }
        }
    }

    fn announce_serving(&mut self, now: Moment) {
        let Phase::Booting { first_ready: Some(at) } = self.phase else {
            return;
        };
        let full = self.active() >= usize::from(self.target);
        if full || self.breaker.is_open() || now >= at + self.policy.boot_timeout {
            self.phase = Phase::Serving;
            self.actions.push(Action::Serving);
        }
    }
}
