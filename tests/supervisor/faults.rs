//! Workers and supervisors that die, hang or never get anywhere.

use crate::harness::{PATIENCE, Supervisor, lives, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "nothing_waits_for_an_absent_process",
        nothing_waits_for_an_absent_process,
    ),
    ("a_hung_worker_is_replaced", a_hung_worker_is_replaced),
    (
        "a_killed_worker_is_back_within_a_second",
        a_killed_worker_is_back_within_a_second,
    ),
    ("a_crash_loop_degrades", a_crash_loop_degrades),
    (
        "a_bad_configuration_ends_the_first_boot",
        a_bad_configuration_ends_the_first_boot,
    ),
    ("a_missing_dependency_is_retried", a_missing_dependency_is_retried),
    (
        "a_worker_that_never_gets_ready_is_aborted",
        a_worker_that_never_gets_ready_is_aborted,
    ),
    (
        "a_stopped_worker_gets_no_connections",
        a_stopped_worker_gets_no_connections,
    ),
    (
        "a_stopped_supervisor_blames_no_worker",
        a_stopped_supervisor_blames_no_worker,
    ),
    ("workers_outlive_no_supervisor", workers_outlive_no_supervisor),
    ("orphans_are_reaped", orphans_are_reaped),
];

fn a_killed_worker_is_back_within_a_second() {
    let supervisor = Supervisor::serving(4, "message", "");
    let address = supervisor.address();
    for slot in 0..4 {
        let before = supervisor.await_ready(4);
        kill(Pid::from_raw(before[&slot]), Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        until("respawn", Duration::from_secs(1), || {
            // No connection is refused, none waits for the dead worker.
            supervisor.greet(address);
            let ready = supervisor.pids("ready");
            (ready.len() == 4 && ready[&slot] != before[&slot]).then_some(())
        });
        assert!(killed.elapsed() < Duration::from_secs(1));
    }
    // The survivors were told: slot 3's worker is new, slot 0's has seen three deaths.
    let gone = until("slot 0 speaks", PATIENCE, || {
        let greeting = supervisor.greet(address);
        (greeting.slot == 0).then_some(greeting.gone)
    });
    assert_eq!(gone, 3);
    let status = supervisor.status();
    assert_eq!(status["workers"][2]["restarts"], 1);
    assert_eq!(status["workers"][2]["last_exit"], "signal 9 (SIGKILL)");
}

fn a_crash_loop_degrades() {
    let supervisor = Supervisor::start(2, "crash_slot1", "");
    until("degraded", Duration::from_secs(30), || {
        (supervisor.state() == "degraded").then_some(())
    });
    let address = supervisor.address();
    for _ in 0..20 {
        assert_eq!(supervisor.greet(address).slot, 0);
    }
    let status = supervisor.status();
    assert_eq!(status["workers"][1]["pid"], serde_json::Value::Null);
    assert_eq!(status["workers"][1]["last_exit"], "exit 70");
    assert!(status["workers"][1]["restarts"].as_u64().unwrap() <= 8, "{status}");
    assert_eq!(supervisor.command(&["status"]).status.code(), Some(1));
}

fn a_bad_configuration_ends_the_first_boot() {
    let mut supervisor = Supervisor::start(2, "badconfig", "");
    assert_eq!(supervisor.end(PATIENCE), Some(78));
    assert!(
        supervisor.log().contains("exit 78: the stub says badconfig"),
        "{}",
        supervisor.log()
    );
}

fn a_missing_dependency_is_retried() {
    let supervisor = Supervisor::start(1, "nodependency", "");
    until("retries", PATIENCE, || {
        (supervisor.status()["workers"][0]["restarts"].as_u64()? >= 3).then_some(())
    });
    let status = supervisor.status();
    assert_eq!(status["supervisor"]["state"], "booting");
    assert_eq!(status["workers"][0]["last_exit"], "exit 75: the stub says nodependency");
}

fn a_worker_that_never_gets_ready_is_aborted() {
    let supervisor = Supervisor::start(1, "neverready", "boot_timeout_ms = 1000");
    supervisor.await_log("worker not ready in time");
    let exit = until("exit", PATIENCE, || {
        supervisor.status()["workers"][0]["last_exit"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(exit.starts_with("signal 6 (SIGABRT): not ready within 10"), "{exit}");
}

fn a_stopped_worker_gets_no_connections() {
    let supervisor = Supervisor::serving(3, "message", "");
    let address = supervisor.address();
    let pids = supervisor.await_ready(3);
    kill(Pid::from_raw(pids[&1]), Signal::SIGSTOP).unwrap();
    until("lagging", PATIENCE, || {
        (supervisor.pids("lagging").get(&1) == Some(&pids[&1])).then_some(())
    });
    let slots: BTreeSet<u64> = (0..60).map(|_| supervisor.greet(address).slot).collect();
    assert_eq!(slots, BTreeSet::from([0, 2]));
    kill(Pid::from_raw(pids[&1]), Signal::SIGCONT).unwrap();
    assert_eq!(supervisor.await_ready(3), pids);
    let slots: BTreeSet<u64> = (0..60).map(|_| supervisor.greet(address).slot).collect();
    assert_eq!(slots.len(), 3);
}

fn a_hung_worker_is_replaced() {
    let supervisor = Supervisor::serving(3, "message", "");
    let pids = supervisor.await_ready(3);
    kill(Pid::from_raw(pids[&2]), Signal::SIGSTOP).unwrap();
    // 10 s until it counts as hung, 3 s because a stopped process does not see SIGABRT.
    let replaced = until("replaced", Duration::from_secs(18), || {
        let ready = supervisor.pids("ready");
        (ready.len() == 3 && ready[&2] != pids[&2]).then_some(ready)
    });
    assert!(!lives(pids[&2]));
    assert_eq!((replaced[&0], replaced[&1]), (pids[&0], pids[&1]));
    let line = supervisor.await_log("forensics of a hung worker");
    assert_eq!(line["state"], "T (stopped)");
}

fn a_stopped_supervisor_blames_no_worker() {
    let supervisor = Supervisor::serving(2, "message", "");
    let pids = supervisor.await_ready(2);
    supervisor.signal(Signal::SIGSTOP);
    nix::poll::poll(&mut [], 13_000_u16).unwrap();
    supervisor.signal(Signal::SIGCONT);
    supervisor.await_log("supervisor ran late");
    assert_eq!(supervisor.await_ready(2), pids);
    assert!(!supervisor.log().contains("worker hung"));
}

fn workers_outlive_no_supervisor() {
    let mut supervisor = Supervisor::serving(3, "message", "");
    let address = supervisor.address();
    let pids = supervisor.await_ready(3);
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(supervisor.end(PATIENCE), None);
    until("end of the workers", PATIENCE, || {
        pids.values().all(|pid| !lives(*pid)).then_some(())
    });
    // The next one takes over what is left: lock, socket, port.
    let text = std::fs::read_to_string(supervisor.scratch.path().join("supervisor.toml")).unwrap();
    supervisor.configure(&text.replace("127.0.0.1:0", &address.to_string()));
    let mut next = supervisor.command_in_background(&["run"]);
    until("next", PATIENCE, || {
        supervisor.command(&["status"]).status.success().then_some(())
    });
    assert!(supervisor.command(&["stop"]).status.success());
    assert_eq!(next.wait().unwrap().code(), Some(0));
}

fn orphans_are_reaped() {
    let supervisor = Supervisor::serving(2, "orphan", "");
    let children = || {
        let pid = supervisor.pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().count()
    };
    until("orphans arrive", PATIENCE, || (children() > 2).then_some(())); // two workers, four sleeps
    until("orphans are reaped", PATIENCE, || (children() == 2).then_some(()));
}

fn nothing_waits_for_an_absent_process() {
    const CONNECTS: usize = 5_000;
    const THREADS: usize = 8;
    // Slot 3 is in backoff for ever; slot 2 is stopped, and slot 1 killed, in the middle of it.
    let supervisor = Supervisor::start(4, "crash_slot3", "boot_timeout_ms = 1500");
    supervisor.await_log("respawn scheduled");
    let pids = until("three serve", PATIENCE, || {
        let pids = supervisor.pids("ready");
        (pids.len() == 3).then_some(pids)
    });
    let address = supervisor.address();
    let at = |slot: u64, signal| kill(Pid::from_raw(pids[&slot]), signal).unwrap();
    let dealt = AtomicUsize::new(0);
    let lost = AtomicUsize::new(0);
    let waits = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    loop {
                        let number = dealt.fetch_add(1, Ordering::SeqCst);
                        if number >= CONNECTS {
                            return longest;
                        }
                        match number {
                            500 => at(2, Signal::SIGSTOP),
                            3_500 => at(1, Signal::SIGKILL),
                            _ => {}
                        }
                        let begun = Instant::now();
                        if supervisor.greet_or_lose(address) {
                            longest = longest.max(begun.elapsed());
                        } else {
                            lost.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect::<Vec<_>>()
    });
    at(2, Signal::SIGCONT);
    let longest = waits.into_iter().max().unwrap();
    let lost = lost.load(Ordering::SeqCst);
    println!("{CONNECTS} connects, the longest took {longest:?}; {lost} lost in the hands of a worker");
    // One that a worker had accepted, and not answered, when it was stopped or killed.
    assert!(lost <= 2, "{lost} lost\n{}", supervisor.log());
    assert!(longest < Duration::from_secs(1), "{longest:?}\n{}", supervisor.log());
}
