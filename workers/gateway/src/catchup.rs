//! Reads what is older than the ring from the log: once for all sessions that need it.
//!
//! After a crash, hundreds of sessions come back within a second and need nearly the same part of the log. If each of
//! them read it, Redis would answer the same megabytes hundreds of times. Instead a session says from where it needs the
//! log and what concerns it. One task per worker reads part after part, always for the session that has waited longest, and
//! shows each entry to all sessions that have come that far. It never reads what is in the ring.

use crate::missed::{self, Interest, Missing};
use crate::ring::Logged;
use crate::worker::Worker;
use bytes::Bytes;
use session::Offset;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use store::{Part, StoreError};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// Bytes of entries that one session may have missed: more than a client takes in a reasonable time.
pub(crate) const SESSION_BYTES_MAX: usize = 64 << 20;
/// Bytes of entries that are collected for sessions of the worker and not yet written to their clients. Beyond it the
/// session that has waited longest goes on, and those that came last begin anew when it is their turn.
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

/// The sessions of a worker that wait for a part of the log.
#[derive(Default)]
pub(crate) struct CatchUp {
    /// Those that the task has not seen yet.
    arrived: RefCell<Vec<Reader>>,
    /// Whether the task runs.
    runs: Cell<bool>,
    /// Bytes that are collected; see [`COLLECTED_BYTES_MAX`].
    collected: Rc<Cell<usize>>,
}

/// Finds what a session has missed after a position and the ring no longer has. What follows the position of the answer
/// must be taken from the ring without an await in between.
///
/// # Errors
/// When the log does not reach back so far, when it is more than `recovery.entries_max` or [`SESSION_BYTES_MAX`], or when
/// Redis does not answer.
pub(crate) async fn older_than_ring(
    worker: &Rc<Worker>,
    after: Offset,
    extent: Extent,
    interest: Interest,
) -> Result<Caught, Missing> {
    let state = &worker.catch_up;
    let held = Held {
        all: state.collected.clone(),
        own: 0,
    };
    if worker.ring.borrow().floor() <= after {
        return Ok(Caught {
            entries: Vec::new(),
            position: after,
            held,
        });
    }
    let (done, outcome) = oneshot::channel();
    state
        .arrived
        .borrow_mut()
        .push(Reader::new(after, extent, interest, held, done));
    if !state.runs.replace(true) {
        tokio::task::spawn_local(run(worker.clone()));
    }
    let stops = || StoreError::Unavailable {
        op: "part",
        reason: "the worker stops".to_owned(),
    };
    outcome.await.unwrap_or_else(|_| Err(Missing::Store(stops())))
}

/// Reads for the sessions that wait, the one that has waited longest first, until there is none.
async fn run(worker: Rc<Worker>) {
    let state = &worker.catch_up;
    let mut readers: Vec<Reader> = Vec::new();
    loop {
        readers.append(&mut state.arrived.borrow_mut());
        finish(&worker, &mut readers);
        let Some(after) = readers.first().map(|first| first.position) else {
            state.runs.set(false);
            return;
        };
        make_room(&state.collected, &mut readers);
        let begun = Instant::now();
        match read(&worker, after).await {
            Ok((entries, upto)) => show(&mut readers, &entries, after, upto).await,
            Err(missing) => fail(&mut readers, after, &missing),
        }
        sleep(begun.elapsed().min(PAUSE_MAX)).await;
    }
}

