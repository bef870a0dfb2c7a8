//! A connection changes workers: it freezes in one, with everything in transit, and continues in
//! another. The session's record and the log are the truth for everything else.

use super::keep_alive::KeepAlive;
use super::{Claimed, Connection, Link, Stage, over};
use crate::catchup::Extent;
use crate::channel::Channel;
use crate::ending::Ending;
use crate::metrics::Stayed;
use crate::missed::Interest;
use crate::protocol::{Protocol, Style};
use crate::sockets::{Buffers, ConnectionState, FrozenConnection, Socket};
use crate::worker::Worker;
use futures_util::future::LocalBoxFuture;
use session::trace::Value::{Offset as At, Text};
use session::{Offset, Record};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;
use store::{Mail, Saved};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tracing::debug;

/// The record gets our name after this time, even if the other worker is not done.
const CLAIM_AFTER: Duration = Duration::from_millis(500);
/// Between the first two attempts to write our name into the record of a session that came here; it doubles with each
/// attempt, up to the longest.
const CLAIM_RETRY: Duration = Duration::from_millis(100);
const CLAIM_RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a connection that ends before it is claimed waits for the claim.
pub(super) const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// A connection that another worker sent, rebuilt without a byte read or written.
pub(crate) struct RestoredConnection {
    ws: WebSocketStream<Link>,
    state: ConnectionState,
    unsent: bool,
}

/// The worker that has to know that a session that came here is stored as ours, and that may have died meanwhile.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) from: Rc<Channel>,
    /// True, or closed, as soon as it may be done.
    pub(crate) may: watch::Receiver<bool>,
    /// Dropped when it is done.
    pub(crate) done: mpsc::Sender<()>,
}

// === in the worker that gives ===

impl Connection {
    /// Every complete message has been acted on, and nothing is under way: what is left are bytes. The
    /// library is polled until it wanted to read, so all it keeps is what belongs to no complete message.
    pub(super) fn freeze(self: &Rc<Self>, cx: &mut Context<'_>, keep_alive: &KeepAlive) {
        let Some(tell) = self.asked.take() else { return };
        self.ws.borrow_mut().get_mut().freeze();
        // Twice: after the first, a pong may still be kept back (the library gives it up when its buffer is full).
        let flushed = (0..2).all(|_| {
            let polled = futures_util::Sink::poll_flush(Pin::new(&mut *self.ws.borrow_mut()), cx);
            matches!(polled, std::task::Poll::Ready(Ok(())))
        });
        let buffers = self.ws.borrow().get_ref().buffers().filter(|_| flushed);
        let Some(buffers) = buffers else {
            return self.thaw_here();
        };
        if buffers.unsent.len() > self.worker.settings.limits.outbox_bytes_max {
            self.thaw_here();
            return self.end(Ending::SlowClient);
        }
        let frozen = FrozenConnection {
            connection: self.clone(),
            state: ConnectionState {
                record: self.record.borrow().clone(),
                echo: self.style.protocol == Protocol::Echo,
                base64: self.style.base64,
                stored: self.stored.get(),
                written_in: self.written_in.get(),
                position: self.worker.head(),
                keep_alive_state: keep_alive.state(),
            },
            buffers,
        };
        if tell.try_send(frozen).is_ok() {
            self.stage.set(Stage::Frozen);
            self.leave_hub();
        } else {
            self.thaw_here();
        }
    }

    fn thaw_here(&self) {
        self.stage.set(Stage::Here);
        self.ws.borrow_mut().get_mut().open();
        // What was kept goes out with the next flush, which is due.
        self.set_stuck(true);
        self.waker.borrow().wake_by_ref();
    }
}

impl Socket for Connection {
    fn end(&self, ending: Ending) {
        Self::end(self, ending);
    }

    fn is_stale(&self, sid: &str, epoch: u64) -> bool {
        let record = self.record.borrow();
        record.sid.as_str() == sid && record.epoch < epoch
    }

    fn ask(&self, tell: mpsc::Sender<FrozenConnection>) {
        if !self.can_move() {
            return;
        }
        self.stage.set(Stage::Asked);
        self.asked.replace(Some(tell));
        self.ws.borrow_mut().get_mut().hold();
        self.waker.borrow().wake_by_ref();
    }

    fn cancel_move(&self) {
        if self.stage.get() == Stage::Asked {
            self.stage.set(Stage::Here);
            self.asked.take();
            self.ws.borrow_mut().get_mut().open();
            self.waker.borrow().wake_by_ref();
        }
    }

