//! A WebSocket and its session: read, decide, write. One task owns the reading; any task that has
//! something for the client puts it into the link's write buffer, and what was put there in one go
//! leaves in one write.

mod act;
mod application;
mod closing;
mod keep_alive;
mod link;
mod open;
mod outbox;
mod renew;
mod replay;
mod rooms;
mod transfer;
mod unfinished;

pub(crate) use closing::close;
pub(crate) use link::{Link, Refused};
pub(crate) use open::{Opening, handshake, open, over};
pub(crate) use transfer::{Claim, RestoredConnection};

use crate::dispatch::{Effect, Incoming, dispatch};
use crate::ending::Ending;
use crate::hub::MemberId;
use crate::lifecycle::Phase;
use crate::metrics::Limit;
use crate::notes::note_closed;
use crate::packet::Packet;
use crate::protocol::{Protocol, Style};
use crate::rate::Rate;
use crate::sockets::FrozenConnection;
use crate::worker::{Worker, count};
use futures_util::Stream;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use keep_alive::{Due, KeepAlive};
use rooms::Changes;
use session::{Partial, Record};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tracing::{debug, info};
use transfer::CLAIM_PATIENCE;
use wire::engine;

/// For what is unsent when the client sends no more, this long; a client that reads has it in a round trip or a few.
const REST_LINGER: Duration = Duration::from_secs(1);

/// A WebSocket with its session.
pub(crate) struct Connection {
    worker: Rc<Worker>,
    style: Style,
    ws: RefCell<WebSocketStream<Link>>,
    pub(crate) record: RefCell<Record>,
    /// Places in the hub, by namespace.
    members: RefCell<Vec<(Box<str>, MemberId)>>,
    /// Something was put into the write buffer since the last flush.
    dirty: Cell<bool>,
    /// The last flush did not get everything out: the client is slow.
    stuck: Cell<bool>,
    /// Something found no room: nothing may follow it, or the client's offset would move over it.
    overflowed: Cell<bool>,
    /// Set to end the connection; its task sees it when woken.
    ending: Cell<Option<Ending>>,
    waker: RefCell<Waker>,
    /// The session is in the store, or on its way there.
    stored: Cell<bool>,
    /// The client left a namespace, or an order changed its rooms: the record is to be stored.
    unsaved: Cell<bool>,
    /// Epoch of the log when the record was last written: another one means that Redis lost it.
    written_in: Cell<u64>,
    /// Whether the session, if it came from another worker, is stored as ours.
    claimed: Cell<Claimed>,
    /// How far it is on its way to another worker.
    stage: Cell<Stage>,
    /// Who asked it to move.
    asked: RefCell<Option<mpsc::Sender<FrozenConnection>>>,
    /// Its place among the worker's sockets.
    place: Cell<Option<usize>>,
}

/// How far a connection is on its way to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Served here, and not asked to move.
    Here,
    /// It reads no more, and freezes as soon as nothing is under way.
    Asked,
    /// Nothing is read, written or delivered here while its owner is being settled.
    Frozen,
    /// Another worker's.
    Gone,
    /// It ends, here.
    Ending,
}

/// Whether a session is stored as this worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claimed {
    /// It is, or began here.
    Yes,
    /// It came here, and is about to be: whatever else is to be stored waits for that.
    Trying,
    /// It came here, and Redis is away: nothing of it can be stored.
    NotYet,
}

/// What only the connection's own task touches.
struct Task {
    keep_alive: KeepAlive,
    /// How fast the client sends. After a handover the count begins again.
    rate: Rate,
    /// Until this is done nothing more is read: the order of joins and events is kept.
    blocked: Option<LocalBoxFuture<'static, ()>>,
    /// Changes of rooms, stored together.
    changes: Option<Box<Changes>>,
    /// What follows once these are stored.
    next: Option<Box<Next>>,
    /// Acks that wait for the log, refreshes of the session's lifetime.
    pending: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    /// After a move: the record gets our name. Nothing else is stored before.
    claim: Option<LocalBoxFuture<'static, ()>>,
    /// When a session that joined no namespace is stored all the same.
    store_at: Option<Pin<Box<Sleep>>>,
}

/// What was read behind changes of rooms.
enum Next {
    Effect(Effect),
    End(Ending),
}

impl Task {
    /// Whether nothing is under way that has to end where it began.
    fn is_quiet(&self) -> bool {
        self.blocked.is_none() && self.pending.is_empty() && self.claim.is_none()
    }
}

