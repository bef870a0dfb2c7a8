//! A slot and the workers in it.

use super::{ABORT_GRACE, End, FAST_GRACE, Generation, Moment, SlotId, WorkerId};
use boot::Beat;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One numbered place, with its own listeners.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    /// What a respawn runs.
    pub(super) generation: Generation,
    /// Who serves, or what is waited for.
    pub(super) place: Place,
    /// During a reload: the worker that boots to take the place.
    pub(super) incoming: Option<Worker>,
    /// Workers that are on their way out; every one has a deadline.
    pub(super) leaving: Vec<Worker>,
    /// Deaths in a row; a stable worker resets it.
    pub(super) deaths: u32,
    /// Workers that ended without being asked to.
    pub(super) restarts: u64,
    /// How the last worker of this slot ended.
    pub(super) last_exit: Option<String>,
    /// Since when its worker has heard nothing of the log although others do: no new connections.
    #[serde(default, rename = "deaf_since")]
    pub(super) log_stalled_since: Option<Moment>,
    /// When the worker of a slot that is to go is drained.
    pub(super) retire_at: Option<Moment>,
}

/// What is in the place of a slot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Place {
    /// A respawn waits for its time.
    Backoff { until: Moment },
    /// No process runs and none is scheduled to start (a reload's `incoming` is, or the fleet stops).
    Empty,
    /// A worker.
    Filled(Worker),
    /// The breaker is open and another slot probes.
    Parked,
}

/// One worker, from spawn to reap.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) generation: Generation,
    pub(super) pid: Option<i32>,
    pub(super) born: Moment,
    pub(super) state: State,
    /// Its latest words about itself.
    pub(super) beat: Box<Beat>,
    /// When it was last heard.
    pub(super) beat_at: Moment,
    /// Its share of the configured age.
    pub(super) jitter: f64,
    /// It has not been heard for a while: no new connections.
    pub(super) quiet: bool,
    /// It was ready once.
    pub(super) was_ready: bool,
    /// It gives its connections to another worker, and says so by then.
    #[serde(default)]
    pub(super) giving: Option<Moment>,
    /// What its binary calls itself.
    pub(super) version: Option<String>,
    /// What it said before it gave up, or what it waits for.
    pub(super) failure: Option<String>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Not ready yet.
    Booting { deadline: Moment },
    /// Serves.
    Ready { since: Moment },
    /// Serves, but its event loop is silent: no new connections.
    Lagging { since: Moment },
    /// Hung: `SIGABRT` was sent.
    Aborting { kill_at: Moment },
    /// It closed its control socket; most often it is dead already and its exit follows.
    Exiting { kill_at: Moment },
    /// Told to drain.
    Draining { deadline: Moment },
    /// Told to stop now.
    Stopping { deadline: Moment },
    /// `SIGKILL` was sent.
    Killed,
}

impl State {
    /// The glossary word, for `status` and logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Booting { .. } => "booting",
            Self::Ready { .. } => "ready",
            Self::Lagging { .. } => "lagging",
            Self::Aborting { .. } => "aborting",
            Self::Exiting { .. } => "exiting",
            Self::Draining { .. } => "draining",
            Self::Stopping { .. } => "stopping",
            Self::Killed => "killed",
        }
    }

    /// Serves clients.
    pub(super) const fn active(self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Lagging { .. })
    }

    /// When it must have ended, or got further; `None` for serving and killed workers.
    pub(super) const fn deadline(self) -> Option<Moment> {
        match self {
            Self::Booting { deadline } | Self::Draining { deadline } | Self::Stopping { deadline } => Some(deadline),
            Self::Aborting { kill_at } | Self::Exiting { kill_at } => Some(kill_at),
            Self::Ready { .. } | Self::Lagging { .. } | Self::Killed => None,
        }
    }
}

impl Worker {
    pub(super) fn new(id: WorkerId, generation: Generation, now: Moment, boot_timeout: Duration) -> Self {
        Self {
            id,
            generation,
            pid: None,
            born: now,
            state: State::Booting {
                deadline: now + boot_timeout,
            },
            beat: Box::default(),
            beat_at: now,
            jitter: 1.0,
            quiet: false,
            was_ready: false,
            giving: None,
            version: None,
            failure: None,
        }
    }

    /// It serves, and reports that it should get no new clients now; before its first beat it has reported ready.
    pub(super) fn is_unready(&self) -> bool {
        let silent = *self.beat == Beat::default();
        matches!(self.state, State::Ready { .. }) && !silent && !(self.beat.ready && self.beat.failing.is_empty())
    }

    /// How it ended, with its own last words.
    pub(super) fn exit_reason(&self, end: End) -> String {
        match &self.failure {
            Some(reason) => format!("{end}: {reason}"),
            None => end.to_string(),
        }
    }

    /// It was told to stop now, or will be killed soon anyway.
    pub(super) fn stopping(&mut self, now: Moment) -> bool {
        match self.state {
            State::Aborting { .. } | State::Exiting { .. } | State::Killed | State::Stopping { .. } => false,
            State::Booting { .. } | State::Ready { .. } | State::Lagging { .. } | State::Draining { .. } => {
                self.state = State::Stopping {
                    deadline: now + FAST_GRACE,
                };
                true
            }
        }
    }

    /// It gets `SIGABRT` now.
    pub(super) fn aborting(&mut self, now: Moment) {
        self.state = State::Aborting {
            kill_at: now + ABORT_GRACE,
        };
    }
}

impl Slot {
    pub(super) fn new(id: SlotId, generation: Generation) -> Self {
        Self {
            id,
            generation,
            place: Place::Empty,
            incoming: None,
            leaving: Vec::new(),
            deaths: 0,
            restarts: 0,
            last_exit: None,
            log_stalled_since: None,
            retire_at: None,
        }
    }

    /// The worker in the place.
    pub(super) fn current(&self) -> Option<&Worker> {
        match &self.place {
            Place::Filled(worker) => Some(worker),
            Place::Backoff { .. } | Place::Empty | Place::Parked => None,
        }
    }

    /// All its workers: serving, booting, leaving.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.current().into_iter().chain(&self.incoming).chain(&self.leaving)
    }

    /// All its workers: serving, booting, leaving.
    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let current = match &mut self.place {
            Place::Filled(worker) => Some(worker),
            Place::Backoff { .. } | Place::Empty | Place::Parked => None,
        };
        current.into_iter().chain(&mut self.incoming).chain(&mut self.leaving)
    }

    /// Whether a worker serves here.
    pub(super) fn active(&self) -> bool {
        self.current().is_some_and(|worker| worker.state.active())
    }

    /// Whether its worker drains.
    pub(super) fn drains(&self) -> bool {
        self.current()
            .is_some_and(|worker| matches!(worker.state, State::Draining { .. }))
    }

    /// Whether new connections are to come here.
    pub(super) fn steerable(&self) -> bool {
        self.retire_at.is_none()
            && self.log_stalled_since.is_none()
            && self
                .current()
                .is_some_and(|worker| matches!(worker.state, State::Ready { .. }) && !worker.quiet)
    }
}
