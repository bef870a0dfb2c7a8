//! SIGHUP and `reload`: good, bad, and half-way.

use crate::harness::{PATIENCE, Supervisor, config, lives, of_a_copy, until};
use crate::upgrade::{install, versions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_reload_refuses_no_connection", a_reload_refuses_no_connection),
    (
        "a_bad_configuration_changes_nothing",
        a_bad_configuration_changes_nothing,
    ),
    ("a_new_worker_that_fails_rolls_back", a_new_worker_that_fails_rolls_back),
    (
        "a_new_worker_that_never_gets_ready_rolls_back",
        a_new_worker_that_never_gets_ready_rolls_back,
    ),
    (
        "a_canary_that_dies_in_the_soak_replaces_no_worker",
        a_canary_that_dies_in_the_soak_replaces_no_worker,
    ),
    (
        "whatever_a_new_binary_does_the_old_fleet_serves",
        whatever_a_new_binary_does_the_old_fleet_serves,
    ),
    ("old_workers_are_recycled", old_workers_are_recycled),
    ("what_needs_a_restart_is_a_fault", what_needs_a_restart_is_a_fault),
    ("a_file_that_is_gone_is_a_fault", a_file_that_is_gone_is_a_fault),
    ("reloads_coalesce", reloads_coalesce),
    (
        "a_reload_changes_the_number_of_slots",
        a_reload_changes_the_number_of_slots,
    ),
    (
        "an_old_worker_holds_up_the_next_reload_for_a_while_only",
        an_old_worker_holds_up_the_next_reload_for_a_while_only,
    ),
    ("a_reload_takes_the_binary_on_disk", a_reload_takes_the_binary_on_disk),
    (
        "a_flipped_link_leads_to_the_other_binary",
        a_flipped_link_leads_to_the_other_binary,
    ),
    (
        "a_binary_that_fails_its_check_changes_nothing",
        a_binary_that_fails_its_check_changes_nothing,
    ),
];

fn generation(supervisor: &Supervisor) -> u64 {
    supervisor.status()["supervisor"]["generation"].as_u64().unwrap()
}

fn a_reload_refuses_no_connection() {
    let supervisor = Supervisor::serving(3, "message", "");
    let address = supervisor.address();
    let before = supervisor.await_ready(3);
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
        for _ in 0..3 {
            let output = supervisor.command(&["reload", "--wait"]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
        }
        done.store(true, Ordering::SeqCst);
        assert!(clients.join().unwrap() > 50);
    });
    let after = supervisor.await_ready(3);
    assert!(after.iter().all(|(slot, pid)| before[slot] != *pid));
    assert_eq!(generation(&supervisor), 4);
    supervisor.signal(Signal::SIGHUP);
    until("generation 5", PATIENCE, || {
        (generation(&supervisor) == 5).then_some(())
    });
}

fn a_bad_configuration_changes_nothing() {
    let supervisor = Supervisor::serving(2, "message", "");
    let before = supervisor.await_ready(2);
    let text = config(
        supervisor.scratch.path(),
        2,
        "message",
        "cuont = 3\n[http]\nheader_timeout_ms = 'x'",
    );
    supervisor.configure(&text);
    for words in [&["reload", "--wait"][..], &["reload"]] {
        let output = supervisor.command(words);
        let faults = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{faults}");
        assert!(
            faults.contains("workers.cuont: ") && faults.contains("http.header_timeout_ms: "),
            "{faults}"
        );
    }
    supervisor.signal(Signal::SIGHUP);
    supervisor.await_log("reload refused: nothing changes");
    // Not even TOML any more.
    supervisor.configure(&format!("{text}\n[[[["));
    assert_eq!(supervisor.command(&["reload", "--wait"]).status.code(), Some(1));
    assert_eq!(supervisor.await_ready(2), before);
    assert_eq!(generation(&supervisor), 1);
}

fn a_new_worker_that_fails_rolls_back() {
    let supervisor = Supervisor::serving(3, "message", "");
    let before = supervisor.await_ready(3);
    supervisor.configure(&config(supervisor.scratch.path(), 3, "badconfig_slot1", ""));
    let output = supervisor.command(&["reload", "--wait"]);
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(
        reason.contains("slot 1, generation 2: exit 78: the stub says badconfig"),
        "{reason}"
    );
    let after = supervisor.await_ready(3);
    assert_ne!(after[&0], before[&0], "slot 0 was replaced and is back");
    assert_eq!((after[&1], after[&2]), (before[&1], before[&2]));
    let status = supervisor.status();
    let generations = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["generation"].as_u64().unwrap());
    assert_eq!(generations.collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(supervisor.state(), "serving");
    // The next good one works.
    supervisor.configure(&config(supervisor.scratch.path(), 3, "message", ""));
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    assert_eq!(generation(&supervisor), 3);
}

