//! The store as its users see it; every call goes to Redis or to the twin.

mod applications;
mod tail;

pub use applications::Applications;
pub use tail::Tail;

use crate::answer::{
    Amended, Appended, Evictions, Part, Poll, PollMode, PostBegin, PostDone, PostEffects, RequestId, Restored, Saved,
    Touched, UpgradeBegin, UpgradeFinish, UpgradeStep,
};
use crate::counts::{Counts, Published};
use crate::dedupe::Dedupe;
use crate::error::{AppendError, StoreError};
use crate::ingest::IngestNames;
use crate::memory::Memory;
use crate::notes::{NoteBounds, Notes};
use crate::options::{Backend, Options};
use crate::remote::{Ingest, Remote};
use bytes::Bytes;
use futures_util::future::{Either, ready};
use session::{Offset, Pid, Record, Sid};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tail::TailInner;

/// Sessions, polls and the log. A cheap clone; one per worker.
///
/// Every call answers within the response timeout (twice that if a dead connection had to be
/// replaced first) with [`StoreError`] if Redis did not do it; see [`StoreError::passing`].
#[derive(Clone, Debug)]
pub struct Store {
    backend: Inner,
    counts: Rc<Counts>,
    requests: Rc<Cell<u64>>,
}

#[derive(Clone, Debug)]
enum Inner {
    Memory(Rc<Memory>),
    Remote(Rc<Remote>),
}

/// Hands a call to the backend; the twin answers at once.
macro_rules! ask {
    ($self:ident.$call:ident($($argument:expr),*)) => {
        match &$self.backend {
            Inner::Memory(memory) => Ok(memory.$call($($argument),*)),
            Inner::Remote(remote) => remote.$call($($argument),*).await,
        }
    };
}

impl Store {
    /// Opens the store: done once a first canary could be written and was heard, and the tailer stands at the
    /// head of the log. One attempt; the caller tries again.
    ///
    /// # Errors
    /// When Redis cannot be reached, takes no writes, or does not let us do what is needed.
    pub async fn open(options: Options) -> Result<(Self, Tail), StoreError> {
        let counts = Rc::new(Counts::new());
        let (backend, tail) = match options.backend.clone() {
            Backend::Memory => {
                let (memory, tail) = Memory::open(options);
                (Inner::Memory(Rc::new(memory)), TailInner::Memory(tail))
            }
            Backend::Redis(redis) => {
                let (remote, tail) = Remote::open(options, redis, &counts).await?;
                (Inner::Remote(Rc::new(remote)), TailInner::Remote(tail))
            }
        };
        Ok((
            Self {
                backend,
                counts,
                requests: Rc::default(),
            },
            Tail(tail),
        ))
    }

