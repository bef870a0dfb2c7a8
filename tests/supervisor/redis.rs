//! The managed Redis: first up, supervised, last down. Left out where no server is installed.

use crate::harness::{PATIENCE, Supervisor, lives, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_managed_redis_is_supervised", a_managed_redis_is_supervised),
    (
        "a_managed_redis_left_behind_is_replaced",
        a_managed_redis_left_behind_is_replaced,
    ),
    ("a_managed_redis_serves_other_users", a_managed_redis_serves_other_users),
    (
        "a_managed_redis_starts_under_any_locale",
        a_managed_redis_starts_under_any_locale,
    ),
    (
        "a_managed_redis_that_refuses_to_start_says_why",
        a_managed_redis_that_refuses_to_start_says_why,
    ),
    (
        "a_managed_redis_whose_socket_is_removed_is_restarted",
        a_managed_redis_whose_socket_is_removed_is_restarted,
    ),
    ("the_append_only_file_is_private", the_append_only_file_is_private),
    ("a_missing_server_is_named", a_missing_server_is_named),
];

fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| {
        ["redis-server", "valkey-server"]
            .iter()
            .any(|name| directory.join(name).is_file())
    });
    if !found {
        println!("left out: neither redis-server nor valkey-server is installed");
    }
    found
}

fn config(scratch: &TempDir, more: &str) -> String {
    let run = scratch.path().join("run");
    format!(
        "[listen]\naddress = '127.0.0.1:0'\n[runtime]\ndirectory = '{}'\n[redis]\nmanaged = true\n[workers]\ncount = 2\n{more}",
        run.display()
    )
}

fn start(more: &str) -> Supervisor {
    let scratch = tempfile::tempdir().unwrap();
    let text = config(&scratch, more);
    Supervisor::start_in(scratch, &text, &[], &BTreeMap::new())
}

fn ping(socket: &Path) -> Option<()> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"PING\r\n").ok()?;
    let mut answer = [0_u8; 7];
    stream.read_exact(&mut answer).ok()?;
    (&answer == b"+PONG\r\n").then_some(())
}

fn pid(supervisor: &Supervisor) -> Option<i32> {
    let path = supervisor.run_directory().join("redis/redis.pid");
    std::fs::read_to_string(path)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| lives(*pid))
}

fn a_managed_redis_is_supervised() {
    if !installed() {
        return;
    }
    let mut supervisor = start("");
    supervisor.await_log("serving");
    let socket = supervisor.run_directory().join("redis.sock");
    ping(&socket).unwrap();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let first = pid(&supervisor).unwrap();
    let workers = supervisor.await_ready(2);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = until("restart", PATIENCE, || {
        pid(&supervisor).filter(|pid| *pid != first && ping(&socket).is_some())
    });
    assert_eq!(supervisor.await_ready(2), workers, "workers stay");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.end(PATIENCE), Some(0));
    assert!(!lives(second));
    let log = supervisor.log();
    assert!(log.find("managed Redis stopped") > log.find("fleet ended"), "{log}");
}

fn a_managed_redis_left_behind_is_replaced() {
    if !installed() {
        return;
    }
    let mut supervisor = start("");
    supervisor.await_log("serving");
    let first = pid(&supervisor).unwrap();
    supervisor.signal(Signal::SIGKILL);
    supervisor.end(PATIENCE);
    assert!(lives(first));
    let mut next = supervisor.command_in_background(&["run"]);
    until("next", PATIENCE, || {
        supervisor.command(&["status"]).status.success().then_some(())
    });
    assert!(!lives(first));
    ping(&supervisor.run_directory().join("redis.sock")).unwrap();
    assert!(supervisor.command(&["stop"]).status.success());
    assert_eq!(next.wait().unwrap().code(), Some(0));
}

fn a_managed_redis_serves_other_users() {
    if !installed() || !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = config(&scratch, "user = 'nobody'");
    let mut supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::new());
    supervisor.await_log("serving");
    let uid = crate::harness::field(pid(&supervisor).unwrap(), "Uid:").unwrap();
    assert!(
        uid.starts_with(&nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.to_string()),
        "{uid}"
    );
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.end(PATIENCE), Some(0));
}

