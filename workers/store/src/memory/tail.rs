//! The tail in memory: reads the log where it stands.

use super::{PURGE_INTERVAL, Space};
use crate::options::Options;
use crate::tail::{ResetReason, TailEvent};
use rustc_hash::FxHashSet;
use session::{Offset, Sid};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Entries of one event.
const CHUNK_ENTRIES: usize = 256;

/// What a worker listens with. A sid stands in `wakes` only once, so there are never more of them
/// than sessions.
#[derive(Default)]
pub(super) struct MemoryInbox {
    wakes: RefCell<(VecDeque<Sid>, FxHashSet<Sid>)>,
    changed: Notify,
}

impl MemoryInbox {
    pub(super) fn wake(&self, sid: &Sid) {
        let (queue, present) = &mut *self.wakes.borrow_mut();
        if present.insert(sid.clone()) {
            queue.push_back(sid.clone());
        }
        self.changed.notify_one();
    }

    pub(super) fn appended(&self) {
        self.changed.notify_one();
    }

    fn take_wake(&self) -> Option<Sid> {
        let (queue, present) = &mut *self.wakes.borrow_mut();
        let sid = queue.pop_front()?;
        present.remove(&sid);
        Some(sid)
    }
}

pub(crate) struct MemoryTail {
    space: Rc<RefCell<Space>>,
    inbox: Rc<MemoryInbox>,
    position: Offset,
    canary_interval: Duration,
    canary_at: Instant,
    purge_at: Instant,
}

impl fmt::Debug for MemoryTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTail")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl MemoryTail {
    pub(super) fn new(space: &Rc<RefCell<Space>>, inbox: Rc<MemoryInbox>, options: &Options) -> Self {
        let now = Instant::now();
        let position = space.borrow().log.head();
        Self {
            space: Rc::clone(space),
            inbox,
            position,
            canary_interval: options.canary_interval,
            canary_at: now + options.canary_interval,
            purge_at: now + PURGE_INTERVAL,
        }
    }

    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    /// Cancel-safe: what is taken is returned in the same step.
    pub(crate) async fn next(&mut self) -> TailEvent {
        loop {
            if let Some(event) = self.take(Instant::now()) {
                return event;
            }
            let until = self.canary_at.min(self.purge_at);
            tokio::select! {
                () = self.inbox.changed.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<TailEvent> {
        if now >= self.purge_at {
            self.purge_at = now + PURGE_INTERVAL;
            self.space.borrow_mut().purge(now);
        }
        if let Some(sid) = self.inbox.take_wake() {
            return Some(TailEvent::Wake(sid));
        }
        if now >= self.canary_at {
            self.canary_at = now + self.canary_interval;
            let behind = self.space.borrow().log.head().seq().saturating_sub(self.position.seq());
            return Some(TailEvent::Canary {
                behind,
                took: Some(Duration::ZERO),
            });
        }
        let space = self.space.borrow();
        let (start, from) = (space.log.start(), self.position);
        if from < start {
            self.position = start;
            return Some(TailEvent::Reset {
                from,
                to: start,
                reason: ResetReason::Trimmed,
            });
        }
        let entries = space.log.after(from, CHUNK_ENTRIES, usize::MAX);
        let (last, _) = entries.last()?;
        self.position = *last;
        Some(TailEvent::Entries(entries))
    }
}
