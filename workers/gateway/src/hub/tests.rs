//! The hub with subscribers that write down what they get.

use super::*;
use futures_util::FutureExt as _;
use session::{Entry, EntryKind, Names, Target, Transport};
use std::cell::{Cell, RefCell};

/// Writes down numbers of entries, and how often it was flushed.
#[derive(Default)]
struct Notebook {
    got: RefCell<Vec<(u64, bool)>>,
    flushed: Cell<usize>,
}

impl Subscriber for Notebook {
    fn deliver(&self, logged: &Logged, with_offset: bool) -> bool {
        let is_first = self.got.borrow().is_empty();
        self.got.borrow_mut().push((logged.offset.seq(), with_offset));
        is_first
    }

    fn obey(&self, _: &Logged, _: &Order) {}

    fn flush(&self) {
        self.flushed.set(self.flushed.get() + 1);
    }
}

impl Notebook {
    fn seqs(&self) -> Vec<u64> {
        self.got.borrow().iter().map(|(seq, _)| *seq).collect()
    }
}

fn at(seq: u64) -> Offset {
    Offset::new(1, seq)
}

fn joined(byte: u8, rooms: &[&str]) -> Joined {
    let mut names = Names::default();
    for room in rooms {
        names.insert(room, at(0));
    }
    Joined {
        sid: Sid::from_random([byte; 15]),
        who: None,
        pid: None,
        pending: false,
        since: at(0),
        rooms: names,
        data: None,
    }
}

fn entry(seq: u64, nsp: &str, rooms: &[&str], except: &[&str]) -> Rc<Logged> {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let target = Target {
        nsp: nsp.to_owned(),
        rooms: list(rooms),
        except: list(except),
    };
    let entry = Entry {
        kind: EntryKind::Emit,
        target,
        text: Vec::new().into(),
        attachments: Vec::new(),
    };
    Logged::new(at(seq), entry)
}

/// One in rooms a and b, one in b, one in another namespace.
fn three(hub: &mut Hub) -> ([Rc<Notebook>; 3], [MemberId; 3]) {
    let books: [Rc<Notebook>; 3] = Default::default();
    let [one, two, three] = &books;
    let ids = [
        hub.enter("/", &joined(1, &["a", "b"]), at(0), one.clone()),
        hub.enter("/", &joined(2, &["b"]), at(0), two.clone()),
        hub.enter("/other", &joined(3, &["a"]), at(0), three.clone()),
    ];
    (books, ids)
}

#[test]
fn each_member_that_is_meant_gets_an_entry_once() {
    let own = Sid::from_random([2; 15]);
    for (nsp, rooms, except, expect) in [
        ("/", &[][..], &[][..], [1, 1, 0]),
        ("/", &["a"], &[], [1, 0, 0]),
        ("/", &["a", "b"], &[], [1, 1, 0]),
        ("/", &["nothing"], &[], [0, 0, 0]),
        ("/", &[own.as_str()], &[], [0, 1, 0]),
        ("/", &[], &["a"], [0, 1, 0]),
        ("/", &["b"], &["b"], [0, 0, 0]),
        ("/other", &["a"], &[], [0, 0, 1]),
        ("/unknown", &[], &[], [0, 0, 0]),
    ] {
        let mut hub = Hub::default();
        let (books, _) = three(&mut hub);
        let logged = entry(1, nsp, rooms, except);
        hub.deliver(&logged);
        let got = books.each_ref().map(|book| book.got.borrow().len());
        assert_eq!(got, expect, "{nsp} {rooms:?} {except:?}");
        assert_eq!(hub.meant(&logged).len(), expect.iter().sum::<usize>());
    }
}

#[test]
fn members_join_and_leave_rooms_and_go() {
    let mut hub = Hub::default();
    let (books, [one, two, _]) = three(&mut hub);
    hub.join(two, "a");
    hub.join(two, "a");
    hub.deliver(&entry(1, "/", &["a"], &[]));
    hub.leave(one, "a");
    hub.deliver(&entry(2, "/", &["a"], &[]));
    hub.remove(two);
    hub.deliver(&entry(3, "/", &[], &[]));
    assert_eq!(
        books.each_ref().map(|book| book.seqs()),
        [vec![1, 3], vec![1, 2], vec![]]
    );
    hub.remove(one);
    hub.deliver(&entry(4, "/", &[], &[]));
    assert_eq!(books.each_ref().map(|book| book.got.borrow().len()), [2, 2, 0]);
}

#[test]
fn nothing_comes_up_to_the_position_that_a_member_has_had() {
    let mut hub = Hub::default();
    let book = Rc::new(Notebook::default());
    hub.enter("/", &joined(1, &[]), at(5), book.clone());
    for seq in 4..=7 {
        hub.deliver(&entry(seq, "/", &[], &[]));
    }
    assert_eq!(book.seqs(), [6, 7]);
}

#[test]
fn only_those_that_asked_for_it_are_flushed_and_once_a_batch() {
    let mut hub = Hub::default();
    let (books, _) = three(&mut hub);
    hub.deliver(&entry(1, "/", &["a"], &[]));
    hub.deliver(&entry(2, "/", &["a"], &[]));
    hub.flush();
    hub.flush();
    assert_eq!(books.each_ref().map(|book| book.flushed.get()), [1, 0, 0]);
}

#[test]
fn a_poll_is_woken_from_when_it_is_parked_until_it_is_over() {
    let mut hub = Hub::default();
    let sid = Sid::from_random([7; 15]);
    let mut record = Record::new(sid.clone(), Transport::Polling, String::new(), String::new(), 0);
    record.join("/", joined(1, &["a"]));
    let (park, beside) = (hub.park(&sid), hub.park(&sid));
    assert_eq!(hub.parked(), 1, "two polls of one session");
    assert_eq!(park.news().now_or_never(), None);

    // Known by its sid before it hears the log.
    hub.wake(&sid);
    assert_eq!(park.news().now_or_never(), Some(News::Wake));
    assert_eq!(beside.news().now_or_never(), Some(News::Wake));
    hub.deliver(&entry(1, "/", &["a"], &[]));
    assert_eq!(park.news().now_or_never(), None);

    // Entered again it does not hear twice, and an entry says more than a wake.
    hub.enter_park(&park, &record);
    hub.enter_park(&park, &record);
    let logged = entry(2, "/", &["a"], &[]);
    assert_eq!(hub.meant(&logged).len(), 1);
    hub.deliver(&logged);
    hub.wake_all();
    assert_eq!(park.news().now_or_never(), Some(News::Entry));
    assert_eq!(park.news().now_or_never(), None);

    hub.unpark(&sid, &park);
    hub.deliver(&entry(3, "/", &["a"], &[]));
    hub.wake(&sid);
    assert_eq!(park.news().now_or_never(), None);
    assert_eq!(beside.news().now_or_never(), Some(News::Wake));
    hub.unpark(&sid, &beside);
    assert_eq!(hub.parked(), 0);
}
