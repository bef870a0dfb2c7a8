//! The runtime directory: whose it may be, and what happens when its files are removed.

use crate::harness::{PATIENCE, Supervisor, config, until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_directory_that_is_not_ours_is_refused",
        a_directory_that_is_not_ours_is_refused,
    ),
    ("a_linked_lock_file_is_left_alone", a_linked_lock_file_is_left_alone),
    ("removed_files_are_made_anew", removed_files_are_made_anew),
    (
        "a_removed_control_socket_is_not_taken_for_a_stopped_supervisor",
        a_removed_control_socket_is_not_taken_for_a_stopped_supervisor,
    ),
];

/// How a runtime directory is named.
#[derive(Clone, Copy, Debug)]
enum Source {
    Key,
    Systemd,
    Session,
}

/// A start whose runtime directory exists already and was prepared like this; what it said when it was refused.
fn refused(source: Source, prepare: impl Fn(&Path)) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let (directory, variable) = match source {
        Source::Key => (scratch.path().join("run"), None),
        Source::Systemd => (scratch.path().join("run"), Some(("RUNTIME_DIRECTORY", "run"))),
        Source::Session => (scratch.path().join("x/anyworker"), Some(("XDG_RUNTIME_DIR", "x"))),
    };
    fs::create_dir_all(&directory).unwrap();
    prepare(&directory);
    let mut text = config(scratch.path(), 1, "message", "");
    let mut env: BTreeMap<&str, PathBuf> = BTreeMap::new();
    if let Some((name, value)) = variable {
        env.insert(name, scratch.path().join(value));
        text = text.replace("[runtime]\ndirectory", "[runtime]\n# directory");
    }
    let before: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    let mut supervisor = Supervisor::start_in(scratch, &text, &[], &env);
    assert_eq!(supervisor.end(PATIENCE), Some(78), "{source:?}: {}", supervisor.log());
    let after = fs::read_dir(&directory).unwrap().count();
    assert_eq!(before.len(), after, "{source:?}: nothing is made there");
    supervisor.log()
}

fn a_directory_that_is_not_ours_is_refused() {
    for source in [Source::Key, Source::Systemd, Source::Session] {
        let log = refused(source, |directory| {
            fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
        });
        assert!(log.contains("runtime.directory: other users may write in"), "{log}");
        assert!(log.contains("chmod 700"), "{log}");
        if nix::unistd::geteuid().is_root() {
            let log = refused(source, |directory| chown(directory, Some(65_534), None).unwrap());
            assert!(log.contains("belongs to user 65534"), "{log}");
        }
    }
}

fn a_linked_lock_file_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let precious = scratch.path().join("precious");
    fs::write(&precious, "keep").unwrap();
    let log = refused(Source::Key, |directory| {
        fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
        symlink(&precious, directory.join("supervisor.lock")).unwrap();
    });
    assert!(log.contains("supervisor.lock is a symbolic link"), "{log}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "keep");
}

fn removed_files_are_made_anew() {
    let mut supervisor = Supervisor::serving(1, "message", "");
    let workers = supervisor.await_ready(1);
    let run = supervisor.run_directory();
    let answers = || supervisor.command(&["status"]).status.success().then_some(());
    for name in ["control.sock", "supervisor.lock"] {
        fs::remove_file(run.join(name)).unwrap();
        // A second supervisor knows that the first one lives, whatever is missing.
        let output = supervisor.command(&["run"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        let first = format!("already running: a supervisor (pid {})", supervisor.pid());
        assert!(said.contains(&first), "{said}");
        until(name, PATIENCE, || run.join(name).exists().then_some(()));
        until("an answer", PATIENCE, answers);
    }
    fs::remove_dir_all(&run).unwrap();
    until("an answer", PATIENCE, answers);
    assert_eq!(run.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    let log = supervisor.log();
    for what in ["control socket", "lock file", "runtime directory"] {
        let line = |line: &&str| line.contains("restored") && line.contains(&format!("\"what\":\"{what}\""));
        assert!(log.lines().any(|one| line(&one)), "{what}: {log}");
    }
    assert_eq!(supervisor.await_ready(1), workers, "workers stay");
    assert!(supervisor.command(&["reload", "--wait"]).status.success());
    assert!(supervisor.command(&["stop"]).status.success());
    assert_eq!(supervisor.end(PATIENCE), Some(0));
    assert!(!run.join("control.sock").exists());
}

fn a_removed_control_socket_is_not_taken_for_a_stopped_supervisor() {
    let supervisor = Supervisor::serving(1, "message", "");
    supervisor.signal(Signal::SIGSTOP);
    fs::remove_file(supervisor.run_directory().join("control.sock")).unwrap();
    let output = supervisor.command(&["status"]);
    supervisor.signal(Signal::SIGCONT);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    let expected = format!("the supervisor (pid {}) runs", supervisor.pid());
    assert!(
        said.contains(&expected) && said.contains("repeat the command"),
        "{said}"
    );
    assert!(!said.contains("anyworker run"), "{said}");
}