    /// What this worker's store has counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        match &self.backend {
            Inner::Memory(memory) => self.counts.log_bytes.set_count(memory.log_bytes()),
            Inner::Remote(remote) => remote.look(),
        }
        &self.counts
    }

    /// A further worker with the incarnation `me` over the same memory, for tests of several
    /// workers in one process; `None` if this store is in Redis.
    #[must_use]
    pub fn sibling(&self, me: &str) -> Option<(Self, Tail)> {
        match &self.backend {
            Inner::Memory(memory) => {
                let (memory, tail) = memory.sibling(me);
                let backend = Inner::Memory(Rc::new(memory));
                Some((
                    Self {
                        backend,
                        counts: Rc::default(),
                        requests: Rc::default(),
                    },
                    Tail(TailInner::Memory(tail)),
                ))
            }
            Inner::Remote(_) => None,
        }
    }

    /// An id for the next request.
    #[must_use]
    pub fn request(&self) -> RequestId {
        let next = self.requests.get().saturating_add(1);
        self.requests.set(next);
        RequestId::new(next)
    }

    /// Asks Redis for a sign of life; answers with the time it took.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        ask!(self.ping())
    }

    /// Whether a key that was given `ttl` may be gone because Redis' clock was set forward since.
    pub async fn clock_jumped(&self, ttl: Duration) -> bool {
        match &self.backend {
            Inner::Memory(_) => false,
            Inner::Remote(remote) => remote.clock_jumped(ttl).await,
        }
    }

    /// Whether the last command, or the tailer's connection, worked, and the latest canary could be written. Costs nothing.
    #[must_use]
    pub fn available(&self) -> bool {
        match &self.backend {
            Inner::Memory(_) => true,
            Inner::Remote(remote) => remote.available(),
        }
    }

    /// What Redis throws away when it is full; `None` without a Redis.
    ///
    /// # Errors
    /// [`StoreError`]; where `INFO` is not allowed it cannot be known.
    pub async fn evictions(&self) -> Result<Option<Evictions>, StoreError> {
        match &self.backend {
            Inner::Memory(_) => Ok(None),
            Inner::Remote(remote) => remote.evictions().await,
        }
    }

    /// Events from outside; `None` if the store is in memory, which no other program reaches.
    #[must_use]
    pub fn ingest(&self, names: IngestNames) -> Option<Ingest> {
        match &self.backend {
            Inner::Memory(_) => None,
            Inner::Remote(remote) => Some(remote.ingest(names)),
        }
    }

    /// The link to an application in processes of its own; `None` if the store is in memory, where no other process can come in.
    #[must_use]
    pub fn applications(&self) -> Option<Applications> {
        match &self.backend {
            Inner::Memory(_) => None,
            Inner::Remote(remote) => Some(Applications(remote.clone())),
        }
    }

    /// Stores a new session. `ttl` is its lifetime without a sign of life. For a polling session,
    /// `head` is the position of the log before which nothing concerns it, and its first ping is
    /// due one interval from now.
    ///
    /// # Errors
    /// [`StoreError`]; then it may exist until its TTL, but no client knows it.
    pub async fn create(&self, record: &Record, head: Offset, ttl: Duration) -> Result<(), StoreError> {
        self.create_for(record, &[], head, ttl).await
    }

    /// The same, for a handshake that came with ids. Requests of the session that come with one of them again are not
    /// told apart by it.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_for(
        &self,
        record: &Record,
        asked: &[RequestId],
        head: Offset,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        ask!(self.create(record, asked, head, ttl))
    }

    /// Changes a session's record from `before` to `after`, unless it is another one by now or a POST is at it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn amend(&self, before: &Record, after: &Record) -> Result<Amended, StoreError> {
        ask!(self.amend(before, after))
    }

    /// Reads a session's record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(&self, sid: &Sid) -> Result<Option<Record>, StoreError> {
        ask!(self.load(sid))
    }

    /// Writes a session's record if the stored one has `expected_epoch`, and prolongs it to `ttl`
    /// (not while it polls: then only a pong does). The holder of a parked poll elsewhere is woken.
    /// Writing the same record again is [`Saved::Done`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn save(&self, record: &Record, expected_epoch: u64, ttl: Duration) -> Result<Saved, StoreError> {
        ask!(self.save(record, expected_epoch, ttl))
    }

    /// Writes the record of a live WebSocket session that has none, because Redis lost its data.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn restore(&self, record: &Record, ttl: Duration) -> Result<Restored, StoreError> {
        ask!(self.restore(record, ttl))
    }

    /// Prolongs a session that gave a sign of life to `ttl` from now. For WebSocket sessions;
    /// those that poll are prolonged by the pong in [`Self::post_finish`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn touch(&self, sid: &Sid, ttl: Duration) -> Result<Touched, StoreError> {
        ask!(self.touch(sid, ttl))
    }

    /// Ends a session: its record, poll state and mail are deleted, and the worker of a parked poll
    /// is woken. With `expected_epoch`, only if the stored record has it (otherwise nothing is
    /// done). With `keep`, that record can be resumed for this long.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(
        &self,
        sid: &Sid,
        expected_epoch: Option<u64>,
        keep: Option<(&Record, Duration)>,
    ) -> Result<(), StoreError> {
        ask!(self.end(sid, expected_epoch, keep))
    }

    /// Finds what a client that resumes was: the record of the session that its pid now belongs to,
    /// living or lost. The caller checks that a namespace of it has this pid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resolve(&self, pid: &Pid) -> Result<Option<Record>, StoreError> {
        ask!(self.resolve(pid))
    }

    /// Moves a pid from the session `old_sid` to `new_sid`, if the old record, living or lost, has
    /// `expected_epoch`: puts `old` in its place (a copy with its epoch raised and the namespace
    /// removed; `None` deletes it) and points the pid to the new session for `ttl`. A parked poll
    /// of the old session is woken. Doing the same again is [`Saved::Done`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn takeover(
        &self,
        pid: &Pid,
        old: Option<&Record>,
        old_sid: &Sid,
        expected_epoch: u64,
        new_sid: &Sid,
        ttl: Duration,
    ) -> Result<Saved, StoreError> {
        ask!(self.takeover(pid, old, old_sid, expected_epoch, new_sid, ttl))
    }

    /// Prolongs the pointer from a pid to the session it was moved to, for sessions that outlive the
    /// `ttl` of [`Self::takeover`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn point(&self, pid: &Pid, sid: &Sid, ttl: Duration) -> Result<(), StoreError> {
        ask!(self.point(pid, sid, ttl))
    }

    /// Declares a worker dead: its leases are void from now on, on every host. Remembered for ten
    /// minutes, which is longer than any lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_dead(&self, incarnation: &str) -> Result<(), StoreError> {
        ask!(self.mark_dead(incarnation))
    }

    /// After a crash: goes through all sessions in small steps, and ends those whose WebSocket the
    /// dead worker held; with `window`, they can be resumed for this long. Returns which.
    ///
    /// # Errors
    /// [`StoreError`]; call it again.
    pub async fn sweep_dead(&self, incarnation: &str, window: Option<Duration>) -> Result<Vec<Sid>, StoreError> {
        ask!(self.sweep_dead(incarnation, window))
    }

    /// Writes notes about the lives of sessions; in memory, where no operator could read them, they are
    /// dropped.
    ///
    /// # Errors
    /// [`StoreError`]; the same notes may be written again, readers know them by their number.
    pub async fn trace(&self, notes: &Notes, bounds: NoteBounds) -> Result<(), StoreError> {
        match &self.backend {
            Inner::Memory(_) => Ok(()),
            Inner::Remote(remote) => remote.trace(notes, bounds).await,
        }
    }

    /// Counts the sessions of all workers, in small steps; approximate while they come and go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_sessions(&self) -> Result<u64, StoreError> {
        ask!(self.count_sessions())
    }

    /// A step of a poll; see [`PollMode`] and [`Poll`]. `head` is the position of this worker's
    /// tail. `known` is the revision of the record that the caller has, to save sending it again.
    ///
    /// # Errors
    /// [`StoreError`]. The same call (same `request`) may be repeated: it confirms, sends or takes
    /// nothing twice.
    pub async fn poll(
        &self,
        sid: &Sid,
        request: RequestId,
        mode: PollMode,
        head: Offset,
        known: Option<u64>,
    ) -> Result<Poll, StoreError> {
        ask!(self.poll(sid, request, mode, head, known))
    }

    /// Gives the lease of a parked poll back: it is answered by a noop, nothing was sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn poll_release(&self, sid: &Sid, request: RequestId) -> Result<(), StoreError> {
        ask!(self.poll_release(sid, request))
    }

    /// A POST has arrived; `known` as for [`Self::poll`].
    ///
    /// # Errors
    /// [`StoreError`]; may be repeated with the same `request`.
    pub async fn post_begin(&self, sid: &Sid, request: RequestId, known: Option<u64>) -> Result<PostBegin, StoreError> {
        ask!(self.post_begin(sid, request, known))
    }

    /// Stores what a POST led to, frees its lease, and wakes the parked poll if there is anything
    /// for it (mail or a changed record). The record is written only if the stored one has the
    /// same epoch.
    ///
    /// # Errors
    /// [`StoreError`]; may be repeated with the same `request`.
    pub async fn post_finish(
        &self,
        sid: &Sid,
        request: RequestId,
        effects: PostEffects<'_>,
    ) -> Result<PostDone, StoreError> {
        ask!(self.post_finish(sid, request, &effects))
    }

    /// Both in one step, for a whole POST of a session whose record of this `revision` the caller has. Only what
    /// needs nothing but the record may be handled like this: while anything else is under way, the lease of
    /// [`Self::post_begin`] keeps other POSTs out.
    ///
    /// # Errors
    /// [`StoreError`]; may be repeated with the same `request`.
    pub async fn post_at_once(
        &self,
        sid: &Sid,
        request: RequestId,
        revision: u64,
        effects: PostEffects<'_>,
    ) -> Result<PostDone, StoreError> {
        ask!(self.post_at_once(sid, request, revision, &effects))
    }

    /// A WebSocket wants to take over from polling. It has `timeout` to finish.
    ///
    /// # Errors
    /// [`StoreError`]; may be repeated with the same `request`.
    pub async fn upgrade_begin(
        &self,
        sid: &Sid,
        request: RequestId,
        timeout: Duration,
    ) -> Result<UpgradeBegin, StoreError> {
        ask!(self.upgrade_begin(sid, request, timeout))
    }

    /// The probe was answered: from now on polls end with a noop at once, also the parked one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn upgrade_probed(&self, sid: &Sid, request: RequestId) -> Result<UpgradeStep, StoreError> {
        ask!(self.upgrade_probed(sid, request))
    }

    /// The client has upgraded: ends polling.
    ///
    /// # Errors
    /// [`StoreError`]; may be repeated with the same `request` (for a minute).
    pub async fn upgrade_finish(&self, sid: &Sid, request: RequestId) -> Result<UpgradeFinish, StoreError> {
        ask!(self.upgrade_finish(sid, request))
    }

    /// The upgrade failed; the session continues by polling.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn upgrade_cancel(&self, sid: &Sid, request: RequestId) -> Result<UpgradeStep, StoreError> {
        ask!(self.upgrade_cancel(sid, request))
    }

    /// Appends an entry to the log. It is queued by the call itself, not when the future is polled:
    /// the order of calls is the order in the log; dropping the future does not take it back. With
    /// `dedupe`, an entry that was appended with the same id within the window is not appended again.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(
        &self,
        entry: Bytes,
        dedupe: Option<Dedupe>,
    ) -> impl Future<Output = Result<Appended, AppendError>> + use<> {
        match &self.backend {
            Inner::Memory(memory) => {
                let done = memory.append(entry, dedupe);
                self.counts.published.one(Published::of(&done));
                Either::Left(ready(done))
            }
            Inner::Remote(remote) => Either::Right(remote.append(entry, dedupe)),
        }
    }

    /// Position of the latest entry of the log, whether this worker's tail has heard it yet or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_of_log(&self) -> Result<Offset, StoreError> {
        ask!(self.end_of_log())
    }

    /// Reads the log after `after`, as far as `upto`, but no more than some 256 KiB at a time: ask again from the last entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn part(&self, after: Offset, upto: Offset) -> Result<Part, StoreError> {
        ask!(self.part(after, upto))
    }
}
