//! What this worker notes about the lives of sessions. Notes are collected in memory and written once a
//! second: no request waits for it, and a worker that is killed takes its last second along.

use crate::clock::unix_ms;
use boot::{Settings, Trace, TraceLevel};
use session::Sid;
use session::trace::{self, Value};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use store::{NoteBounds, Notes, Store};
use tracing::{debug, warn};

/// A batch that has grown so large is complete (bytes).
const BATCH_BYTES: usize = 32 * 1024;
/// Batches that wait for Redis; with one more the oldest is lost, which is counted.
const BATCHES_MAX: usize = 32;

/// The notes of one worker.
pub(crate) struct Tracer {
    level: TraceLevel,
    bounds: NoteBounds,
    /// Being written to.
    open: RefCell<Notes>,
    /// Complete, oldest first.
    waiting: RefCell<VecDeque<Notes>>,
    /// Batches begun.
    number: Cell<u64>,
    /// Notes that were lost since the last batch that was written.
    lost: Cell<u64>,
    /// Redis refused the latest batch, which was told.
    refused: Cell<bool>,
}

impl Tracer {
    pub(crate) fn new(settings: &Settings) -> Self {
        let Trace {
            level,
            bytes_max,
            age_max,
        } = settings.trace;
        Self {
            // Without Redis they could not be read.
            level: if settings.redis.is_some() {
                level
            } else {
                TraceLevel::Off
            },
            bounds: NoteBounds { bytes_max, age_max },
            open: RefCell::default(),
            waiting: RefCell::default(),
            number: Cell::new(0),
            lost: Cell::new(0),
            refused: Cell::new(false),
        }
    }

    /// Notes a step in the life of a session.
    pub(crate) fn note(&self, sid: &Sid, what: &str, fields: &[(&str, Value<'_>)]) {
        if self.level >= TraceLevel::Sessions {
            self.push(sid, what, fields);
        }
    }

    /// Notes a request of a polling session.
    pub(crate) fn request(&self, sid: &Sid, what: &str, fields: &[(&str, Value<'_>)]) {
        if self.level >= TraceLevel::Requests {
            self.push(sid, what, fields);
        }
    }

    fn push(&self, sid: &Sid, what: &str, fields: &[(&str, Value<'_>)]) {
        let now = unix_ms();
        let mut open = self.open.borrow_mut();
        if open.count == 0 {
            open.began_ms = now;
        }
        let after_ms = now.saturating_sub(open.began_ms);
        trace::write(&mut open.text, after_ms, sid, what, fields);
        open.count += 1;
        if open.text.len() >= BATCH_BYTES {
            self.complete(&mut open);
        }
    }

    /// The open batch waits for Redis, and another begins.
    fn complete(&self, open: &mut Notes) {
        if open.count == 0 {
            return;
        }
        self.number.set(self.number.get() + 1);
        open.number = self.number.get();
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(std::mem::take(open));
        if waiting.len() > BATCHES_MAX {
            let oldest = waiting.pop_front();
            self.lose(oldest.map_or(0, |notes| notes.count));
        }
    }

    fn lose(&self, count: u64) {
        self.lost.set(self.lost.get() + count);
    }

    /// Writes everything there is, as far as Redis takes it.
    pub(crate) async fn write(&self, store: &Store) {
        self.complete(&mut self.open.borrow_mut());
        loop {
            let Some(mut notes) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            notes.lost = self.lost.take();
            let error = match store.trace(&notes, self.bounds).await {
                Ok(()) => {
                    self.refused.set(false);
                    continue;
                }
                Err(error) => error,
            };
            self.lose(notes.lost);
            if !error.passing() {
                if !self.refused.replace(true) {
                    warn!(%error, "notes about sessions refused");
                }
                self.lose(notes.count);
                continue;
            }
            debug!(%error, "notes about sessions wait");
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() < BATCHES_MAX {
                waiting.push_front(notes);
            } else {
                self.lose(notes.count);
            }
            return;
        }
    }
}
