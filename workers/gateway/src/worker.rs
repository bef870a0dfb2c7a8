//! What the parts of one worker share.

use crate::budget::Budget;
use crate::catchup::CatchUp;
use crate::checks::Disks;
use crate::ending::Ending;
use crate::hub::Hub;
use crate::ids::Ids;
use crate::lifecycle::{self, IdlePolicy, Phase, Successor};
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::ring::Ring;
use crate::sockets::Socket;
use crate::trace::Tracer;
use crate::unsettled::Unsettled;
use ::http::HeaderValue;
use app::{App, Relay};
use boot::{Incarnation, Namespaces, Offsets, Settings};
use session::{Limits, Offset, Record};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::{Store, StoreError};
use tokio::sync::{Notify, watch};
use tracing::warn;

/// How long new sessions are refused after Redis rejected one; then one session is let through as a probe.
const REFUSAL_BELIEVED: Duration = Duration::from_secs(2);

/// How much longer a session that joins no namespace is in Redis than its client has time for that
/// (`socket.connect_timeout_ms`): a CONNECT that is under way at the end of it finds the session.
pub(crate) const SETTLING_MARGIN: Duration = Duration::from_secs(5);

/// Numbers for heartbeats and readiness.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connections: Cell<u64>,
    pub(crate) closed_by_drain: Cell<u64>,
    /// WebSockets that have not taken all that was written.
    pub(crate) stuck: Cell<u64>,
}

/// Adds to a counter.
pub(crate) fn count(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get().wrapping_add(n));
}

/// A connection, counted until this is dropped. A drain waits for those that are no sessions' WebSockets yet.
pub(crate) struct Counted(Rc<Worker>);

impl Counted {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        count(&worker.counters.connections, 1);
        Self(worker.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = &self.0.counters.connections;
        open.set(open.get().saturating_sub(1));
    }
}

/// The shared state of a worker. Everything runs on one thread; a borrow never outlives a step.
pub(crate) struct Worker {
    pub(crate) settings: Settings,
    pub(crate) incarnation: Incarnation,
    pub(crate) slot: u16,
    /// Workers that the fleet is to have.
    pub(crate) workers: u16,
    pub(crate) store: Store,
    pub(crate) app: Box<dyn App>,
    pub(crate) limits: Limits,
    /// Connections that it takes: `limits.connections_max`, or what its descriptors allow.
    pub(crate) connections_max: u64,
    /// How long a connection without a request stays open, for clients.
    pub(crate) keepalive: Option<HeaderValue>,
    /// What clients may make it keep.
    pub(crate) budget: Rc<Budget>,
    pub(crate) hub: RefCell<Hub>,
    pub(crate) ring: Rc<RefCell<Ring>>,
    /// Sessions that wait for what the ring no longer has.
    pub(crate) catch_up: Rc<CatchUp>,
    /// Polling sessions that began here and have joined no namespace yet.
    pub(crate) unsettled: RefCell<Unsettled>,
    /// What it knows of polling sessions.
    pub(crate) recent: RefCell<Recent>,
    /// WebSockets of this worker.
    pub(crate) sockets: RefCell<Slab<Rc<dyn Socket>>>,
    pub(crate) phase: watch::Sender<Phase>,
    /// Of HTTP connections between two requests.
    pub(crate) idle_policy: watch::Sender<IdlePolicy>,
    /// Workers that receive the live WebSockets when this worker drains.
    pub(crate) successors: RefCell<Vec<Successor>>,
    /// Another one has come, after the first has died.
    pub(crate) successor_came: Notify,
    /// Connections have come from another worker or gone to one: the supervisor hears of it at once, or it
    /// would even out by what was.
    pub(crate) moved: Notify,
    /// The supervisor is gone.
    pub(crate) orphan: Cell<bool>,
    /// The supervisor has asked this worker to drain; it reports not ready, also during the pre-drain delay.
    pub(crate) leaving: Cell<bool>,
    /// When the log's push path last gave a sign of life.
    pub(crate) canary_seen: Cell<Instant>,
    /// Whether the tailer is connected.
    pub(crate) tail_up: Cell<bool>,
    pub(crate) counters: Counters,
    /// Notes about the lives of sessions.
    pub(crate) trace: Tracer,
    pub(crate) metrics: Metrics,
    /// Whether this worker reports metrics to the supervisor.
    pub(crate) tells: bool,
    /// Lines of the log of this process that could not be written, until now.
    pub(crate) log_lines_dropped: fn() -> u64,
    /// Of the configured checks.
    pub(crate) disks: Disks,
    /// Configured checks that did not pass when last looked at, by name; before that all of them.
    pub(crate) failing: RefCell<Vec<String>>,
    /// About what emitters send, and what was written for clients, that cannot be read.
    pub(crate) unreadable: Rc<Lines>,
    /// Ids that clients gave their publishes.
    pub(crate) ids: Ids,
    /// When Redis last refused to store a session (it is full, say), if it has stored none since.
    refused: Cell<Option<Instant>>,
}

/// What the session machine allows one client.
fn limits_of(socket: &boot::Socket) -> Limits {
    Limits {
        packet: wire::socket::Limits {
            attachments_max: socket.attachments_max,
            ..wire::socket::Limits::default()
        },
        attachment_bytes_max: socket.attachment_bytes_max,
        namespaces: match &socket.namespaces {
            Namespaces::All => None,
            Namespaces::Only(list) => Some(list.clone()),
        },
        namespaces_max: socket.namespaces_max,
    }
}

