//! The managed Redis: first up, supervised, last down. Left out where no server is installed.

use crate::harness::{PATIENCE, Supervisor, lives, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use tempfile::TempDir;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_managed_redis_is_supervised", a_managed_redis_is_supervised),
    (
        "a_managed_redis_left_behind_is_replaced",
        a_managed_redis_left_behind_is_replaced,
    ),
    ("a_managed_redis_serves_other_users", a_managed_redis_serves_other_users),
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
