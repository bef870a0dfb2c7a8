//! SIGUSR2 and `upgrade`: another binary in the same process.

use crate::harness::{PATIENCE, Supervisor, of_a_copy, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("an_upgrade_keeps_what_serves", an_upgrade_keeps_what_serves),
    (
        "upgrades_during_an_upgrade_make_one_more",
        upgrades_during_an_upgrade_make_one_more,
    ),
    ("usr2_comes_with_other_signals", usr2_comes_with_other_signals),
    (
        "an_upgrade_that_cannot_be_executed_changes_nothing",
        an_upgrade_that_cannot_be_executed_changes_nothing,
    ),
    ("a_state_must_be_understood", a_state_must_be_understood),
    (
        "an_upgrade_whose_workers_fail_goes_back",
        an_upgrade_whose_workers_fail_goes_back,
    ),
    ("an_upgrade_keeps_the_managed_redis", an_upgrade_keeps_the_managed_redis),
];

/// Installs another build: the same program under another version.
pub(crate) fn install(program: &Path, version: &str) {
    let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
    let (from, to) = (boot::VERSION.as_bytes(), version.as_bytes());
    assert_eq!(from.len(), to.len());
    let at: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|at| bytes[*at] == from[0] && bytes[*at..].starts_with(from))
        .collect();
    for at in at {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    let fresh = program.with_extension("new");
    fs::write(&fresh, bytes).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, program).unwrap();
}

pub(crate) fn versions(status: &Value) -> Vec<&str> {
    let workers = status["workers"].as_array().unwrap();
    let rows = workers.iter().map(|row| row["version"].as_str().unwrap_or("none"));
    [status["supervisor"]["version"].as_str().unwrap()]
        .into_iter()
        .chain(rows)
        .collect()
}

fn an_upgrade_keeps_what_serves() {
    let (supervisor, program) = of_a_copy(2, "");
    let address = supervisor.address();
    let victim = supervisor.await_ready(2)[&1];
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    until("respawn", PATIENCE, || {
        (supervisor.pids("ready").get(&1)? != &victim).then_some(())
    });
    let before = supervisor.await_ready(2);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut greeted = 0;
            while !done.load(Ordering::SeqCst) {
                supervisor.greet(address);
                greeted += 1;
            }
            greeted
        });
        for version in ["9.9.1", "9.9.2", "9.9.3"] {
            install(&program, version);
            let output = supervisor.command(&["upgrade", "--wait"]);
            assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", supervisor.log());
            supervisor.await_ready(2);
            let status = supervisor.status();
            assert_eq!(versions(&status), [version; 3], "{status}");
        }
        done.store(true, Ordering::SeqCst);
        assert!(clients.join().unwrap() > 50);
    });
    let status = supervisor.status();
    assert_eq!(status["supervisor"]["pid"], supervisor.pid(), "one process for life");
    assert_eq!(status["supervisor"]["generation"], 4);
    assert_eq!(status["workers"][1]["restarts"], 1, "counters go on");
    assert!(supervisor.pids("ready").iter().all(|(slot, pid)| before[slot] != *pid));
    let fds = fs::read_dir(format!("/proc/{}/fd", supervisor.pid())).unwrap().count();
    assert!(fds < 24, "descriptors: {fds}");
    // Everything still works.
    assert!(supervisor.command(&["scale", "3"]).status.success());
    supervisor.await_ready(3);
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    assert!(supervisor.command(&["stop"]).status.success());
}

fn upgrades_during_an_upgrade_make_one_more() {
    let (supervisor, program) = of_a_copy(2, "");
    let hangs = program.with_file_name("check-hangs");
    fs::write(&hangs, "").unwrap();
    install(&program, "9.9.1");
    let first = supervisor.command_in_background(&["upgrade", "--wait"]);
    supervisor.await_check();
    // This binary came too late for the first; those who ask now get it.
    install(&program, "9.9.2");
    let later: Vec<_> = (0..3)
        .map(|_| supervisor.command_in_background(&["upgrade", "--wait"]))
        .collect();
    supervisor.await_log("reload queued behind the running check or reload");
    fs::remove_file(hangs).unwrap();
    for child in [first].into_iter().chain(later) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}\n{}", supervisor.log());
    }
    supervisor.await_ready(2);
    assert_eq!(versions(&supervisor.status()), ["9.9.2"; 3]);
    let generation = supervisor.status()["supervisor"]["generation"].as_u64().unwrap();
    assert!((3..=5).contains(&generation), "{generation}");
}

