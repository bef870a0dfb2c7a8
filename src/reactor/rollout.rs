//! From a request to a new generation: configuration, then the new binary's own check, then the
//! fleet. Nothing of what serves is touched before both are good.

use super::{Reactor, Spec};
use crate::config::Config;
use crate::control::protocol::Answer;
use crate::fleet::{End, Event, Ticket};
use crate::sys::admin::AdminListener;
use crate::sys::check::Check;
use crate::sys::elf;
use crate::sys::listener::ListenError;
use crate::sys::reexec;
use boot::ReloadResult;
use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;
use tracing::{error, info, warn};

/// Who wants a reload or an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Requester {
    /// A command: its number, and whether it waits for the end.
    Client { id: u64, wait: bool },
    /// `SIGHUP`, `SIGUSR2`.
    Signal,
}

/// A generation that may come: its binary is being checked.
#[derive(Debug)]
pub(super) struct Trial {
    check: Check,
    spec: Spec,
    /// The admin listener, if that changes.
    admin: Change,
    requesters: Vec<Requester>,
    /// The supervisor itself continues as this binary.
    upgrade: bool,
}

/// What is tried now, and the requesters since: for all of them there is one more, because what is on
/// disk may have changed. Bounded by the clients of the control socket.
#[derive(Debug, Default)]
pub(super) struct Rollout {
    trial: Option<Trial>,
    later: Vec<Requester>,
    /// One of those wants an upgrade.
    later_upgrade: bool,
    /// All checks passed: at the end of this turn the supervisor continues as that binary.
    re_exec: Option<(Spec, Vec<Requester>)>,
    /// How the last request ended, for `status`.
    pub(super) last: Option<String>,
}

/// What becomes of the admin listener.
#[derive(Debug)]
enum Change {
    None,
    To(Option<AdminListener>),
}

/// The admin listener of a configuration. A default address may be taken, for example by another anyworker.
pub(crate) fn admin_listener(config: &Config, patience: bool) -> Result<Option<AdminListener>, ListenError> {
    let Some(address) = config.admin.address else {
        return Ok(None);
    };
    match AdminListener::bind(address, patience && config.admin.chosen) {
        Ok(listener) => {
            info!(address = %listener.address(), "admin listener");
            Ok(Some(listener))
        }
        Err(error) if config.admin.chosen => Err(error),
        Err(error) => {
            warn!(%error, "no admin listener, no metrics; set admin.address");
            Ok(None)
        }
    }
}

impl Rollout {
    /// Who waits for the next rollout, and whether one of them wants an upgrade.
    pub(super) fn waiting(&self) -> (Vec<Requester>, bool) {
        (self.later.clone(), self.later_upgrade)
    }

    /// After an upgrade.
    pub(super) fn resumed(last: Option<String>, (later, later_upgrade): (Vec<Requester>, bool)) -> Self {
        Self {
            last,
            later,
            later_upgrade,
            ..Self::default()
        }
    }

    /// What the check complains of, as long as it may say more.
    pub(super) fn complaint(&self) -> Option<BorrowedFd<'_>> {
        self.trial.as_ref()?.check.complaint()
    }

    /// There is something to read there.
    pub(super) fn hear_complaint(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.check.hear();
        }
    }

    /// When the check is killed.
    pub(super) fn deadline(&self) -> Option<crate::fleet::Moment> {
        self.trial.as_ref()?.check.deadline()
    }
}

impl Reactor {
    /// Requests a reload, or an upgrade.
    pub(super) fn roll_out(&mut self, requester: Requester, upgrade: bool) {
        let rollout = &mut self.rollout;
        if !rollout.later.contains(&requester) {
            rollout.later.push(requester);
        }
        rollout.later_upgrade |= upgrade;
        self.try_later();
        if !self.rollout.later.is_empty() {
            info!(upgrade, "reload queued behind the running check or reload");
        }
    }

    /// Begins with what was asked for, unless something else has to end first.
    pub(super) fn try_later(&mut self) {
        let Rollout {
            trial,
            later,
            later_upgrade,
            re_exec,
            ..
        } = &mut self.rollout;
        let stuck = *later_upgrade && !self.fleet.is_movable() && !self.fleet.is_stopping();
        if later.is_empty() || trial.is_some() || re_exec.is_some() || stuck {
            return;
        }
        let upgrade = std::mem::take(later_upgrade);
        let requesters = std::mem::take(later);
        self.begin_trial(requesters, upgrade);
    }

    /// Kills a check that takes too long.
    pub(super) fn supervise_trial(&mut self, now: crate::fleet::Moment) {
        if let Some(trial) = &mut self.rollout.trial {
            trial.check.turn(now);
        }
    }