impl Worker {
    pub(crate) fn new(setup: boot::Setup, store: Store, position: Offset, log_lines_dropped: fn() -> u64) -> Rc<Self> {
        let settings = setup.settings;
        let socket = &settings.socket;
        let limits = limits_of(socket);
        let events = &settings.app.events;
        let names = app::EventNames {
            join: events.join.clone(),
            leave: events.leave.clone(),
            publish: events.publish.clone(),
            echo: events.echo.clone(),
            message: events.message.clone(),
        };
        let app: Box<dyn App> = match settings.app.kind {
            boot::AppKind::Relay => Box::new(Relay::new(names, socket.room_bytes_max)),
        };
        let ring = Rc::new(RefCell::new(Ring::new(position, settings.log.ring_bytes_max)));
        let unreadable = Rc::new(Lines::default());
        let entries_max = settings.recovery.entries_max;
        let catch_up = CatchUp::new(
            store.clone(),
            ring.clone(),
            limits.clone(),
            entries_max,
            unreadable.clone(),
        );
        Rc::new(Self {
            incarnation: setup.incarnation,
            slot: setup.slot,
            workers: setup.workers,
            store,
            app,
            limits,
            connections_max: connections_max(&settings),
            keepalive: lifecycle::promise(&settings.http),
            budget: Budget::new(settings.limits.buffers_bytes_max),
            hub: RefCell::default(),
            catch_up,
            ring,
            unsettled: RefCell::new(Unsettled::new(settings.limits.handshakes_max, unsettled_ttl(&settings))),
            recent: RefCell::default(),
            sockets: RefCell::default(),
            phase: watch::Sender::new(Phase::Serving),
            idle_policy: watch::Sender::new(IdlePolicy::Stay),
            successors: RefCell::default(),
            successor_came: Notify::new(),
            moved: Notify::new(),
            orphan: Cell::new(false),
            leaving: Cell::new(false),
            canary_seen: Cell::new(Instant::now()),
            tail_up: Cell::new(true),
            counters: Counters::default(),
            trace: Tracer::new(&settings),
            metrics: Metrics::new(),
            tells: setup.metrics,
            log_lines_dropped,
            disks: Disks::of(settings.checks.values()),
            failing: RefCell::new(settings.checks.keys().cloned().collect()),
            unreadable,
            ids: Ids::default(),
            refused: Cell::new(None),
            settings,
        })
    }

    /// The name under which the store knows this worker.
    pub(crate) fn name(&self) -> &str {
        self.incarnation.as_str()
    }

    /// Position of the log that this worker has seen.
    pub(crate) fn head(&self) -> Offset {
        self.ring.borrow().head()
    }

    pub(crate) fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Whether no session begins here any more: the fleet stops.
    pub(crate) fn is_last(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Draining { last: true, .. })
    }

    /// Whether this many more connections can be accepted, without those that are reserved for other purposes.
    pub(crate) fn has_room(&self, more: u64) -> bool {
        let open = self.counters.connections.get() + self.sockets.borrow().len() as u64;
        open.saturating_add(more) <= self.connections_max
    }

    /// Notes whether Redis stored a session.
    pub(crate) fn note_stored<T>(&self, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => self.refused.set(None),
            Err(error) => {
                if self.refused.replace(Some(Instant::now())).is_none() {
                    warn!(%error, "sessions not stored");
                }
            }
        }
    }

    /// Whether Redis stores sessions, as far as is known: a refusal is believed for a while.
    pub(crate) fn stores(&self) -> bool {
        self.store.available() && self.refused.get().is_none_or(|at| at.elapsed() > REFUSAL_BELIEVED)
    }

    /// See [`session_ttl`].
    pub(crate) fn session_ttl(&self) -> Duration {
        session_ttl(&self.settings)
    }

    /// How long the record of a session is kept without a sign of life.
    pub(crate) fn ttl(&self, record: &Record) -> Duration {
        if record.settled {
            self.session_ttl()
        } else {
            unsettled_ttl(&self.settings)
        }
    }

    /// What a client wants about offsets, where that is for it to say.
    pub(crate) fn heeded(&self, wants: Option<bool>) -> Option<bool> {
        let recovery = &self.settings.recovery;
        wants.filter(|_| recovery.enabled && recovery.offsets == Offsets::Auto)
    }

    /// What is kept of a session that ended without its client's will, and for how long: nothing if
    /// the client could not come back to it.
    pub(crate) fn kept<'a>(&self, record: &'a Record) -> Option<(&'a Record, Duration)> {
        let recovery = &self.settings.recovery;
        let can_resume = recovery.enabled && record.namespaces.values().any(|joined| joined.pid.is_some());
        can_resume.then_some((record, recovery.window))
    }

    /// Ends the connection that holds a session below an epoch: another one has resumed it.
    pub(crate) fn evict(&self, sid: &str, epoch: u64) {
        for (_, socket) in self.sockets.borrow().iter() {
            if socket.is_stale(sid, epoch) {
                socket.end(Ending::TakenOver);
            }
        }
    }
}

/// Connections that a worker takes; without a limit of descriptors, as configured.
fn connections_max(settings: &Settings) -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    boot::descriptors::connections(settings, limit.unwrap_or(u64::MAX))
}

/// Lifetime of a session record without a sign of life: with recovery on, a client that lost its
/// worker must find it for as long as the window says.
pub(crate) fn session_ttl(settings: &Settings) -> Duration {
    let liveness = settings.engine.ping_interval + settings.engine.ping_timeout;
    if settings.recovery.enabled {
        liveness.max(settings.recovery.window)
    } else {
        liveness
    }
}

/// The same of a session that has joined no namespace: nothing is to be found in it later.
fn unsettled_ttl(settings: &Settings) -> Duration {
    session_ttl(settings).min(settings.socket.connect_timeout + SETTLING_MARGIN)
}
