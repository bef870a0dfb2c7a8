//! What an operator does: start, look, scale, stop.

use crate::harness::{PATIENCE, Supervisor, config, lives, until};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("four_slots_share_one_port", four_slots_share_one_port),
    ("status_has_its_shape", status_has_its_shape),
    ("no_supervisor_is_69", no_supervisor_is_69),
    ("slots_come_and_go", slots_come_and_go),
    ("stop_waits_for_the_end", stop_waits_for_the_end),
    (
        "term_drains_and_a_second_one_is_fast",
        term_drains_and_a_second_one_is_fast,
    ),
    ("quit_is_fast", quit_is_fast),
    ("a_third_request_kills", a_third_request_kills),
    ("a_second_supervisor_is_refused", a_second_supervisor_is_refused),
    ("systemd_is_told", systemd_is_told),
    ("usr1_logs_the_status", usr1_logs_the_status),
    ("several_addresses", several_addresses),
    (
        "a_limit_that_connections_max_cannot_reach_is_said",
        a_limit_that_connections_max_cannot_reach_is_said,
    ),
];

fn four_slots_share_one_port() {
    let mut supervisor = Supervisor::serving(4, "message", "");
    let address = supervisor.address();
    let slots: BTreeSet<u64> = (0..100).map(|_| supervisor.greet(address).slot).collect();
    assert_eq!(slots, BTreeSet::from([0, 1, 2, 3]));
    for pid in supervisor.await_ready(4).into_values() {
        // 0 to 5: standard streams, control, setup, one listener. The stub closes the setup.
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let number: i32 = fd.unwrap().file_name().into_string().unwrap().parse().unwrap();
            assert!(number <= 5, "worker has descriptor {number}");
        }
    }
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.end(PATIENCE), Some(0));
    assert!(!supervisor.run_directory().join("control.sock").exists());
}

fn status_has_its_shape() {
    let supervisor = Supervisor::serving(2, "message", "");
    let output = supervisor.command(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let status = supervisor.status();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(keys(&status), set(&["supervisor", "workers"]));
    assert_eq!(
        keys(&status["supervisor"]),
        set(&[
            "pid",
            "version",
            "generation",
            "state",
            "uptime_s",
            "last_reload",
            "last_handover",
            "reload",
            "log_lines_dropped"
        ])
    );
    assert_eq!(status["supervisor"]["pid"], supervisor.pid());
    let worker = &status["workers"][1];
    let expected = [
        "slot",
        "pid",
        "generation",
        "version",
        "state",
        "connections",
        "sessions",
        "restarts",
        "last_exit",
        "cpu_percent",
        "rss_bytes",
        "lag_us",
        "log_position",
        "handing_over",
        "failing",
    ];
    assert_eq!(keys(worker), set(&expected));
    assert_eq!(worker["version"], status["supervisor"]["version"]);
    assert_eq!((&worker["slot"], &worker["state"]), (&1.into(), &"ready".into()));
    let table = String::from_utf8(supervisor.command(&["status"]).stdout).unwrap();
    assert!(table.contains("serving") && table.lines().count() == 6, "{table}");
}

fn no_supervisor_is_69() {
    let mut supervisor = Supervisor::serving(1, "message", "");
    supervisor.signal(Signal::SIGQUIT);
    supervisor.end(PATIENCE);
    for words in [&["status"][..], &["reload", "--wait"], &["stop"], &["scale", "2"]] {
        let output = supervisor.command(words);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("run/control.sock") && text.contains("anyworker run"),
            "{text}"
        );
    }
}

fn slots_come_and_go() {
    let supervisor = Supervisor::serving(2, "message", "");
    let address = supervisor.address();
    assert!(supervisor.command(&["scale", "4"]).status.success());
    supervisor.await_ready(4);
    let slots: BTreeSet<u64> = (0..100).map(|_| supervisor.greet(address).slot).collect();
    assert_eq!(slots.len(), 4);
    supervisor.signal(Signal::SIGTTIN);
    supervisor.await_ready(5);
    supervisor.signal(Signal::SIGTTOU);
    supervisor.await_ready(4);
    assert!(supervisor.command(&["scale", "1"]).status.success());
    // No connection is refused or left waiting while three slots close.
    until("one slot", PATIENCE, || {
        supervisor.greet(address);
        (supervisor.status()["workers"].as_array().unwrap().len() == 1).then_some(())
    });
    assert_eq!(supervisor.greet(address).slot, 0);
}