/// Redis 7.2 and newer refuse to start under a locale that the host lacks, as `ssh` forwards one (`locale-collate`).
fn a_managed_redis_starts_under_any_locale() {
    if !installed() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let text = config(&scratch, "");
    let script = "case ${LC_ALL-} in C) PATH=$OTHERS exec redis-server \"$@\";; esac\n\
                  echo '7:M # Failed to configure LOCALE for invalid locale name.'; exit 1";
    let others = std::env::var("PATH").unwrap();
    let bin = plant(&scratch, &script.replace("$OTHERS", &others));
    let path = format!("{}:{others}", bin.display());
    let locale = || PathBuf::from("de_DE.UTF-8");
    let env = BTreeMap::from([
        ("LANG", locale()),
        ("LC_ALL", locale()),
        ("LC_COLLATE", locale()),
        ("PATH", path.into()),
    ]);
    let supervisor = Supervisor::start_in(scratch, &text, &[], &env);
    supervisor.await_log("serving");
    ping(&supervisor.run_directory().join("redis.sock")).unwrap();
}

/// A program `redis-server` in a directory of its own.
fn plant(scratch: &TempDir, script: &str) -> PathBuf {
    let bin = scratch.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("redis-server"), format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(bin.join("redis-server"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

fn a_managed_redis_that_refuses_to_start_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let text = config(&scratch, "");
    let bin = plant(
        &scratch,
        "echo 'FATAL CONFIG FILE ERROR (Redis 7.2.4)' >&2; echo 'Bad directive'; exit 1",
    );
    let supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::from([("PATH", bin)]));
    let line = supervisor.await_log("managed Redis died");
    let said = "FATAL CONFIG FILE ERROR (Redis 7.2.4) | Bad directive";
    assert_eq!(line["said"], said, "{line}");
    let redis = &supervisor.status()["supervisor"]["redis"];
    assert_eq!(redis["last_exit"], format!("exit 1; it said: {said}"));
    let shown = supervisor.command(&["status"]).stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("managed Redis: ") && shown.contains(said), "{shown}");
}

/// A command and the first line of its answer.
fn ask(socket: &Path, command: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line.trim().to_owned())
}

fn a_managed_redis_whose_socket_is_removed_is_restarted() {
    if !installed() {
        return;
    }
    let supervisor = start("");
    supervisor.await_log("serving");
    let socket = supervisor.run_directory().join("redis.sock");
    assert_eq!(ask(&socket, "SET kept yes").as_deref(), Some("+OK"));
    let first = pid(&supervisor).unwrap();
    std::fs::remove_file(&socket).unwrap();
    // Another supervisor's Redis would write to the same files.
    std::fs::remove_file(supervisor.run_directory().join("supervisor.lock")).unwrap();
    assert_eq!(supervisor.command(&["run"]).status.code(), Some(78));
    let kept = until("another Redis", PATIENCE, || {
        let answer = (pid(&supervisor)? != first).then(|| ask(&socket, "EXISTS kept"))?;
        answer.filter(|answer| !answer.starts_with("-LOADING"))
    });
    assert_eq!(kept, ":1");
    assert!(!lives(first));
    let redis = supervisor.status()["supervisor"]["redis"].clone();
    assert!(
        redis["last_exit"].as_str().unwrap().contains("socket was removed"),
        "{redis}"
    );
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
}

/// `redis.directory` of an operator, made by a plain `mkdir`.
fn the_append_only_file_is_private() {
    if !installed() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = config(&scratch, "");
    let text = text.replace(
        "managed = true",
        &format!("managed = true\ndirectory = '{}'", data.display()),
    );
    let supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::new());
    supervisor.await_log("serving");
    let private = |path: &Path| {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    };
    private(&data);
    private(&data.join("redis.log"));
    let files = data.join("appendonlydir");
    private(&files);
    for file in std::fs::read_dir(files).unwrap() {
        private(&file.unwrap().path());
    }
}

fn a_missing_server_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let text = config(&scratch, "");
    let empty = scratch.path().join("empty");
    let mut supervisor = Supervisor::start_in(scratch, &text, &[], &BTreeMap::from([("PATH", empty)]));
    assert_eq!(supervisor.end(PATIENCE), Some(78));
    assert!(
        supervisor.log().contains("apt-get install -y redis-server"),
        "{}",
        supervisor.log()
    );
}
