//! What the members and publishers of a fan-out share: what was sent, and what each member received.

use crate::common::Common;
use crate::sequence::{Checks, Mark, Seen, lost};
use crate::stats::{Shared, Stats};
use clap::Args;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long messages may still arrive after the last publish.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How often that is looked at.
const DRAIN_STEP: Duration = Duration::from_millis(20);
/// How long duplicates may still arrive after everything did.
const SETTLE: Duration = Duration::from_millis(200);
/// Members whose losses a report lists.
const SAMPLE: usize = 3;

#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Rooms; the connections are spread over them evenly
    #[arg(long, short = 'r', default_value_t = 1)]
    pub(crate) rooms: usize,
    /// Publishing connections, besides the members
    #[arg(long, short = 'P', default_value_t = 1)]
    pub(crate) publishers: usize,
    /// Publishers join every room too, so that they must get their own messages
    #[arg(long)]
    pub(crate) publishers_join: bool,
    /// Messages a second by all publishers together; without it a closed loop
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Closed loop: messages per publisher that are not yet acked and delivered to all members
    #[arg(long, short = 'i', default_value_t = 4)]
    pub(crate) inflight: usize,
    /// Bytes in the published string (32 at least)
    #[arg(long, short = 'p', default_value_t = 64)]
    pub(crate) payload: usize,
}

/// The rooms of a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rooms {
    One(usize),
    /// A publisher with `--publishers-join`.
    All,
}

pub(crate) struct Member {
    pub(crate) rooms: Rooms,
    /// By publisher and room.
    pub(crate) seen: BTreeMap<(usize, usize), Seen>,
}

/// What all tasks of a run share.
pub(crate) struct Run {
    pub(crate) stats: Shared,
    event: String,
    checks: RefCell<Checks>,
    /// Published messages by publisher and room.
    pub(crate) sent: RefCell<Vec<Vec<u64>>>,
    /// Deliveries still expected, by publisher.
    pub(crate) waiting: Vec<Cell<i64>>,
    /// Told of every delivery, by publisher.
    pub(crate) wake: Vec<Notify>,
    pub(crate) members: RefCell<Vec<Member>>,
    /// Members by room.
    pub(crate) per_room: RefCell<Vec<i64>>,
    pub(crate) stop: Cell<bool>,
    /// How often the closed loop wrote off messages.
    pub(crate) stalls: Cell<u64>,
    pub(crate) published: Cell<u64>,
}

impl Run {
    pub(crate) fn new(options: &Options) -> Rc<Self> {
        Rc::new(Self {
            stats: Stats::new(),
            event: options.common.ev_message.clone(),
            checks: RefCell::default(),
            sent: RefCell::new(vec![vec![0; options.rooms]; options.publishers]),
            waiting: (0..options.publishers).map(|_| Cell::new(0)).collect(),
            wake: (0..options.publishers).map(|_| Notify::new()).collect(),
            members: RefCell::default(),
            per_room: RefCell::new(vec![0; options.rooms]),
            stop: Cell::new(false),
            stalls: Cell::new(0),
            published: Cell::new(0),
        })
    }

    pub(crate) fn add_member(&self, rooms: Rooms) -> usize {
        for (room, count) in self.per_room.borrow_mut().iter_mut().enumerate() {
            if rooms == Rooms::All || rooms == Rooms::One(room) {
                *count += 1;
            }
        }
        let mut members = self.members.borrow_mut();
        members.push(Member {
            rooms,
            seen: BTreeMap::new(),
        });
        members.len() - 1
    }

    /// Checks and counts an event that a member received.
    pub(crate) fn deliver(&self, member: usize, array: &str) {
        let Some(mark) = Mark::find(array, &self.event) else {
            return self.stats.error("unexpected event");
        };
        let member = &mut self.members.borrow_mut()[member];
        let is_member = member.rooms == Rooms::All || member.rooms == Rooms::One(mark.room);
        if mark.publisher >= self.waiting.len() || !is_member {
            self.checks.borrow_mut().misrouted += 1;
            return;
        }
        let seen = member.seen.entry((mark.publisher, mark.room)).or_default();
        if seen.note(mark.sequence, &mut self.checks.borrow_mut()) {
            self.stats.op(self.stats.now_us().saturating_sub(mark.sent_us));
            let waiting = &self.waiting[mark.publisher];
            waiting.set(waiting.get() - 1);
            self.wake[mark.publisher].notify_one();
        }
    }

    /// All counters, with what never came; and some of that.
    pub(crate) fn verdict(&self) -> (Checks, Vec<Value>) {
        let mut checks = self.checks.borrow().clone();
        let mut sample = Vec::new();
        for member in self.members.borrow().iter() {
            for (publisher, by_room) in self.sent.borrow().iter().enumerate() {
                for (room, sent) in by_room.iter().enumerate() {
                    if member.rooms != Rooms::All && member.rooms != Rooms::One(room) {
                        continue;
                    }
                    let seen = member.seen.get(&(publisher, room));
                    checks.lost += lost(seen, *sent);
                    let missing = seen.map_or_else(Vec::new, |seen| seen.lost_sample(*sent));
                    if !missing.is_empty() && sample.len() < SAMPLE {
                        sample.push(json!({"publisher": publisher, "room": room, "of": sent, "lost": missing}));
                    }
                }
            }
        }
        (checks, sample)
    }

    /// Waits until everything that is under way has arrived, within limits.
    pub(crate) async fn drain(&self) {
        self.stop.set(true);
        let started = Instant::now();
        while started.elapsed() < DRAIN_MAX && self.waiting.iter().any(|waiting| waiting.get() > 0) {
            sleep(DRAIN_STEP).await;
        }
        sleep(SETTLE).await;
    }
}
