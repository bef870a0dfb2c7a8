//! What the members and publishers of a chaos run share.

use crate::common::Common;
use crate::sequence::{Checks, Mark, Seen, lost};
use crate::stats::Stats;
use clap::Args;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    #[arg(long, short = 'r', default_value_t = 1)]
    pub(crate) rooms: usize,
    /// Publishing connections, besides the members
    #[arg(long, short = 'P', default_value_t = 2)]
    pub(crate) publishers: usize,
    /// Messages a second by all publishers together
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    #[arg(long, short = 'p', default_value_t = 64)]
    pub(crate) payload: usize,
    /// Shell command run as the fault; FAULT_NO holds its number, from 1
    #[arg(long)]
    pub(crate) fault_cmd: Option<String>,
    /// Seconds between faults; the first comes after as many
    #[arg(long, default_value_t = 4.0)]
    pub(crate) every: f64,
    /// Faults at most
    #[arg(long, default_value_t = 100)]
    pub(crate) max_faults: u64,
    /// Seconds without an ack before a publish is sent again
    #[arg(long, default_value_t = 2.0)]
    pub(crate) ack_timeout: f64,
    /// Seconds after the last publish for messages to arrive
    #[arg(long, default_value_t = 5.0)]
    pub(crate) drain: f64,
    /// First back-off before reconnecting, in ms (randomized by half)
    #[arg(long, default_value_t = 50)]
    pub(crate) backoff_ms: u64,
    /// Longest back-off, in ms
    #[arg(long, default_value_t = 2000)]
    pub(crate) backoff_max_ms: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) disconnects: u64,
    pub(crate) publisher_disconnects: u64,
    pub(crate) connect_attempts: u64,
    pub(crate) failed_attempts: BTreeMap<String, u64>,
    pub(crate) disconnect_kinds: BTreeMap<String, u64>,
    pub(crate) recovered: u64,
    pub(crate) lost_sessions: u64,
    pub(crate) retries: u64,
    pub(crate) join_retries: u64,
    pub(crate) published: u64,
    pub(crate) unacked: u64,
    pub(crate) downtime_ms: Vec<u64>,
}

/// What all tasks of a run share.
pub(crate) struct Run {
    pub(crate) stats: Rc<Stats>,
    pub(crate) counters: RefCell<Counters>,
    pub(crate) members: RefCell<Vec<Member>>,
    /// Acked publishes by publisher and room: exactly these must arrive.
    pub(crate) acked: RefCell<Vec<Vec<u64>>>,
    /// Publisher, room and sequence of the messages that were sent more than once.
    pub(crate) retried: RefCell<HashSet<(usize, usize, u64)>>,
    pub(crate) publishing: Cell<bool>,
    pub(crate) stop: Cell<bool>,
}

impl Run {
    /// Checks and counts an event that a member received.
    pub(crate) fn deliver(&self, options: &Options, member: usize, room: usize, array: &str) {
        let member = &mut self.members.borrow_mut()[member];
        let Some(mark) = Mark::find(array, &options.common.ev_message) else {
            return self.stats.error("unexpected event");
        };
        if mark.room != room || mark.publisher >= options.publishers {
            member.checks.misrouted += 1;
            return;
        }
        let seen = member.seen.entry(mark.publisher).or_default();
        if seen.note(mark.sequence, &mut member.checks) {
            self.stats.op(self.stats.now_us().saturating_sub(mark.sent_us));
            let now = Instant::now();
            let last = member.last_delivery.replace(now);
            if let Some(last) = last.filter(|_| self.publishing.get()) {
                member.longest_gap = member.longest_gap.max(now - last);
            }
        } else if self
            .retried
            .borrow()
            .contains(&(mark.publisher, mark.room, mark.sequence))
        {
            member.duplicated_of_retried += 1;
        }
    }

    /// Acked messages that this member has not received.
    pub(crate) fn missing(&self, member: &Member, room: usize) -> u64 {
        let acked = self.acked.borrow();
        let by_publisher = acked.iter().enumerate();
        by_publisher
            .map(|(publisher, by_room)| lost(member.seen.get(&publisher), by_room[room]))
            .sum()
    }

    /// The same of all members.
    pub(crate) fn all_missing(&self, rooms: usize) -> u64 {
        let members = self.members.borrow();
        let members = members.iter().enumerate();
        members
            .map(|(number, member)| self.missing(member, number % rooms))
            .sum()
    }
}

#[derive(Default)]
pub(crate) struct Member {
    /// By publisher.
    pub(crate) seen: BTreeMap<usize, Seen>,
    pub(crate) checks: Checks,
    pub(crate) duplicated_of_retried: u64,
    pub(crate) last_delivery: Option<Instant>,
    pub(crate) longest_gap: Duration,
    /// Connected, and in its room.
    pub(crate) is_online: bool,
}