fn usr2_comes_with_other_signals() {
    let (supervisor, _) = of_a_copy(2, "");
    for round in 2..6_u64 {
        let victim = supervisor.await_ready(2)[&0];
        // All of it is pending when the supervisor wakes up; the death may fall on either side of exec.
        supervisor.signal(Signal::SIGSTOP);
        supervisor.signal(Signal::SIGUSR2);
        supervisor.signal(Signal::SIGUSR1);
        supervisor.signal(Signal::SIGCONT);
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        // The reload at the end has as many slots as are configured.
        until("the next generation", PATIENCE, || {
            let status = supervisor.status();
            let ended = status["supervisor"]["generation"] == round && status["supervisor"]["state"] == "serving";
            ended.then_some(())
        });
        supervisor.await_ready(2);
        let log = supervisor.log();
        let times = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        let rounds = usize::try_from(round - 1).unwrap();
        assert_eq!(times("supervisor continues as another binary"), rounds);
        assert_eq!(times("\"signal\":\"SIGUSR1\""), rounds, "{log}");
    }
}

fn an_upgrade_that_cannot_be_executed_changes_nothing() {
    let (supervisor, program) = of_a_copy(2, "");
    let before = supervisor.await_ready(2);
    let hangs = program.with_file_name("check-hangs");
    fs::write(&hangs, "").unwrap();
    let waiting = supervisor.command_in_background(&["upgrade", "--wait"]);
    supervisor.await_check();
    // It passes its check, and then is no program any more.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(hangs).unwrap();
    let output = waiting.wait_with_output().unwrap();
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains("could not take over: Permission denied"), "{reason}");
    assert_eq!(supervisor.await_ready(2), before);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(supervisor.command(&["upgrade", "--wait"]).status.success());
    assert_eq!(supervisor.status()["supervisor"]["generation"], 2);
}

fn a_state_must_be_understood() {
    for (state, reason) in [
        ("", "state of the supervisor not usable: EOF"),
        (
            r#"{"version":99,"from":"3.0.0"}"#,
            "the state of anyworker 3.0.0 has format 99",
        ),
        (r#"{"version":2,"from":"3.0.0"}"#, "missing field"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("state");
        fs::write(&file, state).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command
            .args(["check", "--state"])
            .current_dir(scratch.path())
            .env_clear();
        let output = command
            .stdin(fs::File::open(file).unwrap())
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

fn an_upgrade_whose_workers_fail_goes_back() {
    let (supervisor, program) = of_a_copy(2, "");
    let before = supervisor.await_ready(2);
    install(&program, "9.9.1");
    let fails = program.with_file_name("worker-fails");
    fs::write(&fails, "").unwrap();
    let output = supervisor.command(&["upgrade", "--wait"]);
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains("slot 0, generation 2"), "{reason}");
    assert_eq!(supervisor.await_ready(2), before, "no worker was replaced");
    let status = supervisor.status();
    assert_eq!(versions(&status), ["9.9.1", boot::VERSION, boot::VERSION]);
    // A crash is answered with the former binary still.
    fs::remove_file(fails).unwrap();
    kill(Pid::from_raw(before[&0]), Signal::SIGKILL).unwrap();
    until("respawn", PATIENCE, || {
        (supervisor.pids("ready").get(&0)? != &before[&0]).then_some(())
    });
    assert_eq!(versions(&supervisor.status()), ["9.9.1", boot::VERSION, boot::VERSION]);
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    supervisor.await_ready(2);
    assert_eq!(versions(&supervisor.status()), ["9.9.1"; 3]);
}

fn an_upgrade_keeps_the_managed_redis() {
    let scratch = tempfile::tempdir().unwrap();
    let text = crate::harness::config(scratch.path(), 1, "message", "");
    let text = text.replace("url = 'redis://127.0.0.1:1'", "managed = true");
    let supervisor = Supervisor::start_in(scratch, &text, &[], &std::collections::BTreeMap::new());
    supervisor.await_log("serving");
    let pid_file = supervisor.run_directory().join("redis/redis.pid");
    let before = fs::read_to_string(&pid_file).unwrap();
    assert!(supervisor.command(&["upgrade", "--wait"]).status.success());
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), before);
    // It is still supervised.
    kill(Pid::from_raw(before.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    until("another Redis", PATIENCE, || {
        (fs::read_to_string(&pid_file).ok()? != before).then_some(())
    });
    assert!(supervisor.command(&["stop"]).status.success());
}