fn a_new_worker_that_never_gets_ready_rolls_back() {
    let supervisor = Supervisor::serving(2, "message", "");
    let before = supervisor.await_ready(2);
    supervisor.configure(&config(
        supervisor.scratch.path(),
        2,
        "neverready",
        "boot_timeout_ms = 1500",
    ));
    let waiting = supervisor.command_in_background(&["reload", "--wait"]);
    until("reloading", PATIENCE, || {
        (supervisor.state() == "reloading").then_some(())
    });
    assert_eq!(supervisor.pids("ready"), before, "status answers during a reload");
    assert_eq!(supervisor.pids("booting").len(), 1);
    let output = waiting.wait_with_output().unwrap();
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains("not ready within 15"), "{reason}");
    assert_eq!(supervisor.await_ready(2), before);
}

fn a_canary_that_dies_in_the_soak_replaces_no_worker() {
    let supervisor = Supervisor::serving(2, "message", "");
    let before = supervisor.await_ready(2);
    let text = config(supervisor.scratch.path(), 2, "dieslater", "");
    supervisor.configure(&text.replace("soak_ms = 100", "soak_ms = 2000"));
    let output = supervisor.command(&["reload", "--wait"]);
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains("slot 0, generation 2: exit 70"), "{reason}");
    assert_eq!(supervisor.await_ready(2), before, "no worker was replaced");
}

fn whatever_a_new_binary_does_the_old_fleet_serves() {
    let (supervisor, program) = of_a_copy(3, "boot_timeout_ms = 1500");
    let (address, before) = (supervisor.address(), supervisor.await_ready(3));
    let good = config(supervisor.scratch.path(), 3, "message", "boot_timeout_ms = 1500");
    let marked = |name: &str| program.with_file_name(name);
    let soak = |text: &str| text.replace("soak_ms = 100", "soak_ms = 1000");
    let cases = [
        ("worker-fails", good.clone(), "slot 0, generation 2: exit 101"),
        (
            "worker-hangs",
            good.clone(),
            "slot 0, generation 3: not ready within 15",
        ),
        (
            "none",
            soak(&good.replace("'message'", "'dieslater'")),
            "slot 0, generation 4: exit 70",
        ),
        ("none", good.replace("count = 3", "count = 'three'"), "workers.count: "),
        ("check-fails", good.clone(), "its own check failed: exit 101"),
    ];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::SeqCst) {
                let begun = std::time::Instant::now();
                supervisor.greet(address);
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        for (mark, text, why) in cases {
            fs::write(marked(mark), "").unwrap();
            supervisor.configure(&text);
            let output = supervisor.command(&["reload", "--wait"]);
            let reason = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{mark}: {reason}");
            assert!(reason.contains(why), "{mark}: {reason}");
            let last = supervisor.status()["supervisor"]["last_reload"].clone();
            assert!(last.as_str().unwrap().contains(why), "{last}");
            fs::remove_file(marked(mark)).unwrap();
            supervisor.configure(&good);
            assert_eq!(supervisor.await_ready(3), before, "{mark}: no worker was replaced");
        }
        done.store(true, Ordering::SeqCst);
        assert!(clients.join().unwrap() < Duration::from_secs(1));
    });
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
}

fn old_workers_are_recycled() {
    let more = "grace_ms = 500\nboot_timeout_ms = 600\nmax_age_ms = 1100";
    let supervisor = Supervisor::serving(2, "message", more);
    let (address, before) = (supervisor.address(), supervisor.await_ready(2));
    until("both replaced", PATIENCE, || {
        supervisor.greet(address);
        let ready = supervisor.pids("ready");
        (ready.len() == 2 && ready.iter().all(|(slot, pid)| before[slot] != *pid)).then_some(())
    });
    assert_eq!(generation(&supervisor), 1);
    let status = supervisor.status();
    assert_eq!(status["workers"][0]["restarts"], 0, "it is no crash");
}

