//! Steady publishing while a fault command runs: what clients notice and lose.

use crate::chaos_report::report;
use crate::members::{Member, member_loop, publisher_loop};
use crate::sequence::{Mark, lost};
use crate::stats::{Report, Stats, Window};
use crate::target::Outcome;
use crate::{Common, seconds};
use clap::Args;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

/// How long the members may take to connect and join.
const START_MAX: Duration = Duration::from_secs(20);
/// How long a publisher may take for the message that it is at.
const PUBLISHER_END_MAX: Duration = Duration::from_secs(15);
/// How long a fault command may run.
const FAULT_MAX: Duration = Duration::from_secs(30);
/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long duplicates may still arrive after everything did.
const SETTLE: Duration = Duration::from_millis(300);

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

pub(crate) async fn run(options: &Options) -> Outcome<Report> {
    let common = &options.common;
    let target = common.target()?;
    let run = Rc::new(Run {
        stats: Stats::new(),
        counters: RefCell::default(),
        members: RefCell::default(),
        acked: RefCell::new(vec![vec![0; options.rooms]; options.publishers]),
        retried: RefCell::default(),
        publishing: Cell::new(false),
        stop: Cell::new(false),
    });
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    for number in 0..common.connections {
        run.members.borrow_mut().push(Member::default());
        let (run, target, options) = (run.clone(), target.clone(), options.clone());
        tasks.push(spawn_local(async move {
            member_loop(number, &run, &target, &options).await
        }));
    }
    let started = Instant::now();
    while run.members.borrow().iter().any(|member| !member.is_online) {
        if started.elapsed() > START_MAX {
            let failed = &run.counters.borrow().failed_attempts;
            return Err(format!("members could not connect: {failed:?}"));
        }
        sleep(LOOK).await;
    }
    run.publishing.set(true);
    let mut publishers: Vec<JoinHandle<()>> = Vec::new();
    for number in 0..options.publishers {
        let (run, target, options) = (run.clone(), target.clone(), options.clone());
        publishers.push(spawn_local(async move {
            publisher_loop(number, &run, &target, &options).await;
        }));
    }
    let window = Window::open(common, &run.stats);
    let faults = spawn_local(fault_loop(options.clone()));
    sleep(seconds(common.duration)).await;
    run.stop.set(true);
    for publisher in publishers {
        timeout(PUBLISHER_END_MAX, publisher).await.ok();
    }
    let faults = timeout(FAULT_MAX, faults).await.ok().and_then(Result::ok);
    run.publishing.set(false);
    let measured = window.close(common, &run.stats);
    let draining = Instant::now();
    while draining.elapsed() < seconds(options.drain) && run.all_missing(options.rooms) > 0 {
        sleep(LOOK).await;
    }
    sleep(SETTLE).await;
    let report = report(&run, options, &faults.unwrap_or_default(), measured);
    tasks.iter().for_each(JoinHandle::abort);
    Ok(report)
}

/// Runs the fault command; an entry per run, empty when it succeeded.
async fn fault_loop(options: Options) -> Vec<String> {
    let Some(command) = &options.fault_cmd else {
        return Vec::new();
    };
    let (mut results, started) = (Vec::new(), Instant::now());
    for number in 1..=options.max_faults {
        let due = options.every * number as f64;
        // None so late that its effects would not be seen.
        if due + 1.0 > options.common.duration {
            break;
        }
        sleep(seconds(due).saturating_sub(started.elapsed())).await;
        let child = tokio::process::Command::new("sh")
            .args(["-c", command])
            .env("FAULT_NO", number.to_string())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status();
        results.push(match timeout(FAULT_MAX, child).await {
            Ok(Ok(status)) if status.success() => String::new(),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timeout".to_owned(),
        });
    }
    results
}