/// The next part of the log, and the position up to which it goes.
async fn read(worker: &Worker, after: Offset) -> Result<(Vec<Rc<Logged>>, Offset), Missing> {
    let floor = worker.ring.borrow().floor();
    match worker.store.part(after, floor).await? {
        Part::Trimmed => Err(Missing::Trimmed),
        Part::Entries(entries) => {
            worker
                .metrics
                .reread
                .add(entries.iter().map(|(_, bytes)| bytes.len() as u64).sum());
            let upto = entries.last().map_or(floor, |(offset, _)| *offset);
            // A copy of each: one small entry that is kept would keep the whole part in memory.
            let copies = entries
                .iter()
                .map(|(offset, bytes)| (*offset, Bytes::copy_from_slice(bytes)));
            let entries = copies.filter_map(|(offset, bytes)| missed::read(worker, offset, &bytes));
            Ok((entries.collect(), upto))
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

/// Answers the sessions that need no further part.
fn finish(worker: &Worker, readers: &mut Vec<Reader>) {
    let floor = worker.ring.borrow().floor();
    let entries_max = worker.settings.recovery.entries_max;
    for reader in readers.extract_if(.., |reader| {
        reader.done.is_closed() || reader.is_done(floor, entries_max)
    }) {
        let outcome = reader.outcome(entries_max);
        reader.answer(outcome);
    }
}

/// Answers the sessions that cannot be told what they missed: all, if Redis did not answer; those that are not further
/// than a part that is gone.
fn fail(readers: &mut Vec<Reader>, after: Offset, missing: &Missing) {
    let is_gone = matches!(missing, Missing::Trimmed);
    for reader in readers.extract_if(.., |reader| !is_gone || reader.position <= after) {
        reader.answer(Err(missing.clone()));
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

/// A session that waits.
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
    done: oneshot::Sender<Result<Caught, Missing>>,
}

impl Reader {
    fn new(
        after: Offset,
        extent: Extent,
        interest: Interest,
        held: Held,
        done: oneshot::Sender<Result<Caught, Missing>>,
    ) -> Self {
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
            done,
        }
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

    fn outcome(&self, entries_max: usize) -> Result<Offset, Missing> {
        if self.count > entries_max {
            return Err(Missing::TooMany(entries_max));
        }
        if self.bytes > SESSION_BYTES_MAX {
            return Err(Missing::TooLarge(SESSION_BYTES_MAX));
        }
        Ok(self.full_at.unwrap_or(self.position))
    }

    fn answer(self, outcome: Result<Offset, Missing>) {
        let caught = outcome.map(|position| Caught {
            entries: self.entries,
            position,
            held: self.held,
        });
        // A session that is gone by now needs no answer.
        drop(self.done.send(caught));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use session::{Entry, EntryKind, Joined, Names, Record, Sid, Target, Transport};

    const ENTRIES_MAX: usize = 100;

    fn at(seq: u64) -> Offset {
        Offset::new(1, seq)
    }

    fn logged(seq: u64, kind: EntryKind, room: &str, text: &str) -> Rc<Logged> {
        let target = Target {
            nsp: "/".into(),
            rooms: vec![room.to_owned()],
            except: vec![],
        };
        let entry = Entry {
            kind,
            target,
            text: Bytes::copy_from_slice(text.as_bytes()),
            attachments: vec![],
        };
        Logged::new(at(seq), entry)
    }

    /// Entries 1 to `last`, of which the even ones go to room `a`, the others to `b`.
    fn log(last: u64) -> Vec<Rc<Logged>> {
        let room = |seq: u64| if seq.is_multiple_of(2) { "a" } else { "b" };
        (1..=last)
            .map(|seq| logged(seq, EntryKind::Emit, room(seq), "42[\"m\"]"))
            .collect()
    }

    /// A membership in room `a`.
    fn joined() -> Joined {
        Joined {
            sid: Sid::from_random([1; 15]),
            pid: None,
            since: at(0),
            rooms: Names::from([("a", at(0))]),
            data: None,
        }
    }

    /// The other end of a session that waits.
    struct Waiting {
        outcome: oneshot::Receiver<Result<Caught, Missing>>,
    }

    impl Waiting {
        fn seqs(self) -> (Vec<u64>, u64) {
            let caught = self
                .outcome
                .now_or_never()
                .expect("answered")
                .expect("answered")
                .expect("found");
            let seqs = caught.entries.iter().map(|logged| logged.offset.seq()).collect();
            (seqs, caught.position.seq())
        }

        fn error(self) -> String {
            let outcome = self.outcome.now_or_never().expect("answered").expect("answered");
            outcome.err().expect("missing").to_string()
        }
    }

    fn reader(all: &Rc<Cell<usize>>, after: u64, extent: Extent, interest: Interest) -> (Reader, Waiting) {
        let (done, outcome) = oneshot::channel();
        let held = Held {
            all: all.clone(),
            own: 0,
        };
        (
            Reader::new(at(after), extent, interest, held, done),
            Waiting { outcome },
        )
    }

    fn member(all: &Rc<Cell<usize>>, after: u64, extent: Extent) -> (Reader, Waiting) {
        let joined = joined();
        reader(
            all,
            after,
            extent,
            Interest::Membership {
                nsp: "/".into(),
                joined,
            },
        )
    }

    fn show_part(readers: &mut [Reader], log: &[Rc<Logged>], after: u64, upto: u64) {
        let part: Vec<_> = log
            .iter()
            .filter(|l| (at(after + 1)..=at(upto)).contains(&l.offset))
            .cloned()
            .collect();
        let shown = show(readers, &part, at(after), at(upto));
        shown.now_or_never().expect("few looks");
    }

    fn answer(reader: Reader, floor: u64) {
        assert!(reader.is_done(at(floor), ENTRIES_MAX));
        let outcome = reader.outcome(ENTRIES_MAX);
        reader.answer(outcome);
    }

    #[test]
    fn sessions_share_what_is_read_from_where_each_of_them_is() {
        let (all, log) = (Rc::default(), log(10));
        let (first, one) = member(&all, 0, Extent::All);
        let (second, other) = member(&all, 3, Extent::All);
        let (late, ahead) = member(&all, 8, Extent::All);
        let mut readers = vec![first, second, late];
        show_part(&mut readers, &log, 0, 5);
        let positions: Vec<u64> = readers.iter().map(|reader| reader.position.seq()).collect();
        assert_eq!(positions, [5, 5, 8], "the third has not missed any of it");
        show_part(&mut readers, &log, 5, 10);
        readers.into_iter().for_each(|reader| answer(reader, 10));
        assert_eq!(one.seqs(), (vec![2, 4, 6, 8, 10], 10));
        assert_eq!(other.seqs(), (vec![4, 6, 8, 10], 10));
        assert_eq!(ahead.seqs(), (vec![10], 10));
        assert_eq!(all.get(), 0, "what was collected is free again");
    }

    #[test]
    fn a_session_that_came_behind_the_reading_waits_for_its_turn() {
        let (all, log) = (Rc::default(), log(10));
        let (first, _one) = member(&all, 4, Extent::All);
        let (behind, _other) = member(&all, 0, Extent::All);
        let mut readers = vec![first, behind];
        show_part(&mut readers, &log, 4, 8);
        assert_eq!(readers[1].position, at(0));
        // Its own turn, and what the first has seen is not shown to that again.
        show_part(&mut readers, &log, 0, 6);
        assert_eq!((readers[0].position, readers[1].position), (at(8), at(6)));
        assert_eq!(readers[0].count, 2);
    }

    #[test]
    fn only_the_first_part_is_collected_and_the_rest_is_counted() {
        let (all, log) = (Rc::default(), log(10));
        let size = log[1].entry.size();
        let (counted, one) = member(&all, 0, Extent::Counted(2 * size));
        let (some, other) = member(&all, 0, Extent::Some(2 * size));
        let mut readers = vec![counted, some];
        show_part(&mut readers, &log, 0, 7);
        assert!(!readers[0].is_done(at(10), ENTRIES_MAX), "the rest is to be counted");
        assert!(readers[1].is_done(at(10), ENTRIES_MAX), "it has as much as it wants");
        assert_eq!(all.get(), 4 * size);
        show_part(&mut readers, &log, 7, 10);
        assert_eq!(readers[0].count, 5);
        readers.into_iter().for_each(|reader| answer(reader, 10));
        assert_eq!(one.seqs(), (vec![2, 4], 4));
        assert_eq!(other.seqs(), (vec![2, 4], 4));
    }

    #[test]
    fn what_concerns_others_does_not_count() {
        let (all, log) = (Rc::default(), log(2 * ENTRIES_MAX as u64 + 2));
        let (few, one) = member(&all, 4, Extent::All);
        let (many, other) = member(&all, 0, Extent::All);
        let mut readers = vec![few, many];
        let last = log.len() as u64;
        show_part(&mut readers, &log, 0, 4);
        show_part(&mut readers, &log, 4, last);
        readers.into_iter().for_each(|reader| answer(reader, last));
        assert_eq!(one.seqs().0.len(), ENTRIES_MAX - 1);
        assert_eq!(
            other.error(),
            "the session missed more than 100 events (recovery.entries_max)"
        );
    }

    #[test]
    fn too_many_bytes_are_said_to_be_so() {
        let all = Rc::default();
        let (mut reader, waiting) = member(&all, 0, Extent::Counted(0));
        (reader.bytes, reader.count) = (SESSION_BYTES_MAX + 1, 1);
        answer(reader, 10);
        assert_eq!(waiting.error(), "the session missed more than 67108864 bytes of events");
    }

    #[test]
    fn an_order_changes_what_concerns_a_session_and_is_undone_if_it_begins_anew() {
        let all: Rc<Cell<usize>> = Rc::default();
        let mut record = Record::new(
            Sid::from_random([2; 15]),
            Transport::Polling,
            "w".into(),
            String::new(),
            0,
        );
        record.namespaces = Names::from([("/", joined())]);
        let own = record.namespaces.get("/").expect("joined").sid.as_str().to_owned();
        let interest = Interest::Session {
            begun: Rc::new(record),
            now: None,
            rooms_max: 10,
        };
        let log = [
            logged(1, EntryKind::Emit, "a", "42[\"1\"]"),
            logged(2, EntryKind::Emit, "b", "42[\"2\"]"),
            logged(3, EntryKind::Join, &own, "[\"b\"]"),
            logged(4, EntryKind::Leave, &own, "[\"a\"]"),
            logged(5, EntryKind::Emit, "b", "42[\"5\"]"),
            logged(6, EntryKind::Emit, "a", "42[\"6\"]"),
            logged(7, EntryKind::Disconnect, &own, "true"),
            logged(8, EntryKind::Emit, "b", "42[\"8\"]"),
        ];
        let (reader, waiting) = reader(&all, 0, Extent::All, interest);
        let mut readers = vec![reader];
        show_part(&mut readers, &log, 0, 6);
        readers[0].begin_anew();
        assert_eq!((all.get(), readers[0].position), (0, at(0)));
        show_part(&mut readers, &log, 0, 8);
        readers.into_iter().for_each(|reader| answer(reader, 8));
        assert_eq!(waiting.seqs(), (vec![1, 3, 4, 5, 7], 8));
    }

    #[test]
    fn those_that_came_last_make_room() {
        let (all, log) = (Rc::default(), log(10));
        let kept: Vec<_> = (0..3).map(|_| member(&all, 0, Extent::All)).collect();
        let (mut readers, _waiting): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        show_part(&mut readers, &log, 0, 4);
        // As if each entry had 16 MiB.
        readers.iter_mut().for_each(|reader| reader.held.set(16 << 20));
        make_room(&all, &mut readers);
        let positions: Vec<u64> = readers.iter().map(|reader| reader.position.seq()).collect();
        assert_eq!(positions, [4, 4, 0]);
        // However much is being written to clients, the first one goes on.
        all.set(all.get() + COLLECTED_BYTES_MAX);
        make_room(&all, &mut readers);
        let positions: Vec<u64> = readers.iter().map(|reader| reader.position.seq()).collect();
        assert_eq!(positions, [4, 0, 0]);
    }

    #[test]
    fn a_part_that_is_gone_concerns_those_that_need_it() {
        let all = Rc::default();
        let (behind, gone) = member(&all, 3, Extent::All);
        let (ahead, _waiting) = member(&all, 7, Extent::All);
        let mut readers = vec![behind, ahead];
        fail(&mut readers, at(3), &Missing::Trimmed);
        assert_eq!(readers.len(), 1);
        assert_eq!(gone.error(), "the log was trimmed");
        fail(&mut readers, at(7), &Missing::EndLost);
        assert!(readers.is_empty(), "what is no answer of the log concerns all");
    }
}
