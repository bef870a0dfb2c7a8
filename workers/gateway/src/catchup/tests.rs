//! What sessions that catch up get to see, without a worker.

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
        who: None,
        pid: None,
        pending: false,
        since: at(0),
        rooms: Names::from([("a", at(0))]),
        data: None,
    }
}

/// The other end of a session that waits.
struct Waiting {
    outcome: oneshot::Receiver<Result<Reader, Missing>>,
}

impl Waiting {
    fn answer(self) -> Result<Reader, Missing> {
        self.outcome.now_or_never().expect("answered").expect("answered")
    }

    fn caught(self) -> Result<Caught, Missing> {
        self.answer().and_then(|reader| reader.caught(ENTRIES_MAX))
    }

    fn seqs(self) -> (Vec<u64>, u64) {
        let caught = self.caught().expect("found");
        let seqs = caught.entries.iter().map(|logged| logged.offset.seq()).collect();
        (seqs, caught.position.seq())
    }

    fn error(self) -> String {
        self.caught().err().expect("missing").to_string()
    }
}

fn reader(all: &Rc<Cell<usize>>, after: u64, extent: Extent, interest: Interest) -> (Reader, Waiting) {
    let (done, outcome) = oneshot::channel();
    let held = Held {
        all: all.clone(),
        own: 0,
    };
    let mut reader = Reader::new(at(after), extent, interest, held);
    reader.done = Some(done);
    (reader, Waiting { outcome })
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
    reader.answer(None);
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
fn a_session_that_the_ring_has_overtaken_goes_on_where_it_was() {
    let (all, log) = (Rc::default(), log(12));
    let (reader, waiting) = member(&all, 0, Extent::All);
    let mut readers = vec![reader];
    show_part(&mut readers, &log, 0, 8);
    answer(readers.remove(0), 8);
    let mut overtaken = waiting.answer().expect("found");
    // The ring has dropped the entries 9 to 12 before the session could look there.
    assert!(!overtaken.is_done(at(12), ENTRIES_MAX));
    let (done, outcome) = oneshot::channel();
    overtaken.done = Some(done);
    let (other, _other) = member(&all, 0, Extent::All);
    readers.push(other);
    take_in(&mut readers, &mut vec![overtaken]);
    assert_eq!(readers[0].position, at(8), "it needs the least");
    show_part(&mut readers, &log, 8, 12);
    answer(readers.remove(0), 12);
    assert_eq!(Waiting { outcome }.seqs(), (vec![2, 4, 6, 8, 10, 12], 12));
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
