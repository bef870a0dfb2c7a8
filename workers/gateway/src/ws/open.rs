//! How a WebSocket begins to serve its session.

use super::keep_alive::KeepAlive;
use super::{Claimed, Connection, Link, Stage, Task};
use crate::budget::Standing;
use crate::catchup::Extent;
use crate::ending::Ending;
use crate::metrics::Carried;
use crate::missed::{self, Interest, Piece};
use crate::packet::Packet;
use crate::protocol::Style;
use crate::rate::Rate;
use crate::ring::Logged;
use crate::sockets::{Buffers, Socket};
use crate::worker::Worker;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use session::trace::Value::{Offset as At, Text};
use session::{Offset, Record, Transport};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;
use store::{Mail, Saved, StoreError};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;
use wire::engine::Handshake;

/// A session that has joined no namespace by then is stored all the same.
const STORED_AFTER: Duration = Duration::from_secs(1);
/// What the library writes by itself (answers to pings, closing) and the link does not take yet (bytes).
const HELD_BACK_BYTES_MAX: usize = 4096;

/// Where the session of a WebSocket comes from.
pub(crate) enum Opening {
    /// It begins with this connection.
    Fresh,
    /// It polled until now.
    Upgraded {
        /// The client has all of the log up to here.
        after: Offset,
        /// What no poll carried.
        mail: Mail,
    },
}

/// A WebSocket over a TCP connection. Until its client has joined a namespace, messages are short.
pub(crate) async fn over(tcp: TcpStream, buffers: Buffers, worker: &Worker) -> WebSocketStream<Link> {
    let share = worker.budget.share(Standing::Unsettled);
    let link = Link::new(tcp, buffers, share, worker.settings.socket.connect_bytes_max);
    let (limits, max) = (&worker.settings.limits, worker.settings.engine.max_payload_bytes);
    let config = WebSocketConfig::default()
        .read_buffer_size(limits.ws_read_buffer_bytes)
        // The link has the buffer: the library keeps nothing back, so that frames leave in the order they were put.
        .write_buffer_size(0)
        .max_write_buffer_size(HELD_BACK_BYTES_MAX)
        .max_message_size(Some(max))
        .max_frame_size(Some(max));
    WebSocketStream::from_raw_socket(link, Role::Server, Some(config)).await
}

/// Begins to serve a WebSocket. What happens once happens here; the task that lives as long as the
/// connection is a small one of its own.
pub(crate) async fn open(
    worker: Rc<Worker>,
    ws: WebSocketStream<Link>,
    style: Style,
    record: Record,
    opening: Opening,
) {
    let stored = matches!(opening, Opening::Upgraded { .. });
    let connection = Connection::seat(&worker, ws, style, record, stored);
    match opening {
        Opening::Fresh => {
            let open = handshake(&worker, &connection.record.borrow(), &[]);
            connection.send(&Packet::text(open));
            let record = connection.record.borrow();
            let fields = [("transport", Text("websocket")), ("address", Text(&record.address))];
            worker.trace.note(&record.sid, "opened", &fields);
        }
        Opening::Upgraded { after, mail } => {
            let sid = connection.record.borrow().sid.clone();
            worker.trace.note(&sid, "upgraded", &[("after", At(after))]);
            // Connections have a limit of their own.
            worker.unsettled.borrow_mut().end(&sid);
            connection.catch_up(after, mail).await;
        }
    }
    let engine = &worker.settings.engine;
    let settle_in = connection
        .is_unsettled()
        .then_some(worker.settings.socket.connect_timeout);
    let keep_alive = KeepAlive::new(engine.ping_interval, engine.ping_timeout, None, settle_in);
    connection.start(keep_alive, None);
}

impl Connection {
    /// A connection with a place among the worker's sockets, not in the hub yet.
    pub(super) fn seat(
        worker: &Rc<Worker>,
        ws: WebSocketStream<Link>,
        style: Style,
        record: Record,
        stored: bool,
    ) -> Rc<Self> {
        let connection = Rc::new(Self {
            style,
            ws: RefCell::new(ws),
            members: RefCell::default(),
            dirty: Cell::new(false),
            stuck: Cell::new(false),
            overflowed: Cell::new(false),
            ending: Cell::new(None),
            waker: RefCell::new(Waker::noop().clone()),
            stored: Cell::new(stored),
            unsaved: Cell::new(false),
            written_in: Cell::new(worker.head().epoch()),
            claimed: Cell::new(Claimed::Yes),
            stage: Cell::new(Stage::Here),
            asked: RefCell::default(),
            place: Cell::new(None),
            record: RefCell::new(record),
            worker: worker.clone(),
        });
        let place = worker.sockets.borrow_mut().insert(connection.clone() as Rc<dyn Socket>);
        connection.place.set(Some(place));
        connection
    }

