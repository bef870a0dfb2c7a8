//! The shell around the fleet: one thread, one poll(2) over signals, workers, the control socket
//! and the next deadline. It never waits for a worker, and after boot it never panics: an
//! impossible event is logged and ignored.

mod act;
mod banner;
mod generation;
mod metrics;
mod process;
mod requests;
mod rollout;
mod state;
mod tell;
mod upkeep;

use crate::config::Sources;
use crate::control::protocol::Status;
use crate::control::server::{Interest, Server};
use crate::fleet::{Event, Fleet, FleetState, Generation, Moment, Pace, WorkerId};
use crate::sys::admin::AdminListener;
use crate::sys::listener::Listeners;
use crate::sys::notify::Notifier;
use crate::sys::reap::reap;
use crate::sys::redis::{ManagedRedis, STOP_GRACE, Turn};
use crate::sys::runtime::{RESTORE_EVERY, Runtime};
use crate::sys::signals::{Caught, Signals};
use boot::{Exit, ToSupervisor};
use metrics::MetricsAggregator;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use process::Processes;
use rollout::{Requester, Rollout};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

pub(crate) use generation::Spec;
pub(crate) use rollout::admin_listener;
pub(crate) use state::State;

/// Delay of a turn of the loop that shows that the host or this process was stopped.
const LATE_AFTER: Duration = Duration::from_millis(500);
/// Longest time between two turns of the loop.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How much longer a slow operation may take, from each announcement; several times the pause between two of them.
const PROLONG: Duration = Duration::from_secs(20);
/// Signals handled before the others have their turn.
const SIGNALS_PER_TURN: usize = 64;

/// Everything that was prepared before the first worker.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) sources: Sources,
    /// Where the binary of the next generation is looked for.
    pub(crate) binary: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) runtime: Runtime,
    pub(crate) listeners: Listeners,
    pub(crate) admin: Option<AdminListener>,
    pub(crate) signals: Signals,
    pub(crate) server: Server,
    pub(crate) redis: Option<ManagedRedis>,
    pub(crate) notifier: Notifier,
}

/// The supervisor at work.
#[derive(Debug)]
pub(crate) struct Reactor {
    started: Instant,
    /// The random name of this run, the first part of every incarnation.
    instance: String,
    sources: Sources,
    binary: PathBuf,
    fleet: Fleet,
    /// What can still be spawned from.
    specs: BTreeMap<Generation, Spec>,
    /// Accepted, and not yet a generation.
    candidate: Option<Spec>,
    processes: Processes,
    listeners: Listeners,
    admin: Option<AdminListener>,
    aggregator: MetricsAggregator,
    signals: Signals,
    server: Server,
    redis: Option<ManagedRedis>,
    notifier: Notifier,
    watchdog_at: Option<Moment>,
    /// By when the loop ought to have come round.
    due: Moment,
    /// What the fleet has to hear, caused by what it asked for.
    pending: VecDeque<Event>,
    begun: bool,
    /// The fleet has ended; Redis may not have.
    verdict: Option<Exit>,
    rollout: Rollout,
    /// Held for the lock.
    runtime: Runtime,
    /// When its files are looked after next, and what was wrong at the last look.
    restore_at: Moment,
    unrestored: Option<String>,
}

/// What became ready.
#[derive(Clone, Copy, Debug)]
enum Source {
    Client(u64),
    ControlSocket,
    Check,
    Signals,
    Systemd,
    Worker(WorkerId),
}

