//! The rolling reload: slot by slot, the new worker ready before the old one drains.

use super::breaker::{Cause, backoff, jitter};
use super::machine::Fleet;
use super::notice::{FleetNotice, Notice};
use super::slot::{Place, Slot, State, Worker};
use super::snapshot::Progress;
use super::{Action, Generation, LEAVING_PATIENCE, Moment, Policy, SOAK_RETRY, SlotId, Ticket};

/// The reload that runs, and the one that waits.
#[derive(Debug, Default)]
pub(super) struct Reload {
    roll: Option<Roll>,
    /// All requests that came during a reload: one more reload after it.
    waiting: Option<Waiting>,
}

/// A reload in progress.
#[derive(Debug)]
struct Roll {
    /// What every slot is to run.
    to: Generation,
    /// Of `to`.
    policy: Policy,
    tickets: Vec<Ticket>,
    direction: Direction,
    /// Workers that an earlier reload drained have gone by then, or are cut short.
    hurry_at: Moment,
}

/// Whether the fleet moves to a new generation, or back to the one that worked.
#[derive(Debug)]
enum Direction {
    Forward {
        soak: Soak,
    },
    /// Replaced slots get their old settings back.
    Back {
        /// What went wrong.
        reason: String,
        /// What is being left.
        failed: Generation,
        /// The next try, when even the old settings did not get ready.
        retry_at: Moment,
    },
}

/// How far the canary, the first new worker of a reload, has proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Soak {
    /// It is not ready yet.
    Due,
    /// It is ready and serves beside the old worker of its slot.
    Until {
        /// Looked at again.
        at: Moment,
        /// Ready by then or failed.
        give_up: Moment,
    },
    /// It took its place: the other slots follow.
    Done,
}

#[derive(Debug)]
struct Waiting {
    policy: Policy,
    tickets: Vec<Ticket>,
}

impl Reload {
    pub(super) const fn is_running(&self) -> bool {
        self.roll.is_some()
    }

    /// The supervisor slept: what the canary did meanwhile is still to be heard.
    pub(super) fn prolong_soak(&mut self, by: std::time::Duration) {
        if let Some(Roll {
            direction: Direction::Forward {
                soak: Soak::Until { at, give_up },
            },
            ..
        }) = &mut self.roll
        {
            *at += by;
            *give_up += by;
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let roll = self.roll.as_ref()?;
        match &roll.direction {
            Direction::Back { retry_at, .. } if *retry_at > Moment::ZERO => Some(*retry_at),
            Direction::Forward {
                soak: Soak::Until { at, .. },
            } => Some(*at),
            Direction::Forward { soak: Soak::Due } => Some(roll.hurry_at).filter(|at| *at < Moment::MAX),
            Direction::Back { .. } | Direction::Forward { .. } => None,
        }
    }
}

impl Fleet {
    /// How far the reload is that runs.
    pub(super) fn reload_progress(&self) -> Option<Progress> {
        let roll = self.reload.roll.as_ref()?;
        let stage = match roll.direction {
            Direction::Forward { soak: Soak::Done } => "replacing",
            // Without a time to soak no worker is a canary.
            Direction::Forward { .. } if roll.policy.soak.is_zero() => "replacing",
            Direction::Forward { .. } => "canary",
            Direction::Back { .. } => "back",
        };
        let slots = self.slots.iter().take(usize::from(self.target));
        let done = slots.filter(|slot| slot.generation == roll.to).count();
        Some(Progress {
            to: roll.to.number(),
            stage,
            done: u16::try_from(done).unwrap_or(u16::MAX),
            slots: self.target,
        })
    }

    /// A checked configuration is there.
    pub(super) fn request_reload(&mut self, now: Moment, tickets: Vec<Ticket>, policy: Policy) {
        if self.is_stopping() {
            let outcome = Err("the supervisor stops".to_owned());
            self.actions.push(Action::ReloadEnded { tickets, outcome });
        } else if self.reload.is_running() {
            self.actions.push(Action::Tell(Notice::Fleet(FleetNotice::ReloadWaits)));
            let waiting = self.reload.waiting.get_or_insert(Waiting {
                policy,
                tickets: Vec::new(),
            });
            waiting.policy = policy;
            waiting.tickets.extend(tickets);
        } else {
            self.start_reload(now, policy, tickets);
        }
    }

