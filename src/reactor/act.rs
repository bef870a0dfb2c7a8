//! What the fleet asks for, done.

use super::process::{Gone, Process};
use super::tell::tell;
use super::{Reactor, banner};
use crate::control::protocol::Answer;
use crate::fleet::{Action, End, Event, Generation, Moment, SlotId, Ticket, WorkerId};
use crate::sys::admin::AdminListener;
use crate::sys::forensics::{self, Hung};
use crate::sys::spawn::{Order, spawn};
use boot::{Exit, Handover, Incarnation, ReloadResult, Setup, ToWorker};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::AsFd;
use tracing::{error, info, warn};

impl Reactor {
    pub(super) fn act(&mut self, now: Moment, action: Action) {
        match action {
            Action::Abort { worker } => {
                if let Some(process) = self.processes.get(worker) {
                    let slot = process.slot.number();
                    forensics::log(Hung::Worker { slot }, process.pid);
                }
                self.kill(worker, Signal::SIGABRT);
            }
            Action::Adopt { generation } => match self.candidate.take() {
                Some(spec) => {
                    if let Some(redis) = &mut self.redis {
                        redis.limit(spec.config.redis_bytes_max);
                    }
                    self.specs.insert(generation, spec);
                }
                None => error!(generation = generation.number(), "generation has no configuration"),
            },
            Action::AnnounceGone { worker, slot } => self.announce_gone(worker, slot),
            Action::Close { slot } => self.close(slot),
            Action::Exit { code, reason } => self.fleet_ended(code, reason),
            Action::Forget { generation } => {
                self.specs.remove(&generation);
            }
            Action::HandOver {
                from,
                to,
                most,
                leaving,
            } => self.hand_over(from, to, &ToWorker::Give { most, leaving }),
            Action::Kill { worker } => self.kill(worker, Signal::SIGKILL),
            Action::Lend { slot, worker } => self.lend(slot, worker),
            Action::Open { slot } => self.open(slot),
            Action::RebalanceEnded { tickets, outcome } => self.rebalance_ended(now, &tickets, outcome),
            Action::ReloadEnded { tickets, outcome } => self.reload_ended(now, &tickets, outcome),
            Action::ReloadStarted => self.notifier.reloading(),
            Action::Send { worker, message } => self.send(worker, &message),
            Action::Serving => self.serving(),
            Action::Spawn {
                worker,
                slot,
                generation,
                workers,
            } => match self.start(worker, slot, generation, workers) {
                Ok(pid) => self.pending.push_back(Event::Spawned { worker, pid }),
                Err(reason) => {
                    error!(slot = slot.number(), reason, "worker not spawned");
                    self.pending.push_back(Event::SpawnFailed { worker, reason });
                }
            },
            Action::Steer { slots } => self.listeners.steer(&slots),
            Action::Tell(notice) => tell(notice),
        }
    }

    fn start(&mut self, worker: WorkerId, slot: SlotId, generation: Generation, workers: u16) -> Result<i32, String> {
        let spec = self
            .specs
            .get(&generation)
            .ok_or_else(|| format!("generation {generation} is forgotten"))?;
        // Those of slots before it, too, if they could not be opened in their time.
        while self.listeners.slots().last() < Some(slot) {
            self.listeners.open().map_err(|error| error.to_string())?;
            if let Some(opened) = self.listeners.slots().last() {
                let (name, sockets) = self.listeners.storable(opened);
                self.notifier.store(&name, &sockets);
            }
        }
        let listeners = self.listeners.of(slot);
        let incarnation = Incarnation::new(&self.instance, slot.number(), worker.number());
        let setup = Setup {
            slot: slot.number(),
            generation: generation.number(),
            incarnation: incarnation.clone(),
            workers,
            listeners: u16::try_from(listeners.len()).unwrap_or(u16::MAX),
            admin: self.admin.is_some(),
            metrics: true,
            settings: spec.config.settings.clone(),
        };
        let order = Order {
            binary: &spec.binary,
            setup: &setup,
            listeners,
            admin: self.admin.as_ref().map(AsFd::as_fd),
            identity: spec.identity.as_ref(),
        };
        let spawned = spawn(&order).map_err(|error| error.to_string())?;
        info!(
            slot = slot.number(),
            generation = generation.number(),
            pid = spawned.pid,
            "worker spawned"
        );
        self.processes
            .insert(worker, Process::new(spawned.pid, slot, incarnation, spawned.control));
        Ok(spawned.pid)
    }

    fn lend(&mut self, slot: SlotId, worker: WorkerId) {
        let message = ToWorker::Lend { slot: slot.number() };
        let borrower = self.processes.get(worker).map(|process| process.slot.number());
        info!(slot = slot.number(), borrower, "listener lent to another slot");
        if self.processes.send_with(worker, &message, &self.listeners.of(slot)) {
            self.pending.push_back(Event::HungUp { worker });
        }
    }

