//! Steady publishing while a fault command runs: what clients notice and lose.

use crate::chaos_report::report;
pub(crate) use crate::chaos_run::Options;
use crate::chaos_run::{Member, Run};
use crate::common::seconds;
use crate::members::{member_loop, publisher_loop};
use crate::stats::{Report, Stats, Window};
use crate::target::Outcome;
use std::cell::{Cell, RefCell};
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
