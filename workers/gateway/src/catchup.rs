//! Reads what is older than the ring from the log: once for all sessions that need it.
//!
//! After a crash, hundreds of sessions come back within a second and need nearly the same part of the log. If each of
//! them read it, Redis would answer the same megabytes hundreds of times. Instead a session says from where it needs the
//! log and what concerns it. One task per worker reads part after part, always for the session that has waited longest, and
//! shows each entry to all sessions that have come that far. It never reads what is in the ring.

use crate::lines::Lines;
use crate::missed::{Interest, Missing};
use crate::ring::{Logged, Ring};
use bytes::Bytes;
use session::{Limits, Offset};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use store::{Part, Store, StoreError};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// Bytes of entries that one session may have missed: more than a client takes in a reasonable time.
pub(crate) const SESSION_BYTES_MAX: usize = 64 << 20;
/// Bytes of entries that are collected for sessions of the worker and not yet written to their clients. Beyond it the
/// session that has waited longest continues, and those that came last begin again when it is their turn.
const COLLECTED_BYTES_MAX: usize = 32 << 20;
/// After this many looks at an entry for a session, other tasks of the event loop get their turn: about a millisecond.
const LOOKS_PER_TURN: usize = 20_000;
/// Between two parts the task pauses for as long as the reading took, but no longer than this, so that other commands of
/// this worker and of others get their turn at Redis.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How much of what concerns a session is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    All,
    /// The first entries, of this many bytes. The rest is read and counted, to know whether it is too much.
    Counted(usize),
    /// The first entries, of this many bytes; the reading ends there.
    Some(usize),
}

/// What was found for a session.
pub(crate) struct Caught {
    /// What concerns it, in order.
    pub(crate) entries: Vec<Rc<Logged>>,
    /// Everything up to this position that concerns the session is in `entries`. If all of it was wanted, the ring has what
    /// follows.
    pub(crate) position: Offset,
    held: Held,
}

impl Caught {
    /// Frees the memory for other sessions: the entries are written, or not needed.
    pub(crate) fn release(&mut self) {
        self.entries = Vec::new();
        self.held.set(0);
    }
}

/// Bytes of collected entries, counted for the worker until this is dropped.
struct Held {
    all: Rc<Cell<usize>>,
    own: usize,
}

