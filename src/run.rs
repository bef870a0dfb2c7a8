//! `anyworker run`: prepares everything that can fail, then hands over to the reactor.

use crate::config::{Config, Sources};
use crate::control::server::Server;
use crate::reactor::{Parts, Reactor, Spec, State, admin_listener};
use crate::sys::listener::{self, Listeners};
use crate::sys::log;
use crate::sys::notify::{self, Notifier};
use crate::sys::program;
use crate::sys::reap;
use crate::sys::redis::{self, ManagedRedis};
use crate::sys::reexec;
use crate::sys::runtime::{Runtime, control_socket};
use crate::sys::signals::Signals;
use crate::sys::spawn::Binary;
use boot::{Exit, RedisEndpoint, Settings, descriptors};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Between two looks whether the host has an address.
const ADDRESS_LOOK: u16 = 200; // ms
/// How often a start that waits for one says so; systemd is asked for twice that time.
const WAIT_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Why the supervisor cannot start: what to exit with, and one line per fault.
#[derive(Debug)]
struct Refusal {
    exit: Exit,
    lines: Vec<String>,
}

impl Refusal {
    /// The configuration, or what it names, cannot work here.
    fn config(fault: impl ToString) -> Self {
        Self {
            exit: Exit::Config,
            lines: vec![fault.to_string()],
        }
    }

    /// The system does not let us.
    fn system(step: &str, error: impl ToString) -> Self {
        Self {
            exit: Exit::Internal,
            lines: vec![format!("{step}: {}", error.to_string())],
        }
    }
}

/// Runs the supervisor until it has stopped.
pub(crate) fn run(sources: Sources) -> Exit {
    let prepared = match reexec::inherited() {
        Some(state) => resume(sources, state).map_err(|error| Refusal::system("taking over the supervisor", error)),
        None => prepare(sources),
    };
    match prepared {
        Ok(reactor) => reactor.run(),
        Err(Refusal { exit, lines }) => {
            for line in lines {
                log::print(&format!("anyworker: {line}"));
            }
            exit
        }
    }
}

/// Goes on where the former binary of this process stopped.
fn resume(sources: Sources, state: io::Result<OwnedFd>) -> io::Result<Reactor> {
    let state = State::read(File::from(state?))?;
    // Still blocked: what has come since is answered now.
    let signals = Signals::block()?;
    if let Some(logging) = state.logging() {
        log::start(logging);
    }
    Reactor::import(sources, state, signals)
}

fn prepare(sources: Sources) -> Result<Reactor, Refusal> {
    // First of all: a signal that comes now is answered later, not lost.
    let signals = Signals::block().map_err(|error| Refusal::system("blocking signals", error))?;
    let found = notify::found().map_err(|error| Refusal::system("taking over the sockets of systemd", error))?;
    let binary = program::path().map_err(|error| Refusal::system("finding the own binary", error))?;
    let mut spec = Spec::load(&sources, &binary).map_err(|lines| Refusal {
        exit: Exit::Config,
        lines,
    })?;
    // What runs now, even if another file has been installed under its name in the meantime.
    spec.binary = Binary::running().map_err(|error| Refusal::system("opening /proc/self/exe", error))?;
    log::start(&spec.config.settings.logging);
    reap::become_subreaper().map_err(|error| Refusal::system("becoming a subreaper", error))?;
    raise_descriptor_limit(&spec.config.settings);
    let runtime = Runtime::claim(&spec.config.runtime_directory).map_err(Refusal::config)?;
    if let Some(identity) = &spec.identity {
        runtime.admit(identity).map_err(Refusal::config)?;
    }
    let mut notifier = Notifier::from_environment();
    let Config { listen, workers, .. } = &spec.config;
    if found.is_empty() {
        await_addresses(&spec.config, &signals, &mut notifier)?;
    }
    let listeners = Listeners::bind(listen, workers.count, found).map_err(Refusal::config)?;
    let admin = admin_listener(&spec.config, true).map_err(Refusal::config)?;
    let redis = managed_redis(&spec)?;
    let socket = control_socket(runtime.directory());
    let server = Server::bind(&socket)
        .map_err(|error| Refusal::config(format!("runtime.directory: binding {}: {error}", socket.display())))?;
    Ok(Reactor::new(Parts {
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
    }))
}

/// Waits for addresses that the host does not have yet, as long as `listen.wait_ms` says. A signal to stop ends it.
fn await_addresses(config: &Config, signals: &Signals, notifier: &mut Notifier) -> Result<(), Refusal> {
    let admin = config.admin.address.filter(|_| config.admin.chosen);
    let addresses: Vec<SocketAddr> = config.listen.iter().copied().chain(admin).collect();
    let give_up = Instant::now() + config.listen_wait;
    let mut told: Option<(SocketAddr, Instant)> = None;
    listener::await_addresses(&addresses, |address| {
        if Instant::now() >= give_up {
            return Ok(false);
        }
        if told.is_none_or(|(of, at)| of != address || at.elapsed() >= WAIT_TOLD_EVERY) {
            warn!(%address, wait = ?config.listen_wait, "this host does not have the address yet, waiting for it (listen.wait_ms)");
            notifier.state(&format!("waiting for the address {address}"));
            notifier.prolong(2 * WAIT_TOLD_EVERY);
            told = Some((address, Instant::now()));
        }
        // Interrupted or not, the next try tells.
        poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], ADDRESS_LOOK).ok();
        while let Ok(Some(caught)) = signals.next() {
            if matches!(caught.signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM) {
                info!(signal = %caught.signal, "stopped before the start completed");
                return Err(Refusal {
                    exit: Exit::Done,
                    lines: Vec::new(),
                });
            }
        }
        Ok(true)
    })
}

fn managed_redis(spec: &Spec) -> Result<Option<ManagedRedis>, Refusal> {
    let Config {
        managed_redis,
        redis_directory,
        settings,
        ..
    } = &spec.config;
    let Some(endpoint) = settings
        .redis
        .as_ref()
        .map(|redis| &redis.endpoint)
        .filter(|_| *managed_redis)
    else {
        return Ok(None);
    };
    let RedisEndpoint::Unix { path } = endpoint else {
        return Err(Refusal::config(
            "redis.managed: a managed Redis is reached by its unix socket only",
        ));
    };
    let program = redis::locate().map_err(Refusal::config)?;
    let home = redis::claim_directory(redis_directory, spec.identity.as_ref()).map_err(Refusal::config)?;
    Ok(Some(ManagedRedis::new(
        program,
        path.clone(),
        redis_directory.clone(),
        spec.identity.clone(),
        spec.config.redis_bytes_max,
        home,
    )))
}

/// As many descriptors as we may have: workers inherit the limit.
fn raise_descriptor_limit(settings: &Settings) {
    let connections_max = settings.limits.connections_max;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) if descriptors::connections(settings, limit) < connections_max as u64 => warn!(
            limit,
            connections_max,
            accepted = descriptors::connections(settings, limit),
            reserved = descriptors::reserve(settings),
            "too few descriptors for limits.connections_max: raise LimitNOFILE of the unit, or `ulimit -Hn`"
        ),
        Ok(_) => {}
        Err(errno) => warn!(%errno, "descriptor limit not raised"),
    }
}