fn what_needs_a_restart_is_a_fault() {
    let supervisor = Supervisor::serving(1, "message", "");
    let text = config(supervisor.scratch.path(), 1, "message", "");
    supervisor.configure(&text.replace("127.0.0.1:0", "127.0.0.2:0"));
    let output = supervisor.command(&["reload", "--wait"]);
    let faults = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{faults}");
    assert!(
        faults.contains("listen.address: ") && faults.contains("needs a restart"),
        "{faults}"
    );
}

fn a_file_that_is_gone_is_a_fault() {
    let scratch = tempfile::tempdir().unwrap();
    let dot_env = scratch.path().join(".env");
    fs::write(&dot_env, "ANYWORKER_WORKERS__COUNT=1\n").unwrap();
    let text = config(scratch.path(), 2, "message", "");
    let supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::new());
    supervisor.await_log("serving");
    fs::remove_file(&dot_env).unwrap();
    let output = supervisor.command(&["reload", "--wait"]);
    let faults = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{faults}");
    assert!(faults.contains(".env: ") && faults.contains("it is gone"), "{faults}");
    assert_eq!(supervisor.await_ready(1).len(), 1);
    // A supervisor that waited for a writer would answer no request.
    nix::unistd::mkfifo(&dot_env, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let faults = String::from_utf8(supervisor.command(&["reload", "--wait"]).stderr).unwrap();
    assert!(faults.contains("not a regular file"), "{faults}");
    assert_eq!(generation(&supervisor), 1);
    fs::remove_file(&dot_env).unwrap();
    fs::write(&dot_env, "").unwrap();
    let output = supervisor.command(&["reload", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    supervisor.await_ready(2);
}

fn reloads_coalesce() {
    let supervisor = Supervisor::serving(2, "message", "");
    let waiting: Vec<_> = (0..6)
        .map(|_| supervisor.command_in_background(&["reload", "--wait"]))
        .collect();
    for child in waiting {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    supervisor.await_ready(2);
    let generation = generation(&supervisor);
    assert!((2..=5).contains(&generation), "{generation}");
}

fn a_reload_changes_the_number_of_slots() {
    let supervisor = Supervisor::serving(2, "message", "");
    for workers in [4, 1] {
        supervisor.configure(&config(supervisor.scratch.path(), workers, "message", ""));
        assert!(supervisor.command(&["reload", "--wait"]).status.success());
        supervisor.await_ready(usize::from(workers));
    }
}

fn an_old_worker_holds_up_the_next_reload_for_a_while_only() {
    let supervisor = Supervisor::serving(1, "deaf", "grace_ms = 60000");
    let first = supervisor.await_ready(1)[&0];
    supervisor.configure(&config(supervisor.scratch.path(), 1, "message", "grace_ms = 60000"));
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    assert_eq!(supervisor.pids("draining").get(&0), Some(&first));
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    until("end of the first", Duration::from_secs(4), || {
        (!lives(first)).then_some(())
    });
    assert_eq!(generation(&supervisor), 3);
}

fn a_reload_takes_the_binary_on_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let (program, good) = (scratch.path().join("anyworker"), std::env::current_exe().unwrap());
    fs::copy(&good, &program).unwrap();
    let text = config(scratch.path(), 2, "message", "");
    let supervisor = Supervisor::start_program(&program, scratch, &text, &[], &BTreeMap::new());
    let before = supervisor.await_ready(2);
    // An installation that went wrong: a crash does not pick it up, a reload is refused.
    fs::remove_file(&program).unwrap();
    fs::write(&program, "not a program").unwrap();
    kill(Pid::from_raw(before[&0]), Signal::SIGKILL).unwrap();
    until("respawn", PATIENCE, || {
        (supervisor.pids("ready").get(&0)? != &before[&0]).then_some(())
    });
    let before = supervisor.await_ready(2);
    let program_bytes = fs::read(&good).unwrap();
    // Of elf(5) only the machine: aarch64, with the low byte first.
    let mut foreign = program_bytes[..64].to_vec();
    foreign[18..20].copy_from_slice(&[183, 0]);
    for (bytes, mode, what) in [
        (&program_bytes[..], 0o600, "cannot be executed: Permission denied"),
        (
            &b"not a program"[..],
            0o755,
            "cannot be executed: it is not an executable (ELF) file",
        ),
        (
            &foreign[..],
            0o755,
            "cannot be executed: it is not an executable for this machine: it is for aarch64",
        ),
    ] {
        fs::write(&program, bytes).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let output = supervisor.command(&["reload", "--wait"]);
        let reason = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{reason}");
        assert!(reason.contains("binary: ") && reason.contains(what), "{reason}");
    }
    fs::remove_file(&program).unwrap();
    let output = supervisor.command(&["reload", "--wait"]);
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("binary: "),
        "a binary that is gone is a fault"
    );
    assert_eq!(supervisor.await_ready(2), before);
    fs::copy(&good, &program).unwrap();
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
}

/// Deployments flip a link: a reload and an upgrade run what it leads to now, even if the former target is gone.
fn a_flipped_link_leads_to_the_other_binary() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    for name in ["v1", "v2", "v3"] {
        fs::create_dir(at(name)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), at(name).join("anyworker")).unwrap();
    }
    install(&at("v2/anyworker"), "9.9.2");
    install(&at("v3/anyworker"), "9.9.3");
    let (first, second, third) = (at("v1"), at("v2"), at("v3"));
    let current = at("current");
    let flip = |to: &Path| {
        let fresh = current.with_extension("new");
        std::os::unix::fs::symlink(to, &fresh).unwrap();
        fs::rename(fresh, &current).unwrap();
    };
    flip(&first);
    let text = config(scratch.path(), 1, "message", "");
    let program = current.join("anyworker");
    let supervisor = Supervisor::start_program(&program, scratch, &text, &[], &BTreeMap::new());
    supervisor.await_log("serving");
    let old = supervisor.await_ready(1);
    flip(&second);
    // Before a reload is asked for, a crash is answered with the binary of the generation.
    kill(Pid::from_raw(old[&0]), Signal::SIGKILL).unwrap();
    until("respawn", PATIENCE, || {
        (supervisor.pids("ready").get(&0)? != &old[&0]).then_some(())
    });
    assert_eq!(versions(&supervisor.status()), [boot::VERSION; 2]);
    fs::remove_dir_all(&first).unwrap();
    let output = supervisor.command(&["reload", "--wait"]);
    assert!(output.status.success(), "{output:?}");
    supervisor.await_ready(1);
    assert_eq!(versions(&supervisor.status()), [boot::VERSION, "9.9.2"]);
    flip(&third);
    fs::remove_dir_all(&second).unwrap();
    assert!(supervisor.command(&["upgrade", "--wait"]).status.success());
    supervisor.await_ready(1);
    assert_eq!(versions(&supervisor.status()), ["9.9.3"; 2]);
    // And once more, from the supervisor that an upgrade has made.
    fs::create_dir(&first).unwrap();
    fs::copy(std::env::current_exe().unwrap(), first.join("anyworker")).unwrap();
    flip(&first);
    assert!(supervisor.command(&["upgrade", "--wait"]).status.success());
    supervisor.await_ready(1);
    assert_eq!(versions(&supervisor.status()), [boot::VERSION; 2]);
}