    fn begin_trial(&mut self, requesters: Vec<Requester>, upgrade: bool) {
        if self.fleet.is_stopping() {
            return self.refuse(&requesters, vec!["the supervisor stops".to_owned()]);
        }
        let checked = Spec::load(&self.sources, &self.binary).and_then(|next| {
            let faults = match self.specs.values().next() {
                Some(current) => current.unreloadable(&next),
                None => Vec::new(),
            };
            if faults.is_empty() { Ok(next) } else { Err(faults) }
        });
        let started = checked.and_then(|spec| {
            // After an upgrade the next binary comes here, too.
            let admin = if upgrade {
                Ok(Change::None)
            } else {
                self.change_admin(&spec)
            };
            let admin = admin.map_err(|fault| vec![fault])?;
            let state = upgrade
                .then(|| self.export(Vec::new()).and_then(|state| reexec::store(&state)))
                .transpose()
                .map_err(|error| vec![format!("state of the supervisor: {error}")])?;
            let examined = elf::examine(&spec.binary).map_err(std::io::Error::other);
            let start = |()| Check::start(self.now(), &spec.binary, &self.sources.arguments(), state);
            let check = examined.and_then(start).map_err(|error| {
                let binary = self.binary.display();
                vec![format!(
                    "binary: {binary} cannot be executed: {error}; install it again"
                )]
            })?;
            Ok((check, spec, admin))
        });
        match started {
            Ok((check, spec, admin)) => {
                self.rollout.trial = Some(Trial {
                    check,
                    spec,
                    admin,
                    requesters,
                    upgrade,
                });
            }
            Err(faults) => self.refuse(&requesters, faults),
        }
    }

    /// A child ended; whether it was the check.
    pub(super) fn check_reaped(&mut self, pid: i32, end: End) -> bool {
        let Some(Trial {
            check,
            spec,
            admin,
            requesters,
            upgrade,
        }) = self.rollout.trial.take_if(|trial| trial.check.is(pid))
        else {
            return false;
        };
        match check.verdict(end) {
            Ok(()) if upgrade => self.rollout.re_exec = Some((spec, requesters)),
            Ok(()) => self.adopt(spec, admin, &requesters),
            Err(faults) => self.refuse(&requesters, faults),
        }
        self.try_later();
        true
    }

    /// If an upgrade is due: continues as the other binary. Returns only if that fails.
    pub(super) fn re_exec(&mut self) {
        let Some((spec, requesters)) = self.rollout.re_exec.take() else {
            return;
        };
        if self.fleet.is_stopping() {
            return self.refuse(&requesters, vec!["the supervisor stops".to_owned()]);
        }
        let now = self.now();
        let mut waiting = Vec::new();
        for requester in &requesters {
            match *requester {
                Requester::Client { id, wait: false } => {
                    // Who asked for a reload only is among them: an upgrade ends with one.
                    let answer = Answer::done("upgrade accepted, a reload with it; `anyworker status` shows it");
                    self.server.answer(now, id, &answer);
                }
                Requester::Client { wait: true, .. } | Requester::Signal => waiting.push(*requester),
            }
        }
        info!("supervisor is replaced by another binary");
        let left = self.export(waiting).and_then(|state| {
            let fd = reexec::store(&state)?;
            Ok((state.descriptors(), fd))
        });
        let error = match left {
            Ok((keep, state)) => reexec::exec(&spec.binary, &state, &keep),
            Err(error) => error,
        };
        let fault = format!("the new binary could not take over: {error}; the supervisor continues unchanged");
        self.refuse(&requesters, vec![fault]);
        self.try_later();
    }

    /// What an upgrade ends with, in the new binary: a reload.
    pub(super) fn go_on(&mut self, mut requesters: Vec<Requester>) {
        if requesters.is_empty() {
            requesters.push(Requester::Signal);
        }
        self.begin_trial(requesters, false);
    }

    /// What becomes of the admin listener with another configuration; workers that have the former keep it as
    /// long as they live.
    fn change_admin(&self, spec: &Spec) -> Result<Change, String> {
        let wanted = spec.config.admin.address;
        if wanted == self.admin.as_ref().map(AdminListener::wanted) {
            return Ok(Change::None);
        }
        admin_listener(&spec.config, false)
            .map(Change::To)
            .map_err(|error| error.to_string())
    }

    fn adopt(&mut self, spec: Spec, admin: Change, requesters: &[Requester]) {
        if self.fleet.is_stopping() {
            return self.refuse(requesters, vec!["the supervisor stops".to_owned()]);
        }
        if let Change::To(admin) = admin {
            self.admin = admin;
        }
        let now = self.now();
        let policy = spec.policy();
        self.candidate = Some(spec);
        let mut tickets = Vec::new();
        for requester in requesters {
            match *requester {
                Requester::Client { id, wait: true } => tickets.push(Ticket(id)),
                Requester::Client { id, wait: false } => {
                    let answer = Answer::done("reload accepted; `anyworker status` shows it");
                    self.server.answer(now, id, &answer);
                }
                Requester::Signal => {}
            }
        }
        self.feed(Event::Reload { tickets, policy });
    }

    /// Refuses a reload: nothing changes, and every requester gets the reasons.
    fn refuse(&mut self, requesters: &[Requester], faults: Vec<String>) {
        self.aggregator.reloaded(ReloadResult::Refused);
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
        for requester in requesters {
            if let Requester::Client { id, .. } = *requester {
                self.server.answer(now, id, &answer);
            }
        }
    }
}
