//! How far a worker is on its way out, and what that means for its connections.

use crate::channel::Channel;
use bytes::Bytes;
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// How much longer a connection stays open than its client is told: a request that is on its way is not to meet one
/// that is being closed.
const KEEPALIVE_MARGIN: Duration = Duration::from_secs(5);

/// How far the worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// Closing every connection by the deadline.
    Draining {
        /// When the rest is cut.
        deadline: Instant,
        /// No process serves the listener afterwards.
        last: bool,
    },
    /// Cutting everything now.
    Stopping,
}

impl Phase {
    /// Whether connections are accepted: to be served, or to be told that the fleet stops.
    pub(crate) const fn accepts(self) -> bool {
        matches!(self, Self::Serving | Self::Draining { last: true, .. })
    }
}

/// What becomes of connections between two requests.
#[derive(Clone)]
pub(crate) enum IdlePolicy {
    /// They stay open.
    Stay,
    /// Those that were used are closed, for others that wait.
    Shed,
    /// Another worker continues with them.
    Move(mpsc::Sender<Idle>),
    /// They are closed.
    Close,
}

/// A connection between two requests.
pub(crate) struct Held {
    pub(crate) tcp: TcpStream,
    /// Read from it, and not acted on: the beginning of a request, perhaps.
    pub(crate) unread: Bytes,
    /// There was a request on it.
    pub(crate) asked: bool,
}

impl Held {
    /// A fresh one.
    pub(crate) const fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            unread: Bytes::new(),
            asked: false,
        }
    }
}

/// One that is on its way to another worker.
pub(crate) struct Idle {
    pub(crate) held: Held,
    /// If it comes back, it is served here after all.
    pub(crate) back: oneshot::Sender<Held>,
}

/// What clients are told of how long a connection without a request stays open, if that is long enough to be told: many of
/// them (Node's agent, undici, Firefox) close it themselves before.
pub(crate) fn promise(settings: &boot::Http) -> Option<HeaderValue> {
    let seconds = settings.keepalive_timeout.saturating_sub(KEEPALIVE_MARGIN).as_secs();
    (seconds > 0)
        .then(|| HeaderValue::from_str(&format!("timeout={seconds}")).ok())
        .flatten()
}

/// Another worker, which gets the WebSockets of this one.
pub(crate) struct Successor {
    pub(crate) channel: Rc<Channel>,
    /// So many at most.
    pub(crate) most: u64,
    /// It has said that it takes idle HTTP connections too.
    pub(crate) takes_idle: bool,
}

impl Successor {
    pub(crate) const fn new(channel: Rc<Channel>, most: u64) -> Self {
        Self {
            channel,
            most,
            takes_idle: false,
        }
    }
}

/// How far a worker is on its way out, for all of its parts.
pub(crate) struct Lifecycle {
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
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            idle_policy: watch::Sender::new(IdlePolicy::Stay),
            successors: RefCell::default(),
            successor_came: Notify::new(),
            moved: Notify::new(),
            orphan: Cell::new(false),
            leaving: Cell::new(false),
        }
    }
}

impl Lifecycle {
    pub(crate) fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Whether no session begins here any more: the fleet stops.
    pub(crate) fn is_last(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Draining { last: true, .. })
    }

    /// Drains until a deadline. A drain that is under way is not prolonged.
    pub(crate) fn drain(&self, deadline: Instant, last: bool) {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Draining { deadline, last };
            }
            serving
        });
    }
}