fn stop_waits_for_the_end() {
    let mut supervisor = Supervisor::serving(2, "message", "");
    let output = supervisor.command(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(supervisor.end(Duration::from_millis(500)), Some(0));
}

fn term_drains_and_a_second_one_is_fast() {
    let mut supervisor = Supervisor::serving(2, "deaf", "grace_ms = 60000");
    let pids = supervisor.await_ready(2);
    supervisor.signal(Signal::SIGTERM);
    until("draining", PATIENCE, || {
        (supervisor.pids("draining").len() == 2).then_some(())
    });
    assert_eq!(supervisor.state(), "stopping");
    let asked = Instant::now();
    supervisor.signal(Signal::SIGINT);
    assert_eq!(supervisor.end(Duration::from_secs(4)), Some(0));
    assert!(
        asked.elapsed() >= Duration::from_millis(1_900),
        "workers that ignore signals have their fast grace"
    );
    assert!(pids.values().all(|pid| !lives(*pid)));
}

fn quit_is_fast() {
    let mut supervisor = Supervisor::serving(2, "message", "grace_ms = 60000");
    supervisor.signal(Signal::SIGQUIT);
    assert_eq!(supervisor.end(Duration::from_secs(2)), Some(0));
}

fn a_third_request_kills() {
    let mut supervisor = Supervisor::serving(2, "deaf", "grace_ms = 60000");
    let asked = Instant::now();
    supervisor.signal(Signal::SIGQUIT);
    until("stopping", PATIENCE, || {
        (supervisor.pids("stopping").len() == 2).then_some(())
    });
    supervisor.signal(Signal::SIGQUIT);
    assert_eq!(supervisor.end(Duration::from_secs(2)), Some(0));
    assert!(
        asked.elapsed() < Duration::from_millis(1_900),
        "killed before the fast grace ended"
    );
}

fn a_second_supervisor_is_refused() {
    let supervisor = Supervisor::serving(1, "message", "");
    let output = supervisor.command(&["run"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!("already running: a supervisor (pid {})", supervisor.pid())),
        "{text}"
    );
    // Elsewhere, but on the same port.
    let scratch = tempfile::tempdir().unwrap();
    let address = supervisor.address();
    let text = config(scratch.path(), 1, "message", "").replace("127.0.0.1:0", &address.to_string());
    let mut second = Supervisor::start_in(scratch, &text, &[], &BTreeMap::new());
    assert_eq!(second.end(PATIENCE), Some(78));
    let log = second.log();
    assert!(
        log.contains(&format!("listen.address: {address}: bind: ")) && log.contains("ss -ltnp"),
        "{log}"
    );
}

fn systemd_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0_u8; 4_096];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let text = config(scratch.path(), 2, "message", "");
    let mut supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::from([("NOTIFY_SOCKET", path)]));
    // The listeners are stored first: from then on no connection is refused.
    assert_eq!(hear(), "FDSTORE=1\nFDNAME=slot-0\n");
    assert_eq!(hear(), "FDSTORE=1\nFDNAME=slot-1\n");
    let ready = hear();
    assert!(ready.starts_with("READY=1\nSTATUS=serving with 2 workers"), "{ready}");
    assert!(supervisor.command(&["scale", "1"]).status.success());
    assert_eq!(hear(), "FDSTOREREMOVE=1\nFDNAME=slot-1\n");
    assert!(supervisor.command(&["scale", "2"]).status.success());
    assert_eq!(hear(), "FDSTORE=1\nFDNAME=slot-1\n");
    supervisor.await_ready(2);
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    let reloading = hear();
    assert!(
        reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert!(hear().starts_with("READY=1\nSTATUS=generation 2 serves"));
    supervisor.signal(Signal::SIGTERM);
    assert!(hear().starts_with("STOPPING=1"));
    supervisor.end(PATIENCE);
}

fn usr1_logs_the_status() {
    let supervisor = Supervisor::serving(1, "message", "");
    supervisor.signal(Signal::SIGUSR1);
    let line = supervisor.await_log("status of a worker");
    assert_eq!((&line["slot"], &line["state"]), (&0.into(), &"ready".into()));
    let line = supervisor.await_log("signal received");
    assert_eq!(line["sender_pid"], std::process::id());
}

fn several_addresses() {
    let scratch = tempfile::tempdir().unwrap();
    let text = config(scratch.path(), 2, "message", "");
    let text = text.replace("'127.0.0.1:0'", "['127.0.0.1:0', '[::1]:0']");
    let supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::new());
    let line = supervisor.await_log("serving");
    for url in line["urls"].as_str().unwrap().split(' ') {
        let address = url
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let slots: BTreeSet<u64> = (0..60).map(|_| supervisor.greet(address).slot).collect();
        assert_eq!(slots.len(), 2, "{url}");
    }
}

fn a_limit_that_connections_max_cannot_reach_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let text = config(scratch.path(), 1, "message", "");
    let launcher = ["sh", "-c", "ulimit -n 1000; exec \"$@\"", "sh"];
    let supervisor = Supervisor::start_in(scratch, &text, &launcher, &BTreeMap::new());
    let line = supervisor
        .await_log("too few descriptors for limits.connections_max: raise LimitNOFILE of the unit, or `ulimit -Hn`");
    assert_eq!(
        (&line["limit"], &line["connections_max"]),
        (&1000.into(), &20_000.into())
    );
    supervisor.await_log("serving");
}