impl Held {
    fn set(&mut self, bytes: usize) {
        self.all.set(self.all.get() - self.own + bytes);
        self.own = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The sessions of a worker that wait for a part of the log, and where they get it from.
pub(crate) struct CatchUp {
    store: Store,
    ring: Rc<RefCell<Ring>>,
    limits: Limits,
    /// `recovery.entries_max`.
    entries_max: usize,
    unreadable: Rc<Lines>,
    /// Those that the task has not seen yet.
    arrived: RefCell<Vec<Reader>>,
    /// Whether the task runs.
    runs: Cell<bool>,
    /// Bytes that are collected; see [`COLLECTED_BYTES_MAX`].
    collected: Rc<Cell<usize>>,
    /// Bytes that were read.
    reread: Cell<u64>,
}

impl CatchUp {
    pub(crate) fn new(
        store: Store,
        ring: Rc<RefCell<Ring>>,
        limits: Limits,
        entries_max: usize,
        unreadable: Rc<Lines>,
    ) -> Rc<Self> {
        Rc::new(Self {
            store,
            ring,
            limits,
            entries_max,
            unreadable,
            arrived: RefCell::default(),
            runs: Cell::new(false),
            collected: Rc::default(),
            reread: Cell::new(0),
        })
    }

    /// Bytes of entries that were read from Redis.
    pub(crate) fn reread(&self) -> u64 {
        self.reread.get()
    }

    fn floor(&self) -> Offset {
        self.ring.borrow().floor()
    }

    /// Finds what a session has missed after a position and the ring no longer has. If all of it was wanted, the ring has what
    /// follows the position of the answer; it must be taken from there without an await in between.
    ///
    /// # Errors
    /// When the log does not reach back so far, when it is more than `recovery.entries_max` or [`SESSION_BYTES_MAX`], or when
    /// Redis does not answer.
    pub(crate) async fn older_than_ring(
        self: &Rc<Self>,
        after: Offset,
        extent: Extent,
        interest: Interest,
    ) -> Result<Caught, Missing> {
        let held = Held {
            all: self.collected.clone(),
            own: 0,
        };
        let mut reader = Reader::new(after, extent, interest, held);
        while !reader.is_done(self.floor(), self.entries_max) {
            reader = self.wait(reader).await?;
            // Between the answer and this look the ring may have dropped what follows. A caller that wants a part looks there itself.
            if extent != Extent::All {
                break;
            }
        }
        reader.caught(self.entries_max)
    }

    /// Has the task read until a session is done. Returns it as far as it has come.
    async fn wait(self: &Rc<Self>, mut reader: Reader) -> Result<Reader, Missing> {
        let (done, outcome) = oneshot::channel();
        reader.done = Some(done);
        self.arrived.borrow_mut().push(reader);
        if !self.runs.replace(true) {
            tokio::task::spawn_local(self.clone().run());
        }
        let stops = || StoreError::Unavailable {
            op: "part",
            reason: "the worker stops".to_owned(),
        };
        outcome.await.unwrap_or_else(|_| Err(Missing::Store(stops())))
    }

    /// Reads for the sessions that wait, the one that has waited longest first, until there is none.
    async fn run(self: Rc<Self>) {
        let mut readers: Vec<Reader> = Vec::new();
        loop {
            take_in(&mut readers, &mut self.arrived.borrow_mut());
            finish(&mut readers, self.floor(), self.entries_max);
            let Some(after) = readers.first().map(|first| first.position) else {
                self.runs.set(false);
                return;
            };
            make_room(&self.collected, &mut readers);
            let begun = Instant::now();
            match self.read(after).await {
                Ok((entries, upto)) => show(&mut readers, &entries, after, upto).await,
                Err(missing) => fail(&mut readers, after, &missing),
            }
            sleep(begun.elapsed().min(PAUSE_MAX)).await;
        }
    }

    /// The next part of the log, and the position up to which it goes.
    async fn read(&self, after: Offset) -> Result<(Vec<Rc<Logged>>, Offset), Missing> {
        let floor = self.floor();
        match self.store.part(after, floor).await? {
            Part::Trimmed => Err(Missing::Trimmed),
            Part::Entries(entries) => {
                let bytes: u64 = entries.iter().map(|(_, bytes)| bytes.len() as u64).sum();
                self.reread.set(self.reread.get() + bytes);
                let upto = entries.last().map_or(floor, |(offset, _)| *offset);
                // A copy of each: one small entry that is kept would keep the whole part in memory.
                let copies = entries
                    .iter()
                    .map(|(offset, bytes)| (*offset, Bytes::copy_from_slice(bytes)));
                let entries =
                    copies.filter_map(|(offset, bytes)| Logged::read(offset, &bytes, &self.limits, &self.unreadable));
                Ok((entries.collect(), upto))
            }
        }
    }
}

/// Shows the entries after a position to the sessions that have come that far.
async fn show(readers: &mut [Reader], entries: &[Rc<Logged>], after: Offset, upto: Offset) {
    let mut looks = 0;
    for reader in readers
        .iter_mut()
        .filter(|reader| (after..upto).contains(&reader.position))
    {
        reader.take(entries, upto);
        looks += entries.len();
        if looks >= LOOKS_PER_TURN {
            looks = 0;
            yield_now().await;
        }
    }
}

/// Queues the sessions that have arrived. One that was answered already, and needs the few entries that the ring has dropped
/// since, goes first: behind others it would never catch up.
fn take_in(readers: &mut Vec<Reader>, arrived: &mut Vec<Reader>) {
    for reader in arrived.drain(..) {
        if reader.position > reader.after {
            readers.insert(0, reader);
        } else {
            readers.push(reader);
        }
    }
}

/// Answers the sessions that need no further part.
fn finish(readers: &mut Vec<Reader>, floor: Offset, entries_max: usize) {
    for reader in readers.extract_if(.., |reader| reader.is_gone() || reader.is_done(floor, entries_max)) {
        reader.answer(None);
    }
}

/// Answers the sessions that cannot be told what they missed: all, if Redis did not answer; those that are not further
/// than a part that is gone.
fn fail(readers: &mut Vec<Reader>, after: Offset, missing: &Missing) {
    let is_gone = matches!(missing, Missing::Trimmed);
    for reader in readers.extract_if(.., |reader| !is_gone || reader.position <= after) {
        reader.answer(Some(missing.clone()));
    }
}

/// Has the sessions that came last give up what they collected, while there is too much of it.
fn make_room(collected: &Cell<usize>, readers: &mut [Reader]) {
    let Some((_, later)) = readers.split_first_mut() else {
        return;
    };
    for reader in later.iter_mut().rev() {
        if collected.get() <= COLLECTED_BYTES_MAX {
            return;
        }
        reader.begin_anew();
    }
}

/// A session on its way through the log.
struct Reader {
    /// Where it begins.
    after: Offset,
    /// How far it has come.
    position: Offset,
    extent: Extent,
    interest: Interest,
    entries: Vec<Rc<Logged>>,
    /// Position of the last of `entries`, once it has as many as it wants.
    full_at: Option<Offset>,
    /// How many entries up to `position` concern it, and their bytes.
    count: usize,
    bytes: usize,
    held: Held,
    /// Where it goes when it needs no further part.
    done: Option<oneshot::Sender<Result<Self, Missing>>>,
}

impl Reader {
    const fn new(after: Offset, extent: Extent, interest: Interest, held: Held) -> Self {
        Self {
            after,
            position: after,
            extent,
            interest,
            entries: Vec::new(),
            full_at: None,
            count: 0,
            bytes: 0,
            held,
            done: None,
        }
    }

    /// Whether nothing waits for it any more.
    fn is_gone(&self) -> bool {
        self.done.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Takes what concerns it of a part of the log that holds all that follows its position, up to `upto`.
    fn take(&mut self, entries: &[Rc<Logged>], upto: Offset) {
        let first = entries.partition_point(|logged| logged.offset <= self.position);
        for logged in entries.iter().skip(first) {
            if !self.interest.concerns(logged) {
                continue;
            }
            let size = logged.entry.size();
            self.count += 1;
            self.bytes += size;
            if self.full_at.is_none() && self.collect(logged, size) {
                return;
            }
        }
        self.position = upto;
    }

    /// Keeps an entry; whether that is all that is wanted.
    fn collect(&mut self, logged: &Rc<Logged>, size: usize) -> bool {
        let (max, ends) = match self.extent {
            Extent::All => (usize::MAX, false),
            Extent::Counted(max) => (max, false),
            Extent::Some(max) => (max, true),
        };
        self.entries.push(logged.clone());
        self.held.set(self.held.own + size);
        if self.held.own < max {
            return false;
        }
        self.full_at = Some(logged.offset);
        ends
    }

    /// Gives up what it has, to read it later.
    fn begin_anew(&mut self) {
        self.entries = Vec::new();
        self.held.set(0);
        self.interest.begin_anew();
        (self.position, self.full_at, self.count, self.bytes) = (self.after, None, 0, 0);
    }

    fn is_done(&self, floor: Offset, entries_max: usize) -> bool {
        let has_enough = self.full_at.is_some() && matches!(self.extent, Extent::Some(_));
        has_enough || self.position >= floor || self.count > entries_max || self.bytes > SESSION_BYTES_MAX
    }

    /// What was found, unless it is more than is replayed.
    fn caught(self, entries_max: usize) -> Result<Caught, Missing> {
        if self.count > entries_max {
            return Err(Missing::TooMany(entries_max));
        }
        if self.bytes > SESSION_BYTES_MAX {
            return Err(Missing::TooLarge(SESSION_BYTES_MAX));
        }
        Ok(Caught {
            entries: self.entries,
            position: self.full_at.unwrap_or(self.position),
            held: self.held,
        })
    }

    /// Sends it back, or the reason why it cannot continue.
    fn answer(mut self, missing: Option<Missing>) {
        if let Some(done) = self.done.take() {
            // A session that is gone by now needs no answer.
            drop(done.send(missing.map_or(Ok(self), Err)));
        }
    }
}

#[cfg(test)]
mod tests;
