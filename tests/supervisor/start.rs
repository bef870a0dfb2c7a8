//! What a supervisor finds when it is started by something careless: ignored and blocked signals, closed descriptors, a
//! service manager that does not listen.

use crate::harness::{PATIENCE, Supervisor, config, lives, of_a_copy, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "what_nohup_ignores_stays_ignored_in_a_command",
        what_nohup_ignores_stays_ignored_in_a_command,
    ),
    (
        "ignored_and_blocked_signals_are_reset",
        ignored_and_blocked_signals_are_reset,
    ),
    (
        "closed_standard_descriptors_are_opened",
        closed_standard_descriptors_are_opened,
    ),
    (
        "a_service_manager_that_does_not_read_is_not_waited_for",
        a_service_manager_that_does_not_read_is_not_waited_for,
    ),
    (
        "a_service_manager_without_a_file_is_told",
        a_service_manager_without_a_file_is_told,
    ),
    (
        "variables_of_a_service_manager_that_are_empty_or_garbage_are_unset",
        variables_of_a_service_manager_that_are_empty_or_garbage_are_unset,
    ),
    (
        "a_check_that_chatters_is_heard_to_its_end",
        a_check_that_chatters_is_heard_to_its_end,
    ),
];

/// A set of signals of `/proc/PID/status`.
fn signals(pid: i32, name: &str) -> u64 {
    // 32 and 33 belong to the C library, which lets no program change them (signal(7)).
    let of_the_c_library = 0b11 << 31;
    u64::from_str_radix(&crate::harness::field(pid, name).unwrap(), 16).unwrap() & !of_the_c_library
}

const fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// With an ignored `SIGCHLD` no end of a child was seen: `reload --wait` had no answer, nothing was replaced, and TERM
/// had no end. A blocked signal would stay so in all that is started.
fn ignored_and_blocked_signals_are_reset() {
    for launcher in [
        &["env", "--ignore-signal=CHLD"][..],
        &["env", "--ignore-signal", "--block-signal"],
        &["env", "--default-signal", "--block-signal=ALRM,TERM,CHLD"],
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let text = config(scratch.path(), 2, "message", "");
        let mut supervisor = Supervisor::start_in(scratch, &text, launcher, &BTreeMap::new());
        supervisor.await_log("serving");
        let ignored = signals(supervisor.pid(), "SigIgn:");
        assert_eq!(
            ignored,
            bit(Signal::SIGPIPE) | bit(Signal::SIGXFSZ),
            "{launcher:?}: {ignored:x}"
        );
        let blocked = signals(supervisor.pid(), "SigBlk:");
        assert_eq!(blocked & bit(Signal::SIGALRM), 0, "{launcher:?}: {blocked:x}");
        let first = supervisor.await_ready(2);
        for pid in first.values() {
            assert_eq!(signals(*pid, "SigBlk:"), 0, "{launcher:?}");
            let ignored = signals(*pid, "SigIgn:");
            assert_eq!(
                ignored & (bit(Signal::SIGCHLD) | bit(Signal::SIGALRM)),
                0,
                "{launcher:?}: {ignored:x}"
            );
            assert_ne!(ignored & bit(Signal::SIGXFSZ), 0, "{launcher:?}: {ignored:x}");
        }
        kill(Pid::from_raw(first[&1]), Signal::SIGKILL).unwrap();
        until("another worker", PATIENCE, || {
            let pids = supervisor.pids("ready");
            (pids.len() == 2 && pids[&1] != first[&1]).then_some(())
        });
        let output = supervisor.command(&["reload", "--wait"]);
        assert!(output.status.success(), "{launcher:?}: {output:?}");
        supervisor.signal(Signal::SIGTERM);
        assert_eq!(supervisor.end(PATIENCE), Some(0), "{launcher:?}");
    }
}