impl Reactor {
    /// Takes everything over; nothing is spawned yet.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            sources,
            binary,
            spec,
            runtime,
            listeners,
            admin,
            signals,
            server,
            redis,
            notifier,
        } = parts;
        let seed = fastrand::u64(..);
        let instance: String = std::iter::repeat_with(fastrand::alphanumeric).take(8).collect();
        info!(
            instance,
            seed,
            pid = std::process::id(),
            version = boot::VERSION,
            "supervisor started"
        );
        for notice in &spec.config.notices {
            warn!(notice, "configuration notice");
        }
        let mut reactor = Self {
            started: Instant::now(),
            instance: instance.to_lowercase(),
            sources,
            binary,
            fleet: Fleet::new(spec.policy(), seed),
            specs: BTreeMap::from([(Generation::FIRST, spec)]),
            candidate: None,
            processes: Processes::default(),
            listeners,
            admin,
            aggregator: MetricsAggregator::default(),
            signals,
            server,
            redis,
            watchdog_at: notifier.watchdog_every,
            notifier,
            due: Moment::ZERO,
            pending: VecDeque::new(),
            begun: false,
            verdict: None,
            rollout: Rollout::default(),
            runtime,
            restore_at: RESTORE_EVERY,
            unrestored: None,
        };
        let slots: Vec<_> = reactor.listeners.slots().collect();
        slots.into_iter().for_each(|slot| reactor.store(slot));
        reactor
    }

    /// Runs until everything has ended.
    pub(crate) fn run(mut self) -> Exit {
        loop {
            self.turn();
            if let Some(exit) = self.ended() {
                info!(code = exit.code(), "supervisor stopped");
                return exit;
            }
            for (source, flags) in self.wait() {
                self.dispatch(source, flags);
            }
            self.re_exec();
        }
    }

    // === time ===

    fn now(&self) -> Moment {
        self.started.elapsed()
    }

    /// Does what is due.
    fn turn(&mut self) {
        let now = self.now();
        self.server.expire(now);
        self.supervise_trial(now);
        self.try_later();
        self.processes.measure(now);
        self.restore(now);
        let accepts = match &mut self.redis {
            Some(redis) => redis.turn(now) == Turn::Accepts,
            None => !self.begun,
        };
        if accepts && !self.begun {
            self.begun = true;
            self.feed(Event::Begin);
        } else {
            self.feed(Event::Tick);
        }
        if self.watchdog_at.is_some_and(|at| now >= at) {
            self.watchdog_at = self.notifier.watchdog_every.map(|every| now + every);
            // A fleet without a serving worker does not feed the watchdog, except at boot and on the way out.
            let state = self.fleet.state();
            if self.fleet.active() > 0 || matches!(state, FleetState::Booting | FleetState::Stopping) {
                self.notifier.feed_watchdog();
            }
            // A large append-only file, a large fleet: it takes time, and all is well.
            if state == FleetState::Reloading || self.redis.as_ref().is_some_and(ManagedRedis::is_starting) {
                self.notifier.prolong(PROLONG);
            }
        }
    }

    fn ended(&mut self) -> Option<Exit> {
        let exit = self.verdict?;
        let now = self.now();
        match &mut self.redis {
            Some(redis) => {
                redis.stop(now);
                redis.is_stopped().then_some(exit)
            }
            None => Some(exit),
        }
    }

    fn wait(&mut self) -> Vec<(Source, PollFlags)> {
        let now = self.now();
        let redis = self.redis.as_ref().and_then(ManagedRedis::deadline);
        let deadlines = [
            self.fleet.deadline(),
            redis,
            self.server.deadline(),
            self.watchdog_at,
            self.rollout.deadline(),
        ];
        let due = deadlines
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Moment::MAX)
            .clamp(now, now + IDLE_MAX);
        self.due = due;
        // Rounded up: waking before the deadline would only spin.
        let timeout = PollTimeout::try_from(due.saturating_sub(now) + Duration::from_micros(999));
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(listener) = self.server.listener() {
            sources.push(Source::ControlSocket);
            fds.push(PollFd::new(listener, PollFlags::POLLIN));
        }
        if let Some(systemd) = self.notifier.blocked() {
            sources.push(Source::Systemd);
            fds.push(PollFd::new(systemd, PollFlags::POLLOUT));
        }
        if let Some(complaint) = self.rollout.complaint() {
            sources.push(Source::Check);
            fds.push(PollFd::new(complaint, PollFlags::POLLIN));
        }
        for (worker, fd, write) in self.processes.wires() {
            sources.push(Source::Worker(worker));
            let flags = if write {
                PollFlags::POLLIN | PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            fds.push(PollFd::new(fd, flags));
        }
        for (id, fd, interest) in self.server.clients() {
            sources.push(Source::Client(id));
            fds.push(PollFd::new(
                fd,
                match interest {
                    Interest::End => PollFlags::empty(),
                    Interest::Read => PollFlags::POLLIN,
                    Interest::Write => PollFlags::POLLOUT,
                },
            ));
        }
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::ZERO)) {
            Ok(0) | Err(Errno::EINTR) => Vec::new(),
            Ok(_) => {
                let flags = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
                sources
                    .into_iter()
                    .zip(flags)
                    .filter(|(_, flags)| !flags.is_empty())
                    .collect()
            }
            Err(errno) => {
                error!(%errno, "poll(2) failed");
                Vec::new()
            }
        }
    }

    // === events ===

    /// Tells the fleet, and does what it says.
    fn feed(&mut self, event: Event) {
        let now = self.now();
        if now > self.due + LATE_AFTER {
            let by = now.saturating_sub(self.due);
            warn!(
                late_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
                "supervisor ran late"
            );
            self.aggregator.ran_late();
            self.pending.push_back(Event::Late { by });
        }
        self.due = self.due.max(now);
        self.pending.push_back(event);
        let state = self.fleet.state();
        while let Some(event) = self.pending.pop_front() {
            for action in self.fleet.step(now, event) {
                self.act(now, action);
            }
        }
        self.tell_systemd(state);
    }

    /// Of a change of state; `READY` and `RELOADING` go with their actions.
    fn tell_systemd(&mut self, former: FleetState) {
        let state = self.fleet.state();
        match (former, state) {
            (former, state) if former == state => {}
            (_, FleetState::Stopping) => self.notifier.stopping(self.stop_budget()),
            (_, FleetState::Degraded) | (FleetState::Degraded, _) => self.notifier.state(state.name()),
            _ => {}
        }
    }

    /// A stop that drains. If systemd keeps the listeners, a client that connects meanwhile waits for the next supervisor.
    fn graceful(&self) -> Pace {
        Pace::Graceful {
            last: !self.notifier.keeps_listeners,
        }
    }

    /// How long a stop may take, all in all.
    fn stop_budget(&self) -> Duration {
        let redis = self.redis.as_ref().map_or(Duration::ZERO, |_| STOP_GRACE);
        self.fleet.stop_budget() + redis + LATE_AFTER
    }

    fn dispatch(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Client(id) if flags.contains(PollFlags::POLLOUT) => self.server.write(id),
            Source::Client(id) => {
                if let Some(request) = self.server.read(id) {
                    self.obey(id, request);
                }
            }
            Source::ControlSocket => self.server.accept(self.started.elapsed()),
            Source::Check => self.rollout.hear_complaint(),
            Source::Signals => self.read_signals(),
            Source::Systemd => self.notifier.flush(),
            Source::Worker(worker) => self.hear(worker, flags),
        }
    }

    fn hear(&mut self, worker: WorkerId, flags: PollFlags) {
        let mut hung_up = flags.contains(PollFlags::POLLOUT) && self.processes.flush(worker);
        let (messages, closed) = self.processes.receive(worker);
        hung_up |= closed;
        for message in messages {
            match message {
                ToSupervisor::Metrics(snapshot) => self.aggregator.note(self.now(), worker, snapshot),
                ToSupervisor::Scrape { id } => self.report_to(worker, id),
                ToSupervisor::Beat(_)
                | ToSupervisor::Drained { .. }
                | ToSupervisor::Failed { .. }
                | ToSupervisor::Given(_)
                | ToSupervisor::Ready { .. }
                | ToSupervisor::Waiting { .. } => self.feed(Event::Message { worker, message }),
            }
        }
        if hung_up {
            self.feed(Event::HungUp { worker });
        }
    }

    fn read_signals(&mut self) {
        for _ in 0..SIGNALS_PER_TURN {
            match self.signals.next() {
                Ok(Some(caught)) => self.signalled(caught),
                Ok(None) => return,
                Err(errno) => return error!(%errno, "signals not read"),
            }
        }
    }

    fn signalled(&mut self, caught: Caught) {
        let Caught {
            signal,
            sender_pid,
            sender_uid,
        } = caught;
        if signal == Signal::SIGCHLD {
            return self.reap();
        }
        info!(%signal, sender_pid, sender_uid, "signal received");
        if signal == Signal::SIGHUP {
            self.roll_out(Requester::Signal, false);
        } else if matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
            self.feed(Event::Stop(self.graceful()));
        } else if signal == Signal::SIGQUIT {
            self.feed(Event::Stop(Pace::Fast));
        } else if signal == Signal::SIGTTIN {
            self.feed(Event::More);
        } else if signal == Signal::SIGTTOU {
            self.feed(Event::Fewer);
        } else if signal == Signal::SIGUSR1 {
            self.log_status();
        } else if signal == Signal::SIGUSR2 {
            self.roll_out(Requester::Signal, true);
        } else {
            warn!(%signal, "signal ignored");
        }
    }

    fn reap(&mut self) {
        for reaped in reap() {
            let now = self.now();
            if let Some(worker) = self.processes.by_pid(reaped.pid) {
                // Its last words may still be in the socket.
                self.hear(worker, PollFlags::empty());
                self.feed(Event::Exited {
                    worker,
                    end: reaped.end,
                });
            } else if !self.check_reaped(reaped.pid, reaped.end)
                && !self
                    .redis
                    .as_mut()
                    .is_some_and(|redis| redis.reaped(now, reaped.pid, reaped.end))
            {
                tracing::debug!(pid = reaped.pid, reason = %reaped.end, "unknown child reaped");
            }
        }
    }

    fn log_status(&self) {
        let Status { supervisor, workers } = self.status();
        let state = supervisor.state;
        info!(
            state,
            generation = supervisor.generation,
            uptime_s = supervisor.uptime_s,
            "status"
        );
        for worker in workers {
            let (slot, pid, generation, state) = (worker.slot, worker.pid, worker.generation, worker.state);
            let (connections, sessions, restarts) = (worker.connections, worker.sessions, worker.restarts);
            info!(
                slot,
                pid, generation, state, connections, sessions, restarts, "status of a worker"
            );
        }
    }

    fn status(&self) -> Status {
        let mut status = Status::new(
            self.fleet.snapshot(),
            &self.processes.usages(),
            self.now(),
            self.rollout.last.clone(),
            self.redis.as_ref().map(ManagedRedis::status),
        );
        let (supervisor, workers) = self.aggregator.log_lines_dropped();
        status.supervisor.log_lines_dropped = supervisor + workers;
        status
    }
}
