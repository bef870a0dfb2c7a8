//! What goes to the client: frames are put into the link's buffer, and leave at the end of the connection's turn, or of the
//! batch of the log they came with. What does not go out at once is left to the connection's task.

use super::{Connection, Link};
use crate::ending::Ending;
use crate::fault::{self, Copies};
use crate::hub::Subscriber;
use crate::metrics::{Carried, Slow};
use crate::orders::Order;
use crate::packet::Packet;
use crate::ring::Logged;
use session::EntryKind;
use std::task::{Context, Poll};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

/// A WebSocket writes at the latest when this many bytes wait; normally at the end of a batch.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

impl Connection {
    /// Puts a packet into the write buffer.
    pub(crate) fn send(&self, packet: &Packet) {
        if !packet.text.is_empty() {
            self.put(Data::Text, packet.text.as_bytes());
        }
        packet.attachments.iter().for_each(|bytes| self.put_binary(bytes));
    }

    /// The same with a text or binary message.
    pub(super) fn send_message(&self, message: &Message) {
        match message {
            Message::Text(text) => self.put(Data::Text, text.as_bytes()),
            Message::Binary(bytes) => self.put_binary(bytes),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }

    fn put_binary(&self, bytes: &[u8]) {
        if self.style.base64 {
            self.put(Data::Text, Packet::as_text(bytes).as_bytes());
        } else {
            self.put(Data::Binary, bytes);
        }
    }

    fn put(&self, kind: Data, payload: &[u8]) {
        if self.overflowed.get() {
            return;
        }
        self.dirty.set(true);
        let mut ws = self.ws.borrow_mut();
        let (link, max) = (ws.get_mut(), self.worker.settings.limits.outbox_bytes_max);
        let early = WRITE_BUFFER_BYTES.min(max / 2);
        if link.unsent() > 0 && link.unsent() + payload.len() > early && !self.stuck.get() {
            self.send_some(link);
        }
        if !link.put(kind, payload, max) {
            self.overflowed.set(true);
            self.end(Ending::SlowClient);
        } else if link.unsent() > early && !self.stuck.get() {
            // What is large goes out at once: in all outboxes of a room it would take a large part of the budget.
            self.send_some(link);
        }
    }

    /// Puts an entry of the log into the write buffer; whether it is the first thing there.
    fn put_entry(&self, logged: &Logged, with_offset: bool) -> bool {
        let metrics = &self.worker.metrics;
        if self.stuck.get() && logged.entry.kind == EntryKind::Volatile {
            metrics.slow_consumers.one(Slow::Dropped);
            return false;
        }
        metrics.events_out.one(Carried::Websocket);
        let first = !self.dirty.get();
        self.put(Data::Text, logged.text(with_offset).as_bytes());
        for attachment in &logged.entry.attachments {
            self.put_binary(attachment);
        }
        first
    }

    pub(super) fn flush(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        if !self.dirty.get() && !self.stuck.get() {
            return Poll::Pending;
        }
        self.dirty.set(false);
        match self.ws.borrow_mut().get_mut().poll_send(cx) {
            Poll::Ready(Ok(())) => self.set_stuck(false),
            Poll::Ready(Err(e)) => return Poll::Ready(Ending::TransportError(e.to_string())),
            Poll::Pending => self.set_stuck(true),
        }
        Poll::Pending
    }

    pub(super) fn set_stuck(&self, stuck: bool) {
        if self.stuck.replace(stuck) != stuck {
            let all = &self.worker.counters.stuck;
            all.set(if stuck {
                all.get() + 1
            } else {
                all.get().saturating_sub(1)
            });
        }
    }

    /// Writes what can be written at once.
    fn send_some(&self, link: &mut Link) {
        match link.try_send() {
            Ok(true) => {}
            Ok(false) => {
                self.set_stuck(true);
                self.waker.borrow().wake_by_ref();
            }
            Err(e) => self.end(Ending::TransportError(e.to_string())),
        }
    }
}

impl Subscriber for Connection {
    fn deliver(&self, logged: &Logged, with_offset: bool) -> bool {
        match fault::delivery() {
            Copies::One => self.put_entry(logged, with_offset),
            #[cfg(feature = "faults")]
            Copies::None => false,
            #[cfg(feature = "faults")]
            Copies::Two => self.put_entry(logged, with_offset) | self.put_entry(logged, with_offset),
        }
    }

    fn obey(&self, logged: &Logged, order: &Order) {
        Self::obey(self, logged, order);
    }

    /// What does not go out at once is left to the task.
    fn flush(&self) {
        if self.dirty.get() && !self.stuck.get() {
            self.dirty.set(false);
            self.send_some(self.ws.borrow_mut().get_mut());
        }
    }
}