fn a_binary_that_fails_its_check_changes_nothing() {
    let (supervisor, program) = of_a_copy(2, "");
    let before = supervisor.await_ready(2);
    let (fails, hangs) = (
        program.with_file_name("check-fails"),
        program.with_file_name("check-hangs"),
    );
    fs::write(&fails, "").unwrap();
    let output = supervisor.command(&["reload", "--wait"]);
    let reason = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(
        reason.contains("its own check failed: ") && reason.contains("told to fail"),
        "{reason}"
    );
    let last = supervisor.status()["supervisor"]["last_reload"].clone();
    assert!(
        last.as_str()
            .unwrap()
            .starts_with("reload refused: binary: its own check"),
        "{last}"
    );
    // One that hangs delays only those who asked, and they share the next try.
    fs::rename(fails, &hangs).unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|_| supervisor.command_in_background(&["reload", "--wait"]))
        .collect();
    supervisor.await_log("reload queued behind the running check or reload");
    assert_eq!(supervisor.await_ready(2), before, "status answers meanwhile");
    let deadline = supervisor.await_within(
        Duration::from_secs(15),
        "check of the new binary killed at its deadline",
    );
    assert_eq!(deadline["level"], "WARN");
    fs::remove_file(hangs).unwrap();
    let outcomes: Vec<_> = waiting
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().status.code())
        .collect();
    assert_eq!(
        outcomes.iter().filter(|code| **code == Some(1)).count(),
        1,
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes.iter().filter(|code| **code == Some(0)).count(),
        2,
        "{outcomes:?}"
    );
    assert_eq!(generation(&supervisor), 2);
}