impl Connection {
    /// Serves the connection until it ends; the session is settled in the store afterwards. A connection spends its life in
    /// the first line: this future is what each one costs while it is idle. No `async fn`, which would keep `task` twice;
    /// and what happens once, at the end, is in a box.
    #[expect(clippy::manual_async_fn, reason = "an async function keeps its arguments twice")]
    fn run(self: Rc<Self>, mut task: Task) -> impl Future<Output = ()> + 'static {
        async move {
            let ending = poll_fn(|cx| self.poll(cx, &mut task)).await;
            let claim = task.claim.take();
            drop(task);
            Box::pin(self.finish(ending, claim)).await;
            self.leave_seat();
        }
    }

    /// What follows once it has ended here; `claim` was under way.
    async fn finish(&self, ending: Ending, claim: Option<LocalBoxFuture<'static, ()>>) {
        self.ws.borrow_mut().get_mut().end_waits(false);
        self.leave_hub();
        if matches!(ending, Ending::Moved) {
            return;
        }
        if matches!(ending, Ending::OverBudget) {
            self.free_buffers().await;
        }
        self.stage.set(Stage::Ending);
        self.asked.take();
        if let Some(claim) = claim {
            // In time or not, it ends.
            timeout(CLAIM_PATIENCE, claim).await.ok();
        }
        tokio::join!(self.settle(&ending), self.close(&ending));
    }

    /// One turn: answer everything that has arrived, then write once.
    fn poll(self: &Rc<Self>, cx: &mut Context<'_>, task: &mut Task) -> Poll<Ending> {
        if !self.waker.borrow().will_wake(cx.waker()) {
            self.waker.replace(cx.waker().clone());
        }
        match self.stage.get() {
            Stage::Frozen => return Poll::Pending,
            Stage::Gone => return Poll::Ready(Ending::Moved),
            Stage::Asked | Stage::Ending | Stage::Here => {}
        }
        if self.ws.borrow().get_ref().poll_evicted(cx).is_ready() {
            return Poll::Ready(Ending::OverBudget);
        }
        loop {
            if let Some(ending) = self.ending.take() {
                return Poll::Ready(ending);
            }
            self.poll_chores(cx, task);
            if let Some(blocked) = &mut task.blocked {
                if self.claimed.get() == Claimed::Trying {
                    break;
                }
                match blocked.as_mut().poll(cx) {
                    Poll::Ready(()) => task.blocked = None,
                    Poll::Pending => break,
                }
            }
            match task.next.take().map(|next| *next) {
                Some(Next::Effect(effect)) => {
                    self.carry_out(effect, task);
                    continue;
                }
                Some(Next::End(ending)) => return Poll::Ready(ending),
                None => {}
            }
            let message = {
                let mut ws = self.ws.borrow_mut();
                ws.get_mut().end_waits(!task.pending.is_empty());
                Pin::new(&mut *ws).poll_next(cx)
            };
            let taken = match message {
                Poll::Ready(Some(Ok(message))) => {
                    let bytes = message.len();
                    self.take(message, task).map(|()| self.hold_back(bytes, task))
                }
                Poll::Ready(Some(Err(e))) => Err(read_failed(e)),
                Poll::Ready(None) => Err(Ending::TransportClosed),
                Poll::Pending if task.changes.is_some() => {
                    task.blocked = task.changes.take().map(|changes| self.store_changes(changes));
                    Ok(())
                }
                Poll::Pending if self.claimed.get() != Claimed::NotYet && self.unsaved.take() => {
                    task.blocked = Some(self.save_change());
                    Ok(())
                }
                Poll::Pending if self.free_read_buffer(cx) => Ok(()),
                Poll::Pending => break,
            };
            match taken {
                Ok(()) => {}
                Err(ending) if task.changes.is_none() => return Poll::Ready(ending),
                Err(ending) => self.after_changes(Next::End(ending), task),
            }
        }
        if let Some(ending) = self.poll_keep_alive(cx, task).or(self.ending.take()) {
            return Poll::Ready(ending);
        }
        if self.stage.get() == Stage::Asked && task.is_quiet() {
            self.freeze(cx, &task.keep_alive);
        }
        self.flush(cx)
    }

    /// Work beside the reading.
    fn poll_chores(self: &Rc<Self>, cx: &mut Context<'_>, task: &mut Task) {
        if let Some(claim) = &mut task.claim
            && claim.as_mut().poll(cx).is_ready()
        {
            task.claim = None;
        }
        if let Some(at) = &mut task.store_at
            && (self.stored.get() || at.as_mut().poll(cx).is_ready())
        {
            task.store_at = None;
            if !self.stored.get() {
                task.pending.push(self.create_late());
            }
        }
        if !task.pending.is_empty() {
            while let Poll::Ready(Some(())) = Pin::new(&mut task.pending).poll_next(cx) {}
        }
    }

    /// What the time has come for; why it ends, if it does.
    fn poll_keep_alive(self: &Rc<Self>, cx: &mut Context<'_>, task: &mut Task) -> Option<Ending> {
        while let Poll::Ready(due) = task.keep_alive.poll_due(cx) {
            match due {
                Due::Ping => self.send(&Packet::text("2")),
                Due::Late if task.blocked.is_some() => {
                    // Its pong may have come long ago: we do not read.
                    task.keep_alive.extend();
                    self.alive(task);
                    cx.waker().wake_by_ref();
                }
                Due::Late => return Some(Ending::PingTimeout),
                Due::Unsettled if self.is_unsettled() => return Some(Ending::ConnectTimeout),
                Due::Unsettled => {}
            }
        }
        None
    }

    /// Counts a message of this many bytes; a client that sends too fast is not read for a while.
    fn hold_back(self: &Rc<Self>, bytes: usize, task: &mut Task) {
        let Some(pause) = task.rate.take(&self.worker.settings.limits, bytes, Instant::now()) else {
            return;
        };
        self.worker.metrics.limits.one(Limit::Rate);
        let store = |changes| self.store_changes(changes);
        let first = task.blocked.take().or_else(|| task.changes.take().map(store));
        task.blocked = Some(Box::pin(async move {
            if let Some(first) = first {
                first.await;
            }
            sleep(pause).await;
        }));
    }

    /// Acts on one WebSocket message.
    fn take(self: &Rc<Self>, message: Message, task: &mut Task) -> Result<(), Ending> {
        let incoming = match &message {
            Message::Text(text) => match text.as_str().strip_prefix(engine::MESSAGE) {
                Some(text) => Incoming::Text(text),
                None => return self.control(text, task),
            },
            Message::Binary(bytes) => Incoming::Binary(bytes.clone()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
            Message::Close(_) => return Err(Ending::TransportClosed),
        };
        if self.style.protocol == Protocol::Echo {
            self.send_message(&message);
            return Ok(());
        }
        let effect = dispatch(
            &self.worker,
            &mut self.record.borrow_mut(),
            incoming,
            &self.worker.metrics.events_in,
        );
        let effect = effect.map_err(Ending::Protocol)?;
        let gathered = self.record.borrow().partial.as_ref().map_or(0, Partial::size);
        self.ws.borrow_mut().get_mut().gathered(gathered);
        if let Effect::Act(act) = effect {
            if act.changes_rooms_only() {
                self.change_rooms(act, task);
            } else {
                self.in_turn(Effect::Act(act), task);
            }
        } else if !matches!(effect, Effect::Nothing) {
            self.in_turn(effect, task);
        }
        Ok(())
    }

    /// Does what a packet leads to, after the changes of rooms before it.
    fn in_turn(self: &Rc<Self>, effect: Effect, task: &mut Task) {
        if task.changes.is_some() {
            self.after_changes(Next::Effect(effect), task);
        } else {
            self.carry_out(effect, task);
        }
    }

    /// Does what a packet leads to; whatever came before it is stored.
    fn carry_out(self: &Rc<Self>, effect: Effect, task: &mut Task) {
        match effect {
            Effect::Nothing => {}
            Effect::Send(packet) => self.send(&packet),
            Effect::Admit(admitted) => task.blocked = Some(self.admit(admitted)),
            Effect::Return(returning) => task.blocked = Some(self.come_back(returning)),
            Effect::Act(act) => self.act(act, task),
            Effect::Deliver(unit) => task.blocked = Some(self.hand_over(unit)),
            Effect::Left(change, sid) => {
                self.show(&[change]);
                self.unsaved.set(true);
                task.blocked = Some(self.tell_left(sid));
            }
            Effect::Changed(change) => {
                self.show(&[change]);
                self.unsaved.set(true);
            }
        }
    }

    /// Engine.IO packets that are no messages.
    fn control(self: &Rc<Self>, text: &str, task: &mut Task) -> Result<(), Ending> {
        match engine::decode(text) {
            Ok(engine::Packet::Pong(_)) => {
                task.keep_alive.pong();
                self.alive(task);
                Ok(())
            }
            Ok(engine::Packet::Close) => Err(Ending::ClientLeft),
            Ok(engine::Packet::Ping(_)) => Err(Ending::EngineProtocol("ping from a client")),
            // The reference server ignores these on an open WebSocket.
            Ok(engine::Packet::Open(_) | engine::Packet::Upgrade | engine::Packet::Noop) => Ok(()),
            Ok(engine::Packet::Binary(bytes)) => self.take(Message::Binary(bytes), task),
            Ok(engine::Packet::Message(_)) => Ok(()),
            Err(_) => Err(Ending::EngineProtocol("not an Engine.IO packet")),
        }
    }

    /// Asks the connection to end; the first reason counts.
    pub(crate) fn end(&self, ending: Ending) {
        let first = self.ending.take().unwrap_or(ending);
        self.ending.set(Some(first));
        self.waker.borrow().wake_by_ref();
    }

    fn is_unsettled(&self) -> bool {
        self.style.protocol == Protocol::SocketIo && !self.record.borrow().settled
    }

    fn leave_hub(&self) {
        let mut hub = self.worker.hub.borrow_mut();
        for (_, member) in self.members.borrow_mut().drain(..) {
            hub.remove(member);
        }
    }

    /// Ends the session in the store, or leaves it there for its client to come back to.
    async fn settle(&self, ending: &Ending) {
        self.worker.metrics.ended(ending);
        let record = self.stored_form();
        if self.worker.settings.logging.connections {
            info!(reason = %ending, who = record.shown_names(), transport = "websocket", "client disconnected");
        } else {
            debug!(reason = %ending, transport = "websocket", "client disconnected");
        }
        let keep = self.worker.kept(&record).filter(|_| ending.recoverable());
        note_closed(&self.worker, &record.sid, ending, keep.is_some());
        if let Some(external) = &self.worker.external {
            external.ended(&record, keep.is_some(), ending).await;
        }
        if matches!(ending, Ending::TakenOver | Ending::Kicked) || !self.stored.get() {
            return;
        }
        if let Err(error) = self.worker.store.end(&record.sid, Some(record.epoch), keep).await {
            // The record expires by itself.
            debug!(%error, "session not ended in the store");
        }
    }

    /// The closing handshake; a worker that stops sends its close frame, and does not wait for the client's.
    async fn close(&self, ending: &Ending) {
        if matches!(ending, Ending::TransportError(_)) {
            return self.send_rest().await;
        }
        if matches!(ending, Ending::Drain) {
            count(&self.worker.counters.closed_by_drain, 1);
        }
        let mut phase = self.worker.lifecycle.phase.subscribe();
        tokio::select! {
            biased;
            () = close(&self.ws, ending.close_frame()) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
        }
    }

    /// A client that has closed its direction without a close frame may still take what was answered.
    async fn send_rest(&self) {
        let sent = poll_fn(|cx| self.ws.borrow_mut().get_mut().poll_send(cx));
        if !matches!(timeout(REST_LINGER, sent).await, Ok(Ok(()))) {
            debug!("client did not read the rest");
        }
    }
}

/// What a fault of reading means. The codes are those of RFC 6455, 7.4.1; `ws`, below the reference server, sends the same.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors; all others mean the same to us"
)]
pub(crate) fn read_failed(error: WsError) -> Ending {
    match error {
        WsError::Capacity(_) => Ending::PayloadTooLarge,
        WsError::ConnectionClosed | WsError::AlreadyClosed => Ending::TransportClosed,
        WsError::Io(e) => match e.get_ref().and_then(|e| e.downcast_ref::<Refused>()) {
            Some(Refused::OverBudget) => Ending::OverBudget,
            Some(Refused::TooLarge) => Ending::PayloadTooLarge,
            None => Ending::TransportError(e.kind().to_string()),
        },
        // The end of the stream; all other faults of the protocol are frames against the rules.
        WsError::Protocol(end @ ProtocolError::ResetWithoutClosingHandshake) => Ending::TransportError(end.to_string()),
        WsError::Protocol(fault) => Ending::BadFrame(CloseCode::Protocol, fault.to_string()),
        WsError::Utf8(_) => Ending::BadFrame(CloseCode::Invalid, "a text is not UTF-8".to_owned()),
        other => Ending::TransportError(other.to_string()),
    }
}
