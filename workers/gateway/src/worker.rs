//! What those parts of a worker share that have connections.

use crate::budget::Budget;
use crate::checks::Disks;
use crate::context::{Context, unsettled_ttl};
use crate::ending::Ending;
use crate::hub::Hub;
use crate::lifecycle::{self, Lifecycle};
use crate::recent::Recent;
use crate::sockets::Socket;
use crate::unsettled::Unsettled;
use ::http::HeaderValue;
use boot::Settings;
use session::Offset;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Instant;
use store::Store;

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

/// The shared state of a worker: its context, of which it has all methods and fields, and what only transports and
/// the way out need. Everything runs on one thread; a borrow never outlives a step.
pub(crate) struct Worker {
    context: Context,
    /// Connections that it takes: `limits.connections_max`, or what its descriptors allow.
    pub(crate) connections_max: u64,
    /// How long a connection without a request stays open, for clients.
    pub(crate) keepalive: Option<HeaderValue>,
    /// What clients may make it keep.
    pub(crate) budget: Rc<Budget>,
    pub(crate) hub: RefCell<Hub>,
    /// Polling sessions that began here and have joined no namespace yet.
    pub(crate) unsettled: RefCell<Unsettled>,
    /// What it knows of polling sessions.
    pub(crate) recent: RefCell<Recent>,
    /// WebSockets of this worker.
    pub(crate) sockets: RefCell<Slab<Rc<dyn Socket>>>,
    pub(crate) lifecycle: Lifecycle,
    /// When the log's push path last gave a sign of life.
    pub(crate) canary_seen: Cell<Instant>,
    /// Whether the tailer is connected.
    pub(crate) tail_up: Cell<bool>,
    pub(crate) counters: Counters,
    /// Whether this worker reports metrics to the supervisor.
    pub(crate) tells: bool,
    /// Lines of the log of this process that could not be written, until now.
    pub(crate) log_lines_dropped: fn() -> u64,
    /// Of the configured checks.
    pub(crate) disks: Disks,
    /// Configured checks that did not pass when last looked at, by name; before that all of them.
    pub(crate) failing: RefCell<Vec<String>>,
}

/// Whatever takes a [`Context`] takes a worker.
impl Deref for Worker {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl Worker {
    pub(crate) fn new(setup: boot::Setup, store: Store, position: Offset, log_lines_dropped: fn() -> u64) -> Rc<Self> {
        let (metrics, context) = (setup.metrics, Context::new(setup, store, position));
        let settings = &context.settings;
        Rc::new(Self {
            connections_max: connections_max(settings),
            keepalive: lifecycle::promise(&settings.http),
            budget: Budget::new(settings.limits.buffers_bytes_max),
            hub: RefCell::default(),
            unsettled: RefCell::new(Unsettled::new(settings.limits.handshakes_max, unsettled_ttl(settings))),
            recent: RefCell::default(),
            sockets: RefCell::default(),
            lifecycle: Lifecycle::default(),
            canary_seen: Cell::new(Instant::now()),
            tail_up: Cell::new(true),
            counters: Counters::default(),
            tells: metrics,
            log_lines_dropped,
            disks: Disks::of(settings.checks.values()),
            failing: RefCell::new(settings.checks.keys().cloned().collect()),
            context,
        })
    }

    /// Whether this many more connections can be accepted, without those that are reserved for other purposes.
    pub(crate) fn has_room(&self, more: u64) -> bool {
        let open = self.counters.connections.get() + self.sockets.borrow().len() as u64;
        open.saturating_add(more) <= self.connections_max
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