    fn why_it_stays(&self) -> (&'static str, Stayed) {
        if self.ws.borrow().get_ref().buffers().is_none() {
            ("a large message is on its way", Stayed::LargeMessage)
        } else {
            ("something is under way", Stayed::Busy)
        }
    }

    fn thaw(self: Rc<Self>, position: Offset) {
        if self.stage.get() != Stage::Frozen {
            return;
        }
        self.thaw_here();
        if self.worker.ring.borrow().after(position).is_none() {
            return self.end(Ending::LogLost);
        }
        self.go_live(&[], position, Mail::default());
    }

    fn depart(&self) {
        self.stage.set(Stage::Gone);
        self.leave_seat();
        self.waker.borrow().wake_by_ref();
    }

    fn can_move(&self) -> bool {
        self.stage.get() == Stage::Here
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        self.ws.borrow().get_ref().descriptor()
    }
}

// === in the worker that takes ===

impl RestoredConnection {
    /// Rebuilds a connection.
    pub(crate) async fn new(worker: &Worker, tcp: TcpStream, state: ConnectionState, buffers: Buffers) -> Self {
        let unsent = !buffers.unsent.is_empty();
        let ws = over(tcp, buffers, worker).await;
        Self { ws, state, unsent }
    }

    /// The connection is ours: serves it.
    pub(crate) fn adopt(self, worker: &Rc<Worker>, claim: Claim) {
        let ConnectionState {
            mut record,
            echo,
            base64,
            stored,
            written_in,
            position,
            keep_alive_state,
        } = self.state;
        let former = record.epoch;
        let fields = [("from", Text(&record.worker)), ("position", At(position))];
        worker.trace.note(&record.sid, "moved", &fields);
        worker.name().clone_into(&mut record.worker);
        record.epoch += u64::from(stored);
        let style = Style {
            protocol: if echo { Protocol::Echo } else { Protocol::SocketIo },
            base64,
        };
        let connection = Connection::seat(worker, self.ws, style, record, stored);
        connection.written_in.set(written_in);
        connection.set_stuck(self.unsent);
        let keep_alive = KeepAlive::resumed(&keep_alive_state);
        let claim = stored.then(|| connection.claim(former, claim));
        if worker.ring.borrow().after(position).is_some() {
            connection.go_live(&[], position, Mail::default());
            return connection.start(keep_alive, claim);
        }
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            let interest = Interest::of(
                &Rc::new(connection.record.borrow().clone()),
                worker.settings.socket.rooms_max,
            );
            match worker.catch_up.older_than_ring(position, Extent::All, interest).await {
                Ok(older) => connection.go_live(&older.entries, older.position, Mail::default()),
                Err(error) => {
                    debug!(%error, "events missed during a handover not known");
                    connection.end(Ending::LogLost);
                }
            }
            connection.start(keep_alive, claim);
        });
    }
}

impl Connection {
    /// Writes our name into the record, and raises its epoch, however long Redis is away.
    fn claim(self: &Rc<Self>, former: u64, mut claim: Claim) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        // The same each time: writing it again is no other change.
        let record = self.record.borrow().clone();
        self.claimed.set(Claimed::Trying);
        Box::pin(async move {
            // An error is the other side's end.
            timeout(CLAIM_AFTER, claim.may.wait_for(|may| *may)).await.ok();
            let mut pause = CLAIM_RETRY;
            while !this.try_claim(&record, former, &claim).await {
                this.claimed.set(Claimed::NotYet);
                sleep(pause).await;
                this.claimed.set(Claimed::Trying);
                pause = (pause * 2).min(CLAIM_RETRY_MAX);
            }
            this.claimed.set(Claimed::Yes);
            drop(claim.done);
        })
    }

    /// Whether it is settled.
    async fn try_claim(&self, record: &Record, former: u64, claim: &Claim) -> bool {
        let (store, ttl) = (&self.worker.store, self.worker.ttl(record));
        let saved = match store.save(record, former, ttl).await {
            // The worker it came from died, and its sessions were declared lost; or Redis lost its data, or its clock jumped.
            Ok(Saved::Gone) if claim.from.is_closed() || self.log_is_new() || store.clock_jumped(ttl).await => {
                store.restore(record, ttl).await.map(|_| Saved::Done)
            }
            saved => saved,
        };
        match saved {
            Ok(Saved::Done) => {}
            Ok(Saved::Fenced { .. }) => self.end(Ending::TakenOver),
            Ok(Saved::Gone) => self.end(Ending::Kicked),
            Err(error) => {
                debug!(%error, "moved session not stored yet");
                return false;
            }
        }
        true
    }

    /// Redis has lost its data since the record was written.
    fn log_is_new(&self) -> bool {
        self.written_in.get() != self.worker.head().epoch()
    }
}