    /// Starts the task that serves the connection until its end. The record is stored with the first
    /// namespace that the client joins, in one step; a client that takes its time is stored without.
    pub(super) fn start(self: Rc<Self>, keep_alive: KeepAlive, claim: Option<LocalBoxFuture<'static, ()>>) {
        if !self.is_unsettled() {
            self.ws.borrow_mut().get_mut().settle();
        }
        let store_at = (!self.stored.get()).then(|| Box::pin(sleep(STORED_AFTER)));
        let task = Task {
            rate: Rate::default(),
            keep_alive,
            blocked: None,
            changes: None,
            next: None,
            pending: FuturesUnordered::new(),
            claim,
            store_at,
        };
        tokio::task::spawn_local(self.run(task));
    }

    /// Its place among the worker's sockets is free for another.
    pub(super) fn leave_seat(&self) {
        self.set_stuck(false);
        if let Some(place) = self.place.take() {
            self.worker.sockets.borrow_mut().try_remove(place);
        }
    }

    /// Stores a session whose client has joined nothing yet.
    pub(super) fn create_late(self: &Rc<Self>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            if !this.stored.get()
                && let Err(error) = this.create().await
            {
                debug!(%error, "session not stored");
                this.end(Ending::StoreUnavailable);
            }
        })
    }

    /// Stores a session that is not stored yet.
    pub(super) async fn create(&self) -> Result<(), StoreError> {
        self.stored.set(true);
        let record = self.stored_form();
        let created = self
            .worker
            .store
            .create(&record, Offset::ZERO, self.worker.ttl(&record))
            .await;
        self.worker.note_stored(&created);
        if created.is_err() {
            self.stored.set(false);
        }
        created
    }

    /// Takes over from polling: the record names us now, what is still unsent is sent.
    async fn catch_up(self: &Rc<Self>, after: Offset, mail: Mail) {
        let (record, former) = {
            let mut record = self.record.borrow_mut();
            let former = record.epoch;
            record.epoch += 1;
            record.transport = Transport::Websocket;
            record.worker = self.worker.name().to_owned();
            (record.clone(), former)
        };
        match self.worker.store.save(&record, former, self.worker.ttl(&record)).await {
            Ok(Saved::Done) => {}
            Ok(Saved::Gone) => return self.end(Ending::Kicked),
            Ok(Saved::Fenced { .. }) => return self.end(Ending::TakenOver),
            Err(error) => {
                debug!(%error, "upgrade not stored");
                return self.end(Ending::StoreUnavailable);
            }
        }
        let interest = Interest::of(&Rc::new(record), self.worker.settings.socket.rooms_max);
        let older = match self.worker.catch_up.older_than_ring(after, Extent::All, interest).await {
            Ok(older) => older,
            Err(error) => {
                debug!(%error, "events missed before the upgrade not known");
                return self.end(Ending::StoreUnavailable);
            }
        };
        self.go_live(&older.entries, older.position, mail);
    }

    /// Sends what the session has not seen of the log, and has it hear what comes: nothing comes twice
    /// and nothing is left out, since there is no await in between. It has had the log up to
    /// `position`, `older` being part of that.
    pub(super) fn go_live(self: &Rc<Self>, older: &[Rc<Logged>], position: Offset, mail: Mail) {
        let ring = self.worker.ring.borrow();
        let newer: Vec<_> = ring.after(position).into_iter().flatten().cloned().collect();
        drop(ring);
        let mut record = Cow::Owned(self.record.borrow().clone());
        let rooms_max = self.worker.settings.socket.rooms_max;
        let changed = missed::merge(
            &mut record,
            older.iter().chain(&newer),
            mail,
            rooms_max,
            |piece| match piece {
                Piece::Packet(packet) => {
                    self.worker.metrics.events_out.one(Carried::Websocket);
                    self.send(&packet);
                }
                Piece::Mail(mail) => Packet::from_mail(&mail)
                    .iter()
                    .for_each(|message| self.send_message(message)),
            },
        );
        for (nsp, joined) in record.namespaces.iter() {
            self.enter_hub(nsp, joined, position);
        }
        if changed {
            self.unsaved.set(true);
        }
        let record = record.into_owned();
        let closing = record.closing;
        self.record.replace(record);
        if closing {
            self.end(Ending::Dismissed);
        }
    }
}

/// The Engine.IO open packet of a session.
pub(crate) fn handshake(worker: &Worker, record: &Record, upgrades: &[&str]) -> String {
    let engine = &worker.settings.engine;
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Handshake {
        sid: record.sid.as_str(),
        upgrades,
        ping_interval_ms: ms(engine.ping_interval),
        ping_timeout_ms: ms(engine.ping_timeout),
        max_payload: engine.max_payload_bytes,
    }
    .encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocation for a task is its future and about 96 bytes of tokio, rounded up to a multiple of 128.
    const FUTURE_BYTES_MAX: usize = 256;
    /// The largest part beside the buffer of what is read, which is `limits.ws_read_buffer_bytes`.
    const CONNECTION_BYTES_MAX: usize = 848;

    /// Size of what a function of two arguments returns.
    fn size_of_output<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let (future, connection) = (size_of_output(Connection::run), size_of::<Connection>());
        assert!(future <= FUTURE_BYTES_MAX, "{future}: box what is rare");
        assert!(connection <= CONNECTION_BYTES_MAX, "{connection}");
    }
}