    fn start_reload(&mut self, now: Moment, policy: Policy, tickets: Vec<Ticket>) {
        let to = Generation(self.generation_last.0 + 1);
        self.generation_last = to;
        let from = self.generation;
        self.actions
            .push(Action::Tell(Notice::Fleet(FleetNotice::ReloadBegins { from, to })));
        self.actions.push(Action::Adopt { generation: to });
        self.actions.push(Action::ReloadStarted);
        self.handover = Some(boot::Handover::default());
        self.reload.roll = Some(Roll {
            to,
            policy,
            tickets,
            direction: Direction::Forward { soak: Soak::Due },
            hurry_at: now + LEAVING_PATIENCE,
        });
    }

    /// Generations that can be spawned from: what runs, and what a reload goes to or comes from.
    pub(super) fn spawnable(&self) -> Vec<Generation> {
        let mut generations = vec![self.generation];
        if let Some(roll) = &self.reload.roll {
            generations.push(roll.to);
            if let Direction::Back { failed, .. } = roll.direction {
                generations.push(failed);
            }
        }
        generations
    }

    /// Starts the next new worker if none boots; ends the reload after the last slot.
    pub(super) fn advance_reload(&mut self, now: Moment) {
        self.end_soak(now);
        let Some(roll) = &mut self.reload.roll else { return };
        if let Direction::Back { retry_at, .. } = &mut roll.direction {
            if now < *retry_at {
                return;
            }
            *retry_at = Moment::ZERO;
        }
        let (to, boot_timeout) = (roll.to, roll.policy.boot_timeout);
        let kept = [self.generation, to];
        // No third generation stays alive, and no client is to notice that: workers that drain from an earlier reload are awaited,
        // unless it takes too long.
        let hurry = now >= roll.hurry_at;
        if hurry {
            roll.hurry_at = Moment::MAX;
        }
        // One after the other: a worker that boots beside two that hand over would slow them down, and what came of it
        // belongs to the outcome.
        let wait = match roll.direction {
            Direction::Forward { .. } => self
                .slots
                .iter()
                .flat_map(Slot::workers)
                .any(|worker| !kept.contains(&worker.generation) || worker.giving.is_some()),
            Direction::Back { .. } => false,
        };
        if wait && hurry {
            self.hurry_leaving(now, &kept);
        }
        if wait || self.slots.iter().any(|slot| slot.incoming.is_some()) {
            return;
        }
        let target = usize::from(self.target);
        let Some(id) = self
            .slots
            .iter()
            .take(target)
            .find(|slot| slot.generation != to)
            .map(|slot| slot.id)
        else {
            return self.finish_reload(now);
        };
        let booting = self
            .slot_mut(id)
            .is_some_and(|slot| slot.current().is_some_and(|worker| !worker.state.active()));
        if booting {
            self.unseat(now, id, &[]);
        }
        let worker = self.spawn(now, id, to, boot_timeout);
        if let Some(slot) = self.slot_mut(id) {
            if matches!(slot.place, Place::Backoff { .. } | Place::Parked) {
                slot.place = Place::Empty;
            }
            slot.incoming = Some(worker);
        }
    }

    /// The new worker of a slot is ready. The first one of a reload has to stay so for a while, beside
    /// the old one, before any client depends on it alone.
    pub(super) fn incoming_ready(&mut self, now: Moment, id: SlotId) {
        let generation = self
            .slot_mut(id)
            .and_then(|slot| slot.incoming.as_ref())
            .map(|worker| worker.generation);
        if let Some(Roll {
            direction: Direction::Forward { soak },
            policy,
            to,
            ..
        }) = &mut self.reload.roll
            && generation == Some(*to)
            && *soak == Soak::Due
            && !policy.soak.is_zero()
        {
            let at = now + policy.soak;
            let give_up = at + policy.boot_timeout;
            *soak = Soak::Until { at, give_up };
            return self
                .actions
                .push(Action::Tell(Notice::Fleet(FleetNotice::CanarySoaks { slot: id })));
        }
        self.seat_incoming(now, id);
    }

