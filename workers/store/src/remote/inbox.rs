//! Events between the tailer and its consumer: bounded in bytes, because entries that find no
//! room are still in Redis.

use crate::limits::TAIL_BYTES_MAX;
use crate::tail::TailEvent;
use rustc_hash::FxHashSet;
use session::Sid;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;

/// What an event costs besides its entries, in bytes.
const EVENT_BYTES: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: RefCell<VecDeque<TailEvent>>,
    /// Sids whose wake is in `events` already.
    wakes: RefCell<FxHashSet<Sid>>,
    /// Whether a canary is in `events` already.
    canary: Cell<bool>,
    bytes: Cell<usize>,
    some: Notify,
    room: Notify,
}

fn size(event: &TailEvent) -> usize {
    let payload = match event {
        TailEvent::Entries(entries) => entries.iter().map(|(_, bytes)| EVENT_BYTES + bytes.len()).sum(),
        TailEvent::Canary { .. }
        | TailEvent::Stalled
        | TailEvent::Down(_)
        | TailEvent::Reset { .. }
        | TailEvent::Up
        | TailEvent::Wake(_) => 0,
    };
    EVENT_BYTES + payload
}

impl Inbox {
    /// Whether entries may be added; one batch may go beyond the limit.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.get() < TAIL_BYTES_MAX
    }

    /// Waits until it was taken from.
    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// Adds an event. The caller has asked whether there is room for entries; the other kinds are
    /// few, and a wake and a canary stand here only once.
    pub(super) fn push(&self, event: TailEvent) {
        if let TailEvent::Wake(sid) = &event
            && !self.wakes.borrow_mut().insert(sid.clone())
        {
            return;
        }
        if matches!(event, TailEvent::Canary { .. }) && self.canary.replace(true) {
            return;
        }
        self.bytes.set(self.bytes.get() + size(&event));
        self.events.borrow_mut().push_back(event);
        self.some.notify_one();
    }

    /// The next event. Cancel-safe: it is taken in the same step in which it is returned.
    pub(super) async fn next(&self) -> TailEvent {
        loop {
            let event = self.events.borrow_mut().pop_front();
            if let Some(event) = event {
                if let TailEvent::Wake(sid) = &event {
                    self.wakes.borrow_mut().remove(sid);
                }
                if matches!(event, TailEvent::Canary { .. }) {
                    self.canary.set(false);
                }
                self.bytes.set(self.bytes.get().saturating_sub(size(&event)));
                if self.has_room() {
                    self.room.notify_one();
                }
                return event;
            }
            self.some.notified().await;
        }
    }
}
