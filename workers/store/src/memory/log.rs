//! The log in memory.

use super::Memory;
use crate::answer::{Appended, Part};
use crate::dedupe::Dedupe;
use crate::error::AppendError;
use crate::limits::PART_BYTES_MAX;
use crate::options::Options;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use session::Offset;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

pub(super) struct Log {
    entries: VecDeque<(Offset, Bytes, Instant)>,
    head: Offset,
    dedupe: FxHashMap<String, (Offset, Instant)>,
    entries_max: usize,
    /// Of the entries.
    bytes: u64,
    bytes_max: u64,
    age_max: Duration,
}

impl Log {
    pub(super) fn new(options: &Options) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            entries: VecDeque::new(),
            head: Offset::new(u64::try_from(since.as_millis()).unwrap_or(1), 0),
            dedupe: FxHashMap::default(),
            entries_max: usize::try_from(options.log_entries_max).unwrap_or(usize::MAX),
            bytes: 0,
            bytes_max: options.log_bytes_max,
            age_max: options.log_age_max,
        }
    }

    pub(super) fn head(&self) -> Offset {
        self.head
    }

    /// Trims what is too old, and forgets dedupe ids.
    pub(super) fn purge(&mut self, now: Instant) {
        let age_max = self.age_max;
        let old = |at: &Instant| now.saturating_duration_since(*at) > age_max;
        while self.entries.front().is_some_and(|(_, _, at)| old(at)) {
            self.drop_oldest();
        }
        self.dedupe.retain(|_, (_, until)| *until > now);
    }

    fn append(&mut self, entry: Bytes, dedupe: Option<Dedupe>, window: Duration, now: Instant) -> Appended {
        let offset = self.head.next();
        if let Some(id) = dedupe {
            if let Some((before, until)) = self.dedupe.get(id.id())
                && *until > now
            {
                return Appended {
                    offset: *before,
                    duplicate: true,
                };
            }
            self.dedupe.insert(id.id().to_owned(), (offset, now + window));
        }
        self.head = offset;
        self.bytes += entry.len() as u64;
        self.entries.push_back((offset, entry, now));
        while self.entries.len() > self.entries_max || (self.bytes > self.bytes_max && self.entries.len() > 1) {
            self.drop_oldest();
        }
        Appended {
            offset,
            duplicate: false,
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, entry, _)) = self.entries.pop_front() {
            self.bytes = self.bytes.saturating_sub(entry.len() as u64);
        }
    }

    /// Bytes of the entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Position before the oldest entry.
    pub(super) fn start(&self) -> Offset {
        let first = self.entries.front().map(|(offset, _, _)| *offset);
        first.map_or(self.head, |first| {
            Offset::new(first.epoch(), first.seq().saturating_sub(1))
        })
    }

    /// At most `max` entries after a position of this log, and no more than this many bytes unless the first is larger.
    pub(super) fn after(&self, position: Offset, max: usize, bytes_max: usize) -> Vec<(Offset, Bytes)> {
        let skip = position.seq().saturating_sub(self.start().seq());
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |(_, entry, _): &&(Offset, Bytes, Instant)| {
            let is_first = bytes == 0;
            bytes += entry.len();
            is_first || bytes <= bytes_max
        };
        let rest = self.entries.iter().skip(skip).take(max).take_while(fits);
        rest.map(|(offset, bytes, _)| (*offset, bytes.clone())).collect()
    }
}

impl Memory {
    pub(crate) fn append(&self, entry: Bytes, dedupe: Option<Dedupe>) -> Result<Appended, AppendError> {
        let max = self.options.entry_bytes_max;
        if entry.len() > max {
            return Err(AppendError::TooLarge {
                bytes: entry.len(),
                max,
            });
        }
        let mut space = self.space.borrow_mut();
        let appended = space
            .log
            .append(entry, dedupe, self.options.dedupe_window, Instant::now());
        if !appended.duplicate {
            for inbox in space.inboxes.values() {
                inbox.appended();
            }
        }
        Ok(appended)
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.space.borrow().log.bytes()
    }

    pub(crate) fn end_of_log(&self) -> Offset {
        self.space.borrow().log.head()
    }

    pub(crate) fn part(&self, after: Offset, upto: Offset) -> Part {
        let space = self.space.borrow();
        let (start, head) = (space.log.start(), space.log.head());
        if after.epoch() != upto.epoch() || upto.epoch() != head.epoch() || upto > head {
            return Part::Trimmed;
        }
        if after >= upto {
            return Part::Entries(Vec::new());
        }
        if after < start {
            return Part::Trimmed;
        }
        let wanted = usize::try_from(upto.seq().saturating_sub(after.seq())).unwrap_or(usize::MAX);
        Part::Entries(space.log.after(after, wanted, PART_BYTES_MAX))
    }
}
