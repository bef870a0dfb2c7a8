//! The log's end, as this worker hears it: entries into the ring and to the hub's members, wakes to
//! parked polls.

use crate::ending::Ending;
use crate::metrics::Reset;
use crate::orders::Order;
use crate::ring::Logged;
use crate::worker::Worker;
use session::EntryKind;
use std::rc::Rc;
use store::{ResetReason, Tail, TailEvent};
use tracing::{info, warn};

/// Runs as long as the worker.
pub(crate) async fn run(worker: Rc<Worker>, mut tail: Tail) {
    loop {
        let event = tail.next().await;
        worker.canary_seen.set(tail.heard());
        match event {
            TailEvent::Entries(entries) => {
                worker.metrics.entries.add(entries.len() as u64);
                for (offset, bytes) in entries {
                    if let Some(logged) = Logged::read(offset, &bytes, &worker.limits, &worker.unreadable) {
                        take(&worker, logged);
                    }
                }
                worker.hub.borrow_mut().flush();
            }
            TailEvent::Canary { took: None, .. } => {}
            TailEvent::Canary { took: Some(took), .. } => worker.metrics.canary.observe(took.as_secs_f64()),
            TailEvent::Wake(sid) => worker.hub.borrow().wake(&sid),
            TailEvent::Reset { from, to, reason } => {
                warn!(%from, %to, ?reason, "log entries lost");
                worker.metrics.resets.one(match reason {
                    ResetReason::RedisLostData => Reset::RedisLostData,
                    ResetReason::Trimmed => Reset::Trimmed,
                });
                worker.ring.borrow_mut().reset(to);
                // Never silent: a client that missed something comes back, and is told that it cannot be made
                // good. A Redis that lost its data may have taken nothing with it that we have not seen:
                // what is connected stays connected.
                if reason == ResetReason::Trimmed {
                    for (_, socket) in worker.sockets.borrow().iter() {
                        socket.end(Ending::LogLost);
                    }
                }
                worker.hub.borrow().wake_all();
            }
            TailEvent::Stalled => {
                info!(position = %tail.position(), "log caught up by reading");
                worker.hub.borrow().wake_all();
            }
            TailEvent::Down(error) => {
                worker.tail_up.set(false);
                warn!(error, "log unreachable");
            }
            TailEvent::Up => {
                worker.tail_up.set(true);
                info!(position = %tail.position(), "log reachable again");
                // Wakes are not kept by Redis: any may have been missed.
                worker.hub.borrow().wake_all();
            }
        }
    }
}

fn take(worker: &Worker, logged: Rc<Logged>) {
    match logged.entry.kind {
        EntryKind::Ack | EntryKind::Emit | EntryKind::Volatile => worker.hub.borrow_mut().deliver(&logged),
        EntryKind::Takeover => taken_over(worker, &logged),
        EntryKind::Admit | EntryKind::Disconnect | EntryKind::Join | EntryKind::Leave | EntryKind::Refuse => {
            carry_out(worker, &logged);
        }
    }
    worker.ring.borrow_mut().push(logged);
}

/// Another worker resumed a session: a connection that still holds it is stale.
fn taken_over(worker: &Worker, logged: &Logged) {
    let text = std::str::from_utf8(&logged.entry.text).unwrap_or_default();
    let Some((sid, epoch)) = text.split_once(' ') else {
        return;
    };
    let Ok(epoch) = epoch.parse::<u64>() else { return };
    worker.evict(sid, epoch);
}

/// Hands an order from outside to the members that are meant.
fn carry_out(worker: &Worker, logged: &Logged) {
    let Some(order) = Order::of(logged) else {
        return;
    };
    // They change their places in the hub.
    let meant = worker.hub.borrow_mut().meant(logged);
    for subscriber in meant {
        subscriber.obey(logged, &order);
    }
}