    /// A canary that has stayed ready takes its place.
    fn end_soak(&mut self, now: Moment) {
        let Some(Roll {
            direction: Direction::Forward { soak },
            ..
        }) = &mut self.reload.roll
        else {
            return;
        };
        let Soak::Until { at, give_up } = *soak else { return };
        if now < at {
            return;
        }
        let slots = &mut self.slots;
        let canary = slots.iter().find_map(|slot| Some((slot.id, slot.incoming.as_ref()?)));
        let Some((id, canary)) = canary else {
            // Its slot retired meanwhile.
            *soak = Soak::Due;
            return;
        };
        let (generation, faults) = (canary.generation, faults(canary, slots));
        if matches!(canary.state, State::Ready { .. }) && faults.is_empty() {
            *soak = Soak::Done;
            return self.seat_incoming(now, id);
        }
        *soak = Soak::Until {
            at: now + SOAK_RETRY,
            give_up,
        };
        let canary = slots.iter_mut().find_map(|slot| slot.incoming.as_mut());
        if now >= give_up
            && let Some(worker) = canary
            && worker.state.active()
        {
            let reason = if faults.is_empty() {
                "did not stay ready".to_owned()
            } else {
                format!("did not stay ready, /api/ready fails: {faults}")
            };
            worker.failure = Some(reason.clone());
            worker.aborting(now);
            self.actions.push(Action::Abort { worker: worker.id });
            if let Some(slot) = self.slot_mut(id) {
                let worker = slot.incoming.take();
                slot.leaving.extend(worker);
            }
            self.incoming_failed(now, id, generation, &reason);
        }
    }

    /// The new worker of a slot is ready: it takes the place, and the connections of the old one, which
    /// drains what is left.
    pub(super) fn seat_incoming(&mut self, now: Moment, id: SlotId) {
        let incoming = self.slot_mut(id).and_then(|slot| slot.incoming.as_ref());
        let successor = incoming.map(|worker| (worker.id, u64::MAX));
        // Of the place's former worker, if it died while it was given connections, and of the present one.
        self.hand_over_again(now, id, successor.as_slice());
        self.unseat(now, id, successor.as_slice());
        if let Some(slot) = self.slot_mut(id)
            && let Some(worker) = slot.incoming.take()
        {
            slot.generation = worker.generation;
            slot.deaths = 0;
            slot.place = Place::Filled(worker);
        }
    }

    /// A worker ended that had taken its place not long ago; if this reload brought it, that fails.
    pub(super) fn newcomer_died(&mut self, now: Moment, id: SlotId, generation: Generation, reason: &str) {
        let brought = self
            .reload
            .roll
            .as_ref()
            .is_some_and(|roll| matches!(roll.direction, Direction::Forward { .. }) && roll.to == generation);
        if brought {
            self.incoming_failed(now, id, generation, reason);
        }
    }

    /// The new worker of a slot did not get ready, or did not stay so.
    pub(super) fn incoming_failed(&mut self, now: Moment, id: SlotId, failed: Generation, reason: &str) {
        let generation = self.generation;
        let Some(roll) = self.reload.roll.as_mut().filter(|roll| roll.to == failed) else {
            self.not_recycled(now, id, reason);
            return self.refill_vacated(now);
        };
        let reason = format!("slot {id}, generation {}: {reason}", roll.to);
        match &mut roll.direction {
            Direction::Forward { .. } => {
                let notice = FleetNotice::ReloadFailed { reason: reason.clone() };
                self.actions.push(Action::Tell(Notice::Fleet(notice)));
                let failed = std::mem::replace(&mut roll.to, generation);
                roll.policy = self.policy;
                roll.direction = Direction::Back {
                    reason,
                    failed,
                    retry_at: Moment::ZERO,
                };
            }
            Direction::Back {
                reason: first,
                retry_at,
                ..
            } => {
                let notice = FleetNotice::RollbackRetried { reason: reason.clone() };
                self.actions.push(Action::Tell(Notice::Fleet(notice)));
                let deaths = self
                    .slots
                    .iter()
                    .find(|slot| slot.id == id)
                    .map_or(0, |slot| slot.deaths);
                *retry_at = now + backoff(&mut self.rng, deaths, Cause::Crash);
                let tickets = std::mem::take(&mut roll.tickets);
                let outcome = Err(format!("{first}; the rollback is being retried: {reason}"));
                self.actions.push(Action::ReloadEnded { tickets, outcome });
                if let Some(slot) = self.slot_mut(id) {
                    slot.deaths = slot.deaths.saturating_add(1);
                }
            }
        }
        self.refill_vacated(now);
    }

