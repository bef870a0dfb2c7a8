//! How a WebSocket begins to serve its session.

use super::heart::Heart;
use super::{Connection, Style, Task};
use crate::ending::Ending;
use crate::missed::{self, Piece};
use crate::packet::Packet;
use crate::worker::Worker;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use session::{Offset, Record, Transport};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;
use store::{Mail, Saved, StoreError};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tracing::debug;
use wire::engine::Handshake;

/// A session that has joined no namespace by then is stored all the same.
const STORED_AFTER: Duration = Duration::from_secs(1);

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

/// Begins to serve a WebSocket. What happens once happens here; the task that lives as long as the
/// connection is a small one of its own.
pub(crate) async fn open(
    worker: Rc<Worker>,
    ws: WebSocketStream<TcpStream>,
    style: Style,
    record: Record,
    opening: Opening,
) {
    let connection = Rc::new(Connection {
        style,
        ws: RefCell::new(ws),
        offsets: Cell::new(record.offsets),
        members: RefCell::default(),
        dirty: Cell::new(false),
        stuck: Cell::new(false),
        ending: Cell::new(None),
        waker: RefCell::new(Waker::noop().clone()),
        peer_closed: Cell::new(false),
        stored: Cell::new(matches!(opening, Opening::Upgraded { .. })),
        unsaved: Cell::new(false),
        written_in: Cell::new(worker.head().epoch()),
        record: RefCell::new(record),
        worker: worker.clone(),
    });
    let place = worker.sockets.borrow_mut().insert(connection.clone());
    let pending = FuturesUnordered::new();
    match opening {
        Opening::Fresh => connection.greet(&pending),
        Opening::Upgraded { after, mail } => connection.catch_up(after, mail).await,
    }
    let engine = &worker.settings.engine;
    let settle_in = connection
        .is_unsettled()
        .then_some(worker.settings.socket.connect_timeout);
    let heart = Heart::new(engine.ping_interval, engine.ping_timeout, None, settle_in);
    let task = Task {
        heart,
        blocked: None,
        pending,
    };
    tokio::task::spawn_local(async move {
        connection.run(task).await;
        worker.sockets.borrow_mut().try_remove(place);
    });
}

impl Connection {
    /// The open packet. The record is stored with the first namespace that the client joins, in one
    /// step; a client that takes its time is stored without.
    fn greet(self: &Rc<Self>, pending: &FuturesUnordered<LocalBoxFuture<'static, ()>>) {
        let open = handshake(&self.worker, &self.record.borrow(), &[]);
        self.send(Packet::text(open));
        let this = self.clone();
        pending.push(Box::pin(async move {
            sleep(STORED_AFTER).await;
            if !this.stored.get()
                && let Err(error) = this.create().await
            {
                debug!(%error, "session could not be stored");
                this.end(Ending::StoreUnavailable);
            }
        }));
    }

    /// Stores a session that is not stored yet.
    pub(super) async fn create(&self) -> Result<(), StoreError> {
        self.stored.set(true);
        let record = self.record.borrow().clone();
        let created = self
            .worker
            .store
            .create(&record, Offset::ZERO, self.worker.session_ttl())
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
        match self.worker.store.save(&record, former, self.worker.session_ttl()).await {
            Ok(Saved::Done) => {}
            Ok(Saved::Gone) => return self.end(Ending::Kicked),
            Ok(Saved::Fenced { .. }) => return self.end(Ending::TakenOver),
            Err(error) => {
                debug!(%error, "upgrade could not be stored");
                return self.end(Ending::StoreUnavailable);
            }
        }
        let (older, position) = match missed::older_than_ring(&self.worker, after).await {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, "what was missed before the upgrade cannot be told");
                return self.end(Ending::StoreUnavailable);
            }
        };
        // From here to the end without an await: nothing comes twice and nothing is left out.
        let ring = self.worker.ring.borrow();
        let newer: Vec<_> = ring.after(position).into_iter().flatten().cloned().collect();
        drop(ring);
        let mut record = record;
        let rooms_max = self.worker.settings.socket.rooms_max;
        let obeyed = missed::merge(
            &mut record,
            older.iter().chain(&newer),
            mail,
            rooms_max,
            |piece| match piece {
                Piece::Packet(packet) => self.send(packet),
                Piece::Mail(mail) => Packet::from_mail(&mail)
                    .into_iter()
                    .for_each(|message| self.send_message(message)),
            },
        );
        for (nsp, joined) in record.namespaces.iter() {
            self.enter_hub(nsp, joined);
        }
        self.unsaved.set(obeyed.changed);
        self.record.replace(record);
        if obeyed.closed {
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
