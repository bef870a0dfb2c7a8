//! Stopping: of one worker, and of the whole fleet.

use super::machine::{Fleet, Phase};
use super::notice::{FleetNotice, Notice, WorkerNotice};
use super::slot::{Place, Slot, State, Worker};
use super::{Action, Generation, KILL_MARGIN, Moment, Pace, SlotId, WorkerId};
use boot::{Exit, ToWorker};
use std::time::Duration;

/// A stop in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    level: Level,
    code: Exit,
    reason: Option<String>,
}

/// How hard; only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Graceful,
    Fast,
    Kill,
}

impl Fleet {
    /// Asked to stop, or asked again.
    pub(super) fn stop(&mut self, now: Moment, pace: Pace) {
        let (level, code, reason) = match (&self.phase, pace) {
            (Phase::Ended, _) => return,
            (Phase::Stopping(stop), _) => {
                let level = if stop.level == Level::Graceful {
                    Level::Fast
                } else {
                    Level::Kill
                };
                (level, stop.code, stop.reason.clone())
            }
            (Phase::Booting { .. } | Phase::Serving | Phase::Waiting, Pace::Graceful { .. }) => {
                (Level::Graceful, Exit::Done, None)
            }
            (Phase::Booting { .. } | Phase::Serving | Phase::Waiting, Pace::Fast) => (Level::Fast, Exit::Done, None),
        };
        let name = match level {
            Level::Graceful => "Graceful",
            Level::Fast => "Fast",
            Level::Kill => "Kill",
        };
        self.actions
            .push(Action::Tell(Notice::Fleet(FleetNotice::Stops { level: name })));
        let last = matches!(pace, Pace::Graceful { last: true });
        self.enter_stop(now, Stop { level, code, reason }, last);
    }

    /// Continuing makes no sense.
    pub(super) fn give_up(&mut self, now: Moment, code: Exit, reason: String) {
        self.enter_stop(
            now,
            Stop {
                level: Level::Fast,
                code,
                reason: Some(reason),
            },
            true,
        );
    }

    /// `last` is told to workers that drain.
    fn enter_stop(&mut self, now: Moment, stop: Stop, last: bool) {
        let level = stop.level;
        self.phase = Phase::Stopping(stop);
        self.abandon_reload("the supervisor stops");
        let (grace, notice) = (self.policy.grace, self.policy.notice);
        for slot in &mut self.slots {
            if !matches!(slot.place, Place::Filled(_)) {
                slot.place = Place::Empty;
            }
            for worker in slot.workers_mut() {
                let action = match level {
                    Level::Graceful if worker.state.active() => Some(drain(worker, now, grace, notice, last)),
                    Level::Graceful if matches!(worker.state, State::Draining { .. }) => None,
                    Level::Graceful | Level::Fast => stop_now(worker, now),
                    Level::Kill => {
                        worker.state = State::Killed;
                        Some(Action::Kill { worker: worker.id })
                    }
                };
                self.actions.extend(action);
            }
        }
    }

    /// How long a stop may take, until the last worker is killed.
    #[must_use]
    pub(crate) fn stop_budget(&self) -> Duration {
        self.policy.grace + KILL_MARGIN
    }

    /// The worker in the place of this slot is to go: it drains if it serves, stops otherwise. Its
    /// connections go to the successors, at most this many to each.
    pub(super) fn unseat(&mut self, now: Moment, id: SlotId, successors: &[(WorkerId, u64)]) {
        let grace = self.policy.grace;
        let serving = self.slots.iter().find(|slot| slot.id == id && slot.active());
        if let Some(worker) = serving.and_then(Slot::current).map(|worker| worker.id) {
            self.hand_over(now, worker, successors);
        }
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) else {
            return;
        };
        if let Place::Filled(mut worker) = std::mem::replace(&mut slot.place, Place::Empty) {
            let action = if worker.state.active() {
                Some(drain(&mut worker, now, grace, Duration::ZERO, false))
            } else {
                stop_now(&mut worker, now)
            };
            self.actions.extend(action);
            slot.leaving.push(worker);
        }
    }

    /// Stops workers that still drain from a generation that is not kept.
    pub(super) fn hurry_leaving(&mut self, now: Moment, kept: &[Generation]) {
        for slot in &mut self.slots {
            for worker in &mut slot.leaving {
                if !kept.contains(&worker.generation)
                    && let Some(action) = stop_now(worker, now)
                {
                    self.actions.push(Action::Tell(Notice::Worker(
                        slot.id,
                        worker.pid,
                        WorkerNotice::CutShort,
                    )));
                    self.actions.push(action);
                }
            }
        }
    }

    /// When the last worker is reaped, the fleet ends.
    pub(super) fn end_if_empty(&mut self) {
        let Phase::Stopping(stop) = &self.phase else { return };
        if self.slots.iter().flat_map(Slot::workers).next().is_none() {
            self.actions.push(Action::Exit {
                code: stop.code,
                reason: stop.reason.clone(),
            });
            self.phase = Phase::Ended;
        }
    }
}

fn drain(worker: &mut Worker, now: Moment, grace: Duration, notice: Duration, last: bool) -> Action {
    worker.state = State::Draining {
        deadline: now + grace + KILL_MARGIN,
    };
    let grace_ms = super::machine::saturating_ms(grace);
    Action::Send {
        worker: worker.id,
        message: ToWorker::Drain {
            grace_ms,
            notice_ms: super::machine::saturating_ms(notice),
            last,
        },
    }
}

fn stop_now(worker: &mut Worker, now: Moment) -> Option<Action> {
    worker.stopping(now).then_some(Action::Send {
        worker: worker.id,
        message: ToWorker::Stop,
    })
}