    /// Gives two workers an end each of a socket of their own.
    fn hand_over(&mut self, from: WorkerId, to: WorkerId, order: &ToWorker) {
        let pair = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        );
        let (giving, taking) = match pair {
            Ok(pair) => pair,
            // The one that leaves drains.
            Err(errno) => return error!(%errno, "socket pair for a handover not made"),
        };
        for (worker, order, end) in [(to, &ToWorker::Take, taking), (from, order, giving)] {
            if self.processes.send_with(worker, order, &[end.as_fd()]) {
                self.pending.push_back(Event::HungUp { worker });
            }
        }
    }

    fn rebalance_ended(&mut self, now: Moment, tickets: &[Ticket], outcome: Result<Handover, String>) {
        let answer = match outcome {
            Ok(handover) => Answer::done(describe(&handover)),
            Err(reason) => Answer::refused(vec![reason]),
        };
        info!(lines = ?answer.lines, "rebalance ended");
        for Ticket(client) in tickets {
            self.server.answer(now, *client, &answer);
        }
    }

    fn open(&mut self, slot: SlotId) {
        match self.listeners.open() {
            Ok(()) => {
                info!(slot = slot.number(), "slot opened");
                self.store(slot);
            }
            // Tried again with the slot's first worker.
            Err(error) => error!(slot = slot.number(), %error, "slot not opened"),
        }
    }

    fn close(&mut self, slot: SlotId) {
        let (name, sockets) = self.listeners.storable(slot);
        let stored = !sockets.is_empty();
        self.listeners.close_last();
        if stored {
            self.notifier.discard(&name);
        }
        info!(slot = slot.number(), "slot closed");
    }

    /// systemd keeps the listeners of this slot, for the case that this process ends.
    pub(super) fn store(&mut self, slot: SlotId) {
        let (name, sockets) = self.listeners.storable(slot);
        self.notifier.store(&name, &sockets);
    }

    fn announce_gone(&mut self, worker: WorkerId, slot: SlotId) {
        self.aggregator.close(worker);
        let Some(process) = self.processes.remove(worker) else {
            // It never had a process.
            return tracing::debug!(
                slot = slot.number(),
                worker = worker.number(),
                "unregistered worker is gone"
            );
        };
        let message = ToWorker::WorkerGone {
            incarnation: process.incarnation,
        };
        for other in self.processes.ids() {
            self.send(other, &message);
        }
    }

    fn send(&mut self, worker: WorkerId, message: &ToWorker) {
        if self.processes.send(worker, message) {
            self.pending.push_back(Event::HungUp { worker });
        }
    }

    fn kill(&mut self, worker: WorkerId, signal: Signal) {
        if self.processes.signal(worker, signal) == Err(Gone) {
            error!(worker = worker.number(), %signal, "worker exited before it was registered");
            self.pending.push_back(Event::Exited {
                worker,
                end: End::Signal(signal as i32),
            });
        }
    }

    fn fleet_ended(&mut self, code: Exit, reason: Option<String>) {
        match reason {
            Some(reason) => error!(code = code.code(), reason, "fleet ended"),
            None => info!("fleet ended"),
        }
        self.verdict = Some(code);
    }

    fn reload_ended(&mut self, now: Moment, tickets: &[Ticket], outcome: Result<Generation, String>) {
        let result = if outcome.is_ok() {
            ReloadResult::Done
        } else {
            ReloadResult::Failed
        };
        self.aggregator.reloaded(result);
        let (answer, status) = match outcome {
            Ok(generation) => {
                let moved = self.fleet.snapshot().handover.unwrap_or_default();
                let mut line = format!("generation {generation} serves");
                if moved.moved + moved.stayed() > 0 {
                    line = format!("{line}; {}", describe(&moved));
                }
                info!(line, "reload ended");
                (Answer::done(line.clone()), line)
            }
            Err(reason) => {
                let line = format!("reload failed: {reason}");
                (
                    Answer::refused(vec![line.clone(), "the old generation keeps serving".to_owned()]),
                    line,
                )
            }
        };
        if !self.fleet.is_stopping() {
            // systemd knows no failed reload: the status line tells.
            self.notifier.ready(&status);
        }
        self.rollout.last = Some(status);
        for Ticket(client) in tickets {
            self.server.answer(now, *client, &answer);
        }
        self.check_stop_budget();
    }

    /// A drain must fit into what systemd gives it; it will be asked for more, but may not listen.
    fn check_stop_budget(&mut self) {
        let budget = self.stop_budget();
        if let Some(limit) = self.notifier.stop_timeout().filter(|limit| *limit < budget) {
            let (budget_s, limit_s) = (budget.as_secs_f32().ceil(), limit.as_secs_f32());
            warn!(
                budget_s,
                limit_s,
                "a stop may take longer than TimeoutStopSec= of the service allows: raise that (`systemctl edit`), \
                 or lower workers.grace_ms"
            );
        }
    }

    fn serving(&mut self) {
        let status = self.status();
        self.notifier
            .ready(&format!("serving with {} workers", status.workers.len()));
        if let Some(spec) = self.specs.values().next() {
            let addresses = self.listeners.addresses();
            let admin = self.admin.as_ref().map(AdminListener::address);
            banner::show(&spec.config, &status, &addresses, admin, self.server.path());
        }
        self.check_stop_budget();
    }
}

/// What moved, in one line: for people.
fn describe(handover: &Handover) -> String {
    let ms = |us: u64| format!("{}.{}", us / 1000, us % 1000 / 100);
    let freeze = &handover.freeze;
    let (p50, p99) = (ms(freeze.quantile_us(0.5)), ms(freeze.quantile_us(0.99)));
    let (max, moved) = (ms(freeze.max_us), handover.moved);
    let mut line = format!("{moved} connections moved, still for {p50} / {p99} / {max} ms (median, 99 %, longest)");
    for (why, count) in &handover.stayed {
        line += &format!("; {count} stayed: {why}");
    }
    line
}
