//! What a worker's parts share below its connections: settings, store, application, the log as it is here, and what counts and
//! notes. It knows no connection.

use crate::catchup::CatchUp;
use crate::external::External;
use crate::ids::Ids;
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::ring::Ring;
use crate::trace::Tracer;
use app::{App, Relay};
use boot::{Incarnation, Namespaces, Offsets, Settings};
use session::{Limits, Offset, Record};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::{Store, StoreError};
use tracing::warn;

/// How long new sessions are refused after Redis rejected one; then one session is let through as a probe.
const REFUSAL_BELIEVED: Duration = Duration::from_secs(2);

/// How much longer a session that joins no namespace is in Redis than its client has time for that
/// (`socket.connect_timeout_ms`): a CONNECT that is under way at the end of it finds the session.
pub(crate) const SETTLING_MARGIN: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) incarnation: Incarnation,
    pub(crate) slot: u16,
    /// Workers that the fleet is to have.
    pub(crate) workers: u16,
    pub(crate) store: Store,
    pub(crate) app: Box<dyn App>,
    /// The way to an application in processes of its own, if there is one.
    pub(crate) external: Option<External>,
    pub(crate) limits: Limits,
    pub(crate) ring: Rc<RefCell<Ring>>,
    /// Sessions that wait for what the ring no longer has.
    pub(crate) catch_up: Rc<CatchUp>,
    /// Notes about the lives of sessions.
    pub(crate) trace: Tracer,
    pub(crate) metrics: Metrics,
    /// About what emitters send, and what was written for clients, that cannot be read.
    pub(crate) unreadable: Rc<Lines>,
    /// Ids that clients gave their publishes.
    pub(crate) ids: Ids,
    /// When Redis last refused to store a session (it is full, say), if it has stored none since.
    refused: Cell<Option<Instant>>,
}

impl Context {
    pub(crate) fn new(setup: boot::Setup, store: Store, position: Offset) -> Self {
        let settings = setup.settings;
        let mut limits = limits_of(&settings.socket);
        if settings.app.kind == boot::AppKind::External {
            // The application says which namespaces there are.
            limits.namespaces = None;
        }
        let events = &settings.app.events;
        let names = app::EventNames {
            join: events.join.clone(),
            leave: events.leave.clone(),
            publish: events.publish.clone(),
            echo: events.echo.clone(),
            message: events.message.clone(),
        };
        let app: Box<dyn App> = match settings.app.kind {
            boot::AppKind::External => Box::new(app::Deferred),
            boot::AppKind::Relay => Box::new(Relay::new(names, settings.socket.room_bytes_max)),
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
        let liveness = settings.engine.ping_interval + settings.engine.ping_timeout;
        let external = (settings.app.kind == boot::AppKind::External)
            .then(|| External::new(store.applications(), liveness, settings.socket.connect_timeout))
            .flatten();
        Self {
            incarnation: setup.incarnation,
            slot: setup.slot,
            workers: setup.workers,
            store,
            app,
            external,
            limits,
            ring,
            catch_up,
            trace: Tracer::new(&settings),
            metrics: Metrics::new(),
            unreadable,
            ids: Ids::default(),
            refused: Cell::new(None),
            settings,
        }
    }

    /// The name under which the store knows this worker.
    pub(crate) fn name(&self) -> &str {
        self.incarnation.as_str()
    }

    /// Position of the log that this worker has seen.
    pub(crate) fn head(&self) -> Offset {
        self.ring.borrow().head()
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
pub(crate) fn unsettled_ttl(settings: &Settings) -> Duration {
    session_ttl(settings).min(settings.socket.connect_timeout + SETTLING_MARGIN)
}