    /// Places that a reload has emptied get a worker again.
    fn refill_vacated(&mut self, now: Moment) {
        let target = usize::from(self.target);
        for slot in self.slots.iter_mut().take(target) {
            if matches!(slot.place, Place::Empty) && slot.incoming.is_none() {
                slot.place = Place::Backoff {
                    until: now + jitter(&mut self.rng),
                };
            }
        }
    }

    fn finish_reload(&mut self, now: Moment) {
        let Some(roll) = self.reload.roll.take() else { return };
        let Roll {
            to,
            policy,
            tickets,
            direction,
            hurry_at: _,
        } = roll;
        let outcome = match direction {
            Direction::Forward { .. } => {
                self.actions.push(Action::Forget {
                    generation: self.generation,
                });
                self.generation = to;
                self.policy = policy;
                self.target = policy.workers;
                self.breaker.reset();
                self.slots
                    .iter_mut()
                    .filter(|slot| matches!(slot.place, Place::Parked))
                    .for_each(unpark);
                let generation = to;
                self.actions
                    .push(Action::Tell(Notice::Fleet(FleetNotice::ReloadCompleted { generation })));
                Ok(to)
            }
            Direction::Back { reason, failed, .. } => {
                self.actions.push(Action::Forget { generation: failed });
                let generation = to;
                self.actions
                    .push(Action::Tell(Notice::Fleet(FleetNotice::FormerGenerationRuns {
                        generation,
                    })));
                Err(reason)
            }
        };
        self.actions.push(Action::ReloadEnded { tickets, outcome });
        self.refill_vacated(now);
        if let Some(Waiting { policy, tickets }) = self.reload.waiting.take() {
            self.start_reload(now, policy, tickets);
        }
    }

    /// Nothing waits for the reload any longer.
    pub(super) fn abandon_reload(&mut self, reason: &str) {
        let running = self.reload.roll.take().map(|roll| roll.tickets);
        let waiting = self.reload.waiting.take().map(|waiting| waiting.tickets);
        if running.is_some() || waiting.is_some() {
            let tickets = running.into_iter().chain(waiting).flatten().collect();
            self.actions.push(Action::ReloadEnded {
                tickets,
                outcome: Err(reason.to_owned()),
            });
        }
    }
}

/// What a canary says against itself, by name; empty is good. A configured check counts if it passes beside it: a
/// dependency that is down anyway must not keep the configuration from being changed. Without Redis or the log no client is
/// served.
fn faults(canary: &Worker, slots: &[Slot]) -> String {
    let failing = &canary.beat.failing;
    if !canary.beat.ready {
        // One of an older build, or before its first beat, names nothing.
        return if failing.is_empty() {
            "redis or log".to_owned()
        } else {
            failing.join(", ")
        };
    }
    let serving = slots.iter().filter(|slot| slot.active()).filter_map(Slot::current);
    let serving: Vec<&Worker> = serving.collect();
    let fails_anyway = |name: &String| serving.iter().any(|worker| worker.beat.failing.contains(name));
    let new = failing.iter().filter(|name| !fails_anyway(name));
    let new: Vec<&str> = new.map(String::as_str).collect();
    if serving.is_empty() {
        String::new()
    } else {
        new.join(", ")
    }
}

fn unpark(slot: &mut Slot) {
    slot.place = Place::Backoff { until: Moment::ZERO };
}
