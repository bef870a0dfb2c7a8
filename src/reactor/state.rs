//! The state that a supervisor hands to the binary that replaces it. A format of its own, with a
//! version: the next binary is asked first whether it can read it (`anyworker check --state`).
//! Whatever the reactor comes to hold must be here, or be lost by an upgrade; a new field needs
//! `#[serde(default)]`, a change of meaning another [`STATE_VERSION`].

use super::metrics::MetricsAggregator;
use super::process::{self, Processes};
use super::rollout::{Requester, Rollout};
use super::{Reactor, Spec};
use crate::config::{Config, Sources};
use crate::control::server::{self, Server};
use crate::fleet::{Event, Fleet, Generation, Moment};
use crate::sys::admin::{self, AdminListener};
use crate::sys::listener::{self, Listeners};
use crate::sys::log;
use crate::sys::notify::Notifier;
use crate::sys::program;
use crate::sys::redis::ManagedRedis;
use crate::sys::runtime::Runtime;
use crate::sys::signals::Signals;
use crate::sys::spawn::{Binary, InheritedDescriptors};
use crate::sys::user::Identity;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::info;

/// Of the format below.
const STATE_VERSION: u32 = 2;

/// A supervisor between two binaries.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// What the former binary calls itself.
    from: String,
    binary: PathBuf,
    instance: String,
    /// `CLOCK_MONOTONIC` at the start of the supervisor.
    started: Duration,
    /// When the former binary looked at its clock last.
    left: Moment,
    begun: bool,
    fleet: Value,
    specs: Vec<(Generation, Config, Option<Identity>, RawFd)>,
    processes: Vec<process::ProcessHandoff>,
    listeners: listener::ListenerHandoff,
    server: server::ControlHandoff,
    #[serde(default)]
    admin: Option<admin::AdminHandoff>,
    #[serde(default, rename = "ledger")]
    aggregator: MetricsAggregator,
    redis: Option<Value>,
    runtime: (PathBuf, RawFd),
    /// Who wants the upgrade, and so the reload that comes next.
    #[serde(rename = "askers")]
    requesters: Vec<Requester>,
    /// Who asked since, and whether for an upgrade: one more rollout after that.
    later: (Vec<Requester>, bool),
    last_reload: Option<String>,
}

/// The part of the format that never changes.
#[derive(Deserialize)]
struct Header {
    version: u32,
    from: String,
}

impl State {
    /// Reads a state, all of it.
    ///
    /// # Errors
    /// When it is of another version, or does not fit.
    pub(crate) fn read(from: impl io::Read) -> io::Result<Self> {
        let whole: Value = serde_json::from_reader(from)?;
        let Header { version, from } = Header::deserialize(&whole)?;
        if version != STATE_VERSION {
            return Err(io::Error::other(format!(
                "the state of anyworker {from} has format {version}, this binary reads {STATE_VERSION}; \
                 restart instead"
            )));
        }
        let state: Self = serde_json::from_value(whole)?;
        Fleet::deserialize(&state.fleet)?;
        state.redis.as_ref().map(ManagedRedis::deserialize).transpose()?;
        Ok(state)
    }

    /// How the former supervisor process was configured.
    pub(crate) fn logging(&self) -> Option<&boot::Logging> {
        self.specs.first().map(|(_, config, ..)| &config.settings.logging)
    }

    /// Every descriptor that has to survive exec.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let specs = self.specs.iter().map(|(.., binary)| *binary);
        let processes = self.processes.iter().map(|process| process.control);
        let listeners = self.listeners.descriptors();
        specs
            .chain(processes)
            .chain(listeners)
            .chain(self.server.descriptors())
            .chain(self.admin.as_ref().map(|admin| admin.socket))
            .chain([self.runtime.1])
            .collect()
    }
}

impl Reactor {
    /// Everything that the next binary needs.
    pub(super) fn export(&self, requesters: Vec<Requester>) -> io::Result<State> {
        let specs = self.specs.iter().map(|(generation, spec)| {
            let Spec {
                config,
                identity,
                binary,
            } = spec;
            (*generation, config.clone(), identity.clone(), binary.number())
        });
        let left = self.now();
        let mut aggregator = self.aggregator.clone();
        aggregator.leave_log(log::flush());
        Ok(State {
            version: STATE_VERSION,
            from: boot::VERSION.to_owned(),
            binary: self.binary.clone(),
            instance: self.instance.clone(),
            started: monotonic()?.saturating_sub(left),
            left,
            begun: self.begun,
            fleet: serde_json::to_value(&self.fleet)?,
            specs: specs.collect(),
            processes: self.processes.export(),
            listeners: self.listeners.export(),
            server: self.server.export(),
            admin: self.admin.as_ref().map(AdminListener::export),
            aggregator,
            redis: self.redis.as_ref().map(serde_json::to_value).transpose()?,
            runtime: (self.runtime.directory().to_owned(), self.runtime.lock()),
            requesters,
            later: self.rollout.waiting(),
            last_reload: self.rollout.last.clone(),
        })
    }

    /// Goes on where the former binary of this process stopped, and replaces the workers.
    ///
    /// # Errors
    /// When a descriptor is not there.
    pub(crate) fn import(sources: Sources, state: State, signals: Signals) -> io::Result<Self> {
        let mut inherited = InheritedDescriptors::new(state.descriptors());
        let mut take = |number| inherited.take(number);
        let mut specs = std::collections::BTreeMap::new();
        for (generation, config, identity, binary) in state.specs {
            let binary = Binary::inherit(take(binary)?);
            let spec = Spec {
                config,
                binary,
                identity,
            };
            specs.insert(generation, spec);
        }
        let notifier = Notifier::from_environment();
        let uptime = monotonic()?.saturating_sub(state.started);
        let now = Instant::now();
        let mut reactor = Self {
            started: now.checked_sub(uptime).unwrap_or(now),
            instance: state.instance,
            sources,
            // The build before wrote down where a link led when it was started.
            binary: program::started_by().unwrap_or(state.binary),
            fleet: serde_json::from_value(state.fleet)?,
            specs,
            candidate: None,
            processes: Processes::import(state.processes, &mut take)?,
            listeners: Listeners::import(state.listeners, &mut take)?,
            admin: state
                .admin
                .as_ref()
                .map(|admin| AdminListener::import(admin, &mut take))
                .transpose()?,
            aggregator: state.aggregator,
            signals,
            server: Server::import(state.server, &mut take)?,
            redis: state.redis.map(serde_json::from_value).transpose()?,
            watchdog_at: notifier.watchdog_every.map(|_| uptime),
            notifier,
            due: uptime,
            pending: VecDeque::new(),
            begun: state.begun,
            verdict: None,
            rollout: Rollout::resumed(state.last_reload, state.later),
            runtime: Runtime::inherit(state.runtime.0, take(state.runtime.1)?),
            // At once: the directory is not locked across exec.
            restore_at: Moment::ZERO,
            unrestored: None,
        };
        let by = uptime.saturating_sub(state.left);
        let gap_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        info!(
            from = state.from,
            version = boot::VERSION,
            pid = std::process::id(),
            gap_ms,
            "supervisor continues as another binary"
        );
        reactor.aggregator.upgraded();
        // No beats were read meanwhile. Children that ended are reaped now: the kernel keeps their signal,
        // but not one for each.
        reactor.feed(Event::Late { by });
        reactor.reap();
        reactor.go_on(state.requesters);
        Ok(reactor)
    }
}

fn monotonic() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}
