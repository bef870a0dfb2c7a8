//! What needs root: other users, and being PID 1. Left out, and said so, without it.

use crate::harness::{PATIENCE, Supervisor, config, field, until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::process::Command;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("workers_become_someone_else", workers_become_someone_else),
    ("only_root_takes_another_user", only_root_takes_another_user),
    ("pid_1_reaps_strangers", pid_1_reaps_strangers),
];

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("left out: needs root");
    }
    root
}

fn workers_become_someone_else() {
    if !root() {
        return;
    }
    let mut supervisor = Supervisor::serving(2, "message", "user = 'nobody'");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let check = || {
        for pid in supervisor.await_ready(2).into_values() {
            let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
            assert_eq!(
                field(pid, "Uid:").unwrap().split_whitespace().collect::<Vec<_>>(),
                [uid.as_str(); 4]
            );
            assert_eq!(
                field(pid, "Gid:").unwrap().split_whitespace().collect::<Vec<_>>(),
                [gid.as_str(); 4]
            );
            assert_eq!(field(pid, "Groups:").unwrap(), gid);
            assert_eq!(field(pid, "NoNewPrivs:").unwrap(), "1");
            assert_eq!(field(pid, "CapEff:").unwrap(), "0000000000000000");
        }
    };
    check();
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    check();
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.end(PATIENCE), Some(0));
}

/// Without root no other user can be taken: `check` and `run` say the same. The own user is no other.
fn only_root_takes_another_user() {
    const UNPRIVILEGED: &str = "65534";
    if !root() {
        return;
    }
    let launcher = [
        "setpriv",
        "--reuid",
        UNPRIVILEGED,
        "--regid",
        UNPRIVILEGED,
        "--clear-groups",
    ];
    let scratch = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(scratch.path(), Some(65_534), Some(65_534)).unwrap();
    let program = scratch.path().join("anyworker");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let file = scratch.path().join("supervisor.toml");
    let said = |command: &str, user: &str| {
        let text = config(scratch.path(), 1, "badconfig", &format!("user = '{user}'"));
        std::fs::write(&file, text).unwrap();
        let output = Command::new(launcher[0])
            .args(&launcher[1..])
            .arg(&program)
            .args([command, "--config"])
            .arg(&file)
            .current_dir(scratch.path())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (user, fault) in [
        ("daemon", "workers.user: only root can start workers as `daemon`"),
        ("root", "workers.user: only root can start workers as `root`"),
        (
            "no-such-user-here",
            "workers.user: there is no user `no-such-user-here`",
        ),
    ] {
        for command in ["check", "run"] {
            let (code, said) = said(command, user);
            assert_eq!(code, Some(78), "{command} {user}: {said}");
            assert!(said.contains(fault), "{command} {user}: {said}");
        }
    }
    let (code, text) = said("check", "nobody");
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("workers.user"), "{text}");
    // It gets as far as its workers, which say so.
    let (_, text) = said("run", "nobody");
    assert!(text.contains("the stub says badconfig"), "{text}");
}

fn pid_1_reaps_strangers() {
    let launcher = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];
    if !root()
        || !Command::new(launcher[0])
            .args(&launcher[1..])
            .arg("true")
            .status()
            .is_ok_and(|s| s.success())
    {
        println!("left out: no PID namespaces");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let text = config(scratch.path(), 2, "orphan", "");
    let supervisor = Supervisor::start_in(scratch, &text, &launcher, &BTreeMap::new());
    supervisor.await_log("serving");
    assert_eq!(supervisor.status()["supervisor"]["pid"], 1);
    let unshare = supervisor.pid();
    let inner = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let inner: i32 = inner.trim().parse().unwrap();
    let children = || {
        let text = std::fs::read_to_string(format!("/proc/{inner}/task/{inner}/children")).unwrap();
        text.split_whitespace().count()
    };
    until("orphans are reaped", PATIENCE, || (children() == 2).then_some(()));
    let output = supervisor.command(&["stop"]);
    assert!(output.status.success(), "{output:?}");
}
