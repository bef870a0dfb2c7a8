//! What a client that comes back has missed, sent as fast as it reads: there may be far more of it than an
//! outbox holds.

use super::Connection;
use crate::catchup::Extent;
use crate::ending::Ending;
use crate::metrics::Carried;
use crate::missed::{self, Interest, Missing};
use crate::packet::Packet;
use crate::resume::Found;
use crate::ring::Logged;
use futures_util::Sink;
use session::Offset;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use tokio::time::timeout;

/// So many bytes leave in one segment of the network, wholly or not at all.
const SEGMENT_BYTES: usize = 1200;
/// The part of an outbox that a replay fills before it waits for the client.
const OUTBOX_PART: usize = 4;

impl Connection {
    /// Sends what was missed and the answer to CONNECT, then has the membership hear what comes. Nothing comes twice and
    /// nothing is left out.
    ///
    /// As in the reference server the answer goes last, if all of it is short. The official client keeps events that
    /// come before the answer even over a disconnect, and gets them again when it comes back; so of something longer, that
    /// could break off in the middle, the answer goes first, and the client's offset moves with every event.
    pub(super) async fn replay(self: &Rc<Self>, nsp: &str, found: Found) {
        let answer = Packet::connect(nsp, &found.joined);
        if let Err(error) = self.send_missed(nsp, found, answer).await {
            tracing::debug!(%error, "replay overtaken");
            self.end(match error {
                Missing::Store(_) => Ending::StoreUnavailable,
                Missing::EndLost | Missing::TooLarge(_) | Missing::TooMany(_) | Missing::Trimmed => Ending::SlowClient,
            });
        }
    }

    /// Bytes that a replay sends before it waits for the client.
    pub(super) fn replay_part(&self) -> usize {
        self.worker.settings.limits.outbox_bytes_max / OUTBOX_PART
    }

    async fn send_missed(self: &Rc<Self>, nsp: &str, found: Found, answer: Packet) -> Result<(), Missing> {
        let (mut older, mut answer) = (found.older, Some(answer));
        let part = self.replay_part();
        let (metrics, mut recovered) = (&self.worker.metrics, 0);
        loop {
            // Not there: only a part of what is older than the ring is here, or the ring has moved on since.
            let newer = self.newer(older.position);
            let is_all = newer.is_some();
            let (newer, position) = newer.unwrap_or_else(|| (Vec::new(), older.position));
            // An order from outside may have changed it meanwhile.
            let Some(joined) = self.record.borrow().namespaces.get(nsp).cloned() else {
                return Ok(());
            };
            let entries = older.entries.iter().chain(&newer);
            let packets: Vec<Packet> = missed::replay(nsp, &joined, entries).collect();
            let bytes: usize = packets.iter().map(Packet::size).sum();
            recovered += packets.len();
            metrics.events_out.add(Carried::Websocket, packets.len() as u64);
            if bytes > SEGMENT_BYTES || !is_all {
                answer.take().into_iter().for_each(|answer| self.send(&answer));
            }
            if is_all && bytes <= part {
                // From the look at the ring to the place in the hub without an await.
                packets.into_iter().chain(answer).for_each(|packet| self.send(&packet));
                self.enter_hub(nsp, &joined, joined.since);
                metrics.note_recovered(recovered);
                return Ok(());
            }
            if !self.send_slowly(packets, part).await {
                return Ok(());
            }
            older.release();
            let interest = Interest::Membership {
                nsp: nsp.to_owned(),
                joined,
            };
            older = self
                .worker
                .catch_up
                .older_than_ring(position, Extent::Some(part), interest)
                .await?;
        }
    }

    /// Sends packets, and waits each time `part` bytes are on their way until the client has taken them; false if it does
    /// not.
    async fn send_slowly(&self, packets: Vec<Packet>, part: usize) -> bool {
        let mut unread = 0;
        for packet in packets {
            if unread > 0 && unread + packet.size() > part {
                if !self.drained().await {
                    return false;
                }
                unread = 0;
            }
            unread += packet.size();
            self.send(&packet);
        }
        self.drained().await
    }

    /// What the ring has after a position, and up to where.
    fn newer(&self, position: Offset) -> Option<(Vec<Rc<Logged>>, Offset)> {
        let ring = self.worker.ring.borrow();
        let newer = ring.after(position)?.cloned().collect();
        Some((newer, ring.head()))
    }

    /// Waits until everything was written; false if that takes longer than a client may be silent. An error shows at the
    /// next write.
    async fn drained(&self) -> bool {
        let engine = &self.worker.settings.engine;
        let flushed = poll_fn(|cx| Pin::new(&mut *self.ws.borrow_mut()).poll_flush(cx));
        let in_time = timeout(engine.ping_interval + engine.ping_timeout, flushed)
            .await
            .is_ok();
        if !in_time {
            self.end(Ending::SlowClient);
        }
        in_time
    }
}
