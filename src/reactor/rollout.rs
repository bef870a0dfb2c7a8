//! From a request to a new generation: configuration, then the new binary's own check, then the
//! fleet. Nothing of what serves is touched before both are good.

use super::{Reactor, Spec};
use crate::control::protocol::Answer;
use crate::fleet::{End, Event, Ticket};
use crate::sys::check::Check;
use tracing::{error, info};

/// Who wants a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A command: its number, and whether it waits for the end.
    Client { id: u64, wait: bool },
    /// `SIGHUP`.
    Signal,
}

/// A generation that may come: its binary is being checked.
#[derive(Debug)]
pub(super) struct Trial {
    check: Check,
    spec: Spec,
    askers: Vec<Asker>,
}

/// What is tried now, and who asked since: for all of them there is one more, because what is on
/// disk may have changed. Bounded by the clients of the control socket.
#[derive(Debug, Default)]
pub(super) struct Rollout {
    trial: Option<Trial>,
    later: Vec<Asker>,
    /// How the last request ended, for `status`.
    pub(super) last: Option<String>,
}

impl Rollout {
    /// When the check is killed.
    pub(super) fn deadline(&self) -> Option<crate::fleet::Moment> {
        self.trial.as_ref()?.check.deadline()
    }
}

impl Reactor {
    /// Somebody wants a reload.
    pub(super) fn reload(&mut self, asker: Asker) {
        if self.rollout.trial.is_none() {
            return self.try_next(vec![asker]);
        }
        if !self.rollout.later.contains(&asker) {
            self.rollout.later.push(asker);
        }
        info!("reload waits for the running check");
    }

    /// Kills a check that takes too long.
    pub(super) fn supervise_trial(&mut self, now: crate::fleet::Moment) {
        if let Some(trial) = &mut self.rollout.trial {
            trial.check.turn(now);
        }
    }

    fn try_next(&mut self, askers: Vec<Asker>) {
        if self.fleet.is_stopping() {
            return self.refuse(&askers, vec!["the supervisor stops".to_owned()]);
        }
        let checked = Spec::load(&self.sources, &self.binary).and_then(|next| {
            let faults = match self.specs.values().next() {
                Some(current) => current.unreloadable(&next),
                None => Vec::new(),
            };
            if faults.is_empty() { Ok(next) } else { Err(faults) }
        });
        let started = checked.and_then(|spec| {
            let check = Check::start(self.now(), &spec.binary, &self.sources).map_err(|error| {
                let binary = self.binary.display();
                vec![format!(
                    "binary: {binary} cannot be executed: {error}; install it again"
                )]
            })?;
            Ok((check, spec))
        });
        match started {
            Ok((check, spec)) => self.rollout.trial = Some(Trial { check, spec, askers }),
            Err(faults) => self.refuse(&askers, faults),
        }
    }

    /// A child ended; whether it was the check.
    pub(super) fn check_reaped(&mut self, pid: i32, end: End) -> bool {
        let Some(Trial { check, spec, askers }) = self.rollout.trial.take_if(|trial| trial.check.is(pid)) else {
            return false;
        };
        match check.verdict(end) {
            Ok(()) => self.adopt(spec, &askers),
            Err(faults) => self.refuse(&askers, faults),
        }
        let later = std::mem::take(&mut self.rollout.later);
        if !later.is_empty() {
            self.try_next(later);
        }
        true
    }

    fn adopt(&mut self, spec: Spec, askers: &[Asker]) {
        if self.fleet.is_stopping() {
            return self.refuse(askers, vec!["the supervisor stops".to_owned()]);
        }
        let now = self.now();
        let policy = spec.policy();
        self.candidate = Some(spec);
        let mut tickets = Vec::new();
        for asker in askers {
            match *asker {
                Asker::Client { id, wait: true } => tickets.push(Ticket(id)),
                Asker::Client { id, wait: false } => {
                    let answer = Answer::done("reload accepted; `anyworker status` shows it");
                    self.server.answer(now, id, &answer);
                }
                Asker::Signal => {}
            }
        }
        self.feed(Event::Reload { tickets, policy });
    }

    /// Nothing changes, and everybody who asked is told why.
    fn refuse(&mut self, askers: &[Asker], faults: Vec<String>) {
        for fault in &faults {
            error!(fault, "reload refused: nothing changes");
        }
        let line = format!("reload refused: {}", faults.join("; "));
        if !self.fleet.is_stopping() {
            self.notifier.state(&line);
        }
        self.rollout.last = Some(line);
        let now = self.now();
        let answer = Answer::refused(faults);
        for asker in askers {
            if let Asker::Client { id, .. } = *asker {
                self.server.answer(now, id, &answer);
            }
        }
    }
}