/// `nohup anyworker tail` goes on without its terminal, and a job that a script runs beside itself hears no Control-C. An
/// ignored `SIGCHLD` alone is reset: a command waits for programs that it runs.
fn what_nohup_ignores_stays_ignored_in_a_command() {
    // It waits for its standard input.
    let mut command = Command::new("env")
        .arg("--ignore-signal=HUP,INT,CHLD")
        .arg(std::env::current_exe().unwrap())
        .args(["check", "--state"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(command.id()).unwrap();
    let ignored = until("a command at work", PATIENCE, || {
        let ignored = signals(pid, "SigIgn:");
        (ignored & bit(Signal::SIGXFSZ) != 0).then_some(ignored)
    });
    let wanted = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGPIPE, Signal::SIGXFSZ];
    assert_eq!(ignored, wanted.into_iter().map(bit).sum::<u64>(), "{ignored:x}");
    drop(command.stdin.take());
    assert_eq!(command.wait().unwrap().code(), Some(78));
}

/// What is opened next must not get the number of standard error: it would be written to.
fn closed_standard_descriptors_are_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let text = config(scratch.path(), 2, "message", "");
    let launcher = ["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"];
    let mut supervisor = Supervisor::start_in(scratch, &text, &launcher, &BTreeMap::new());
    until("serving", PATIENCE, || {
        supervisor.command(&["status"]).status.success().then_some(())
    });
    let workers = supervisor.await_ready(2);
    for pid in workers.values().copied().chain([supervisor.pid()]) {
        for number in 0..3 {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(target.to_str(), Some("/dev/null"), "{number} of {pid}");
        }
    }
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.end(PATIENCE), Some(0));
    assert!(workers.values().all(|pid| !lives(*pid)));
}

/// sd_notify(3) waits while the socket is full, and with it everything did.
fn a_service_manager_that_does_not_read_is_not_waited_for() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let mut fillers = 0;
    let full = loop {
        match filler.send_to(b"X_FILLER=1", &path) {
            Ok(_) => fillers += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    let text = config(scratch.path(), 2, "message", "");
    let env = BTreeMap::from([("NOTIFY_SOCKET", path)]);
    let mut supervisor = Supervisor::start_in(scratch, &text, &[], &env);
    supervisor.await_log("serving");
    supervisor.await_ready(2);
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    // It listens again: all is said, in its order.
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0_u8; 4_096];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    for _ in 0..fillers {
        assert_eq!(hear(), "X_FILLER=1");
    }
    assert_eq!(hear(), "FDSTORE=1\nFDNAME=slot-0\n");
    assert_eq!(hear(), "FDSTORE=1\nFDNAME=slot-1\n");
    assert!(hear().starts_with("READY=1\nSTATUS=serving with 2 workers"));
    assert!(hear().contains("RELOADING=1"));
    assert!(hear().starts_with("READY=1\nSTATUS=generation 2 serves"));
    supervisor.signal(Signal::SIGTERM);
    assert!(hear().starts_with("STOPPING=1"));
    assert_eq!(supervisor.end(PATIENCE), Some(0));
}

fn a_service_manager_without_a_file_is_told() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("anyworker-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let text = config(scratch.path(), 1, "message", "");
    let env = BTreeMap::from([("NOTIFY_SOCKET", format!("@{name}").into())]);
    let supervisor = Supervisor::start_in(scratch, &text, &[], &env);
    let mut bytes = [0_u8; 4_096];
    let count = socket.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"FDSTORE=1\nFDNAME=slot-0\n");
    drop(supervisor);
}

/// `docker run -e LISTEN_PID=`, and scripts that clear a variable instead of unsetting it.
fn variables_of_a_service_manager_that_are_empty_or_garbage_are_unset() {
    for (pid, fds) in [("", ""), ("$$", ""), ("$$", "two"), ("$$", "-1"), ("one", "1")] {
        let scratch = tempfile::tempdir().unwrap();
        let text = config(scratch.path(), 1, "message", "");
        // The shell becomes the supervisor, so that the pid is its own.
        let script = format!("LISTEN_PID={pid} LISTEN_FDS={fds} NOTIFY_SOCKET= exec \"$0\" \"$@\"");
        let mut supervisor = Supervisor::start_in(scratch, &text, &["sh", "-c", &script], &BTreeMap::new());
        supervisor.await_log("serving");
        supervisor.signal(Signal::SIGTERM);
        assert_eq!(supervisor.end(PATIENCE), Some(0), "{script}");
        let log = supervisor.log();
        assert!(!log.contains("notified"), "{script}: {log}");
    }
}

/// It waited for a reader of its complaints until it was killed, and that was reported as the reason.
fn a_check_that_chatters_is_heard_to_its_end() {
    let (supervisor, program) = of_a_copy(1, "");
    for how in ["chatters", "fails"] {
        std::fs::write(program.with_file_name(format!("check-{how}")), "").unwrap();
    }
    let begun = Instant::now();
    let output = supervisor.command(&["reload", "--wait"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("its own check failed: exit 101") && text.contains("chatter chatter"),
        "{text}"
    );
    assert!(begun.elapsed() < PATIENCE, "killed at its deadline");
    std::fs::remove_file(program.with_file_name("check-fails")).unwrap();
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
}
