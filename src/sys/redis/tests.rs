//! The managed Redis with fake programs and a clock of its own.

use super::directory::{DirectoryError, OWN_FILES};
use super::words::{WORDS_LINE_CHARS_MAX, last_lines, tail};
use super::*;
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A managed Redis whose program is this shell script.
fn fake(script: &str) -> (TempDir, ManagedRedis) {
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("redis-server");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let redis = of(&scratch, program);
    (scratch, redis)
}

fn of(scratch: &TempDir, program: PathBuf) -> ManagedRedis {
    let (socket, directory) = (scratch.path().join("redis.sock"), scratch.path().join("redis"));
    ManagedRedis::new(program, socket, directory, None, 0, None)
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        nix::poll::poll(&mut [], 5_u8).ok();
    }
}

/// Starts it, another process being about to be executed at the moment notwithstanding.
fn start(redis: &mut ManagedRedis, now: &mut Moment) -> Pid {
    until("it starts", || {
        redis.turn(*now);
        *now += RESTART_MAX;
        redis.pid()
    })
}

/// Waits for the end of its process, and tells it.
fn end(redis: &mut ManagedRedis, now: Moment) -> String {
    let pid = redis.pid().unwrap();
    let waited = waitpid(pid, None).unwrap();
    let end = match waited {
        WaitStatus::Exited(_, code) => End::Code(code),
        WaitStatus::Signaled(_, signal, _) => End::Signal(signal as i32),
        WaitStatus::Continued(_)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::StillAlive
        | WaitStatus::Stopped(..) => panic!("{waited:?}"),
    };
    assert!(redis.reaped(now, pid.as_raw(), end));
    redis.status().last_exit.unwrap()
}

#[test]
fn what_a_redis_that_refuses_to_start_says_is_the_reason() {
    // Redis 7.2 under a locale that the host does not have says this in its log, and other faults before it has one.
    let script = "echo 'Bad directive' >&2\n\
                  for word; do case $previous in --logfile) log=$word;; esac; previous=$word; done\n\
                  echo '7:M # Failed to configure LOCALE for invalid locale name.' >> \"$log\"; exit 1";
    let (_scratch, mut redis) = fake(script);
    std::fs::create_dir(&redis.directory).unwrap();
    std::fs::set_permissions(&redis.directory, Permissions::from_mode(0o700)).unwrap();
    std::fs::write(redis.directory.join("redis.log"), "of a former life\n").unwrap();
    let mut now = Moment::ZERO;
    for restarts in 1..3 {
        start(&mut redis, &mut now);
        let last = end(&mut redis, now);
        assert!(
            last.contains("Bad directive | 7:M # Failed to configure LOCALE"),
            "{last}"
        );
        assert!(!last.contains("former life"), "{last}");
        let status = redis.status();
        assert_eq!((status.restarts, status.state.as_str()), (restarts, "backoff"));
    }
}

#[test]
fn a_program_that_is_not_there_is_the_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let mut redis = of(&scratch, scratch.path().join("nowhere"));
    redis.turn(Moment::ZERO);
    let last = redis.status().last_exit.unwrap();
    assert!(last.starts_with("not started: No such file"), "{last}");
}

#[test]
fn it_starts_with_nothing_of_ours() {
    // Signals 32 and 33 are the C library's own, which no program may change.
    const OF_LIBC: u64 = 0b11 << 31;
    let script =
        "env | sort > env; umask > umask; ls -l /proc/self/fd > fd; grep Sig /proc/self/status > signals; exit 1";
    let (_scratch, mut redis) = fake(script);
    // As a program that does not close what it opens leaves it to us.
    let stray = File::open("/dev/zero").unwrap();
    super::super::spawn::keep_at_exec(std::os::fd::AsRawFd::as_raw_fd(&stray), true).unwrap();
    let mut now = Moment::ZERO;
    start(&mut redis, &mut now);
    end(&mut redis, now);
    let read = |name: &str| std::fs::read_to_string(redis.directory.join(name)).unwrap();
    let env = read("env");
    for line in env.lines() {
        let name = line.split('=').next().unwrap();
        // PWD, SHLVL and _ are the shell's.
        let known = ENVIRONMENT.contains(&name) || ["LC_ALL", "OLDPWD", "PWD", "SHLVL", "_"].contains(&name);
        assert!(known, "{line}");
    }
    assert!(env.lines().any(|line| line == "LC_ALL=C"), "{env}");
    assert_eq!(read("umask").trim(), "0077");
    assert!(!read("fd").contains("/dev/zero"), "{}", read("fd"));
    for line in read("signals")
        .lines()
        .filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"))
    {
        let mask = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        assert_eq!(mask & !OF_LIBC, 0, "{line}");
    }
}

#[test]
fn a_redis_that_is_silent_is_killed_and_one_that_answers_is_not() {
    let (_scratch, mut redis) = fake("exec sleep 1000");
    let mut now = Moment::ZERO;
    let pid = start(&mut redis, &mut now);
    let listener = std::os::unix::net::UnixListener::bind(&redis.socket).unwrap();
    let answer = |text: &[u8]| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(text).unwrap();
    };
    // Asked at one look, read at the next one.
    redis.turn(now);
    answer(b"-LOADING Redis is loading the dataset in memory\r\n");
    let mut look = |redis: &mut ManagedRedis, step| {
        now += step;
        redis.turn(now)
    };
    assert_eq!(look(&mut redis, PROBE_EVERY), Turn::Same);
    assert_eq!(look(&mut redis, PROBE_EVERY), Turn::Same);
    answer(b"+PONG\r\n");
    assert_eq!(look(&mut redis, PROBE_EVERY), Turn::Accepts);
    // Busy for hours, and answering that.
    for _ in 0..2 * SILENT_LOOKS_MAX {
        look(&mut redis, LOOK_EVERY);
        answer(b"-BUSY Redis is busy running a script\r\n");
        look(&mut redis, LOOK_EVERY);
        assert_eq!(redis.status().state, "running");
    }
    // A host that stood still for an hour counts as one look.
    look(&mut redis, Duration::from_secs(3_600));
    for _ in 2..SILENT_LOOKS_MAX {
        look(&mut redis, LOOK_EVERY);
    }
    assert_eq!(redis.status().state, "silent");
    assert_eq!(
        waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).unwrap(),
        WaitStatus::StillAlive
    );
    look(&mut redis, LOOK_EVERY);
    let last = end(&mut redis, now);
    assert_eq!(last, "signal 9 (SIGKILL), killed because it had not answered for 30 s");
    assert_eq!(redis.status().restarts, 1);
}

#[test]
fn a_redis_whose_socket_was_removed_is_restarted() {
    let (_scratch, mut redis) = fake("exec sleep 1000");
    let mut now = Moment::ZERO;
    let pid = start(&mut redis, &mut now);
    redis.state = State::Running {
        pid,
        since: now,
        watch: Watch::default(),
    };
    for _ in 0..ABSENT_LOOKS_MAX {
        assert_eq!(redis.status().state, "running");
        now += LOOK_EVERY;
        redis.turn(now);
    }
    let last = end(&mut redis, now);
    assert_eq!(last, "signal 15 (SIGTERM), its socket was removed from outside");
    // One that does not obey is killed.
    redis.program = "/bin/sh".into();
    let (_scratch, mut redis) = fake("trap '' TERM; echo > stubborn; while :; do sleep 1; done");
    let pid = start(&mut redis, &mut now);
    until("the trap", || redis.directory.join("stubborn").exists().then_some(()));
    redis.state = State::Running {
        pid,
        since: now,
        watch: Watch::default(),
    };
    for step in [LOOK_EVERY, LOOK_EVERY, STOP_GRACE] {
        now += step;
        redis.turn(now);
    }
    assert_eq!(
        end(&mut redis, now),
        "signal 9 (SIGKILL), its socket was removed from outside"
    );
}

#[test]
fn a_state_of_the_build_before_is_read() {
    let state = serde_json::json!({
        "program": "/usr/bin/redis-server", "socket": "/run/a/redis.sock", "directory": "/run/a/redis", "identity": null,
        "state": {"Running": {"pid": 7, "since": {"secs": 1, "nanos": 0}}}, "deaths": 0
    });
    let redis: ManagedRedis = serde_json::from_value(state).unwrap();
    assert_eq!(redis.pid(), Some(Pid::from_raw(7)));
    assert_eq!(redis.status().last_exit, None);
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_of_redis_alone_is_closed_to_others() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("redis");
    let claim = || claim_directory(&directory, None);
    let bits = || directory.metadata().unwrap().mode() & 0o7777;
    drop(claim().unwrap());
    assert_eq!(bits(), 0o700);
    for name in OWN_FILES {
        std::fs::write(directory.join(name), "").unwrap();
    }
    std::fs::write(directory.join("temp-rewriteaof-7.aof"), "").unwrap();
    for open in [0o755, 0o701, 0o744] {
        mode(&directory, open);
        drop(claim().unwrap());
        assert_eq!(bits(), 0o700, "{open:o}");
    }
    // A group that may read was let in by the operator.
    mode(&directory, 0o750);
    drop(claim().unwrap());
    assert_eq!(bits(), 0o750);
}

#[test]
fn a_directory_that_is_shared_is_refused_and_left_as_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("accounts.db"), "").unwrap();
    mode(&directory, 0o755);
    let error = claim_directory(&directory, None).unwrap_err().to_string();
    assert!(error.contains("accounts.db") && error.contains("chmod 700"), "{error}");
    assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o755);
    mode(&directory, 0o777);
    let error = claim_directory(&directory, None).unwrap_err().to_string();
    assert!(error.starts_with("redis.directory: other users may write"), "{error}");
}

#[test]
fn a_directory_has_one_redis() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("redis");
    let first = claim_directory(&directory, None).unwrap();
    let error = claim_directory(&directory, None).unwrap_err();
    assert!(matches!(error, DirectoryError::Used { .. }), "{error}");
    drop(first);
    claim_directory(&directory, None).unwrap();
}

#[test]
fn last_words_are_short_clean_and_of_this_life() {
    assert_eq!(last_lines("\n \n"), None);
    assert_eq!(last_lines("1\n2\n\n3\n4\n5\n6\n").unwrap(), "2 | 3 | 4 | 5 | 6");
    assert_eq!(last_lines("a\u{1b}[31mb\0\0").unwrap(), "a[31mb");
    assert_eq!(last_lines(&"x".repeat(9_999)).unwrap().len(), WORDS_LINE_CHARS_MAX);
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("redis.log");
    assert!(tail(&log, 0).is_err());
    std::fs::write(&log, "old\nnew\n").unwrap();
    assert_eq!(tail(&log, 4).unwrap(), "new\n");
    assert_eq!(tail(&log, 8).unwrap(), "");
    assert_eq!(tail(&log, 99).unwrap(), "old\nnew\n", "it was rotated");
    std::fs::write(&log, "y".repeat(10_000)).unwrap();
    assert_eq!(tail(&log, 0).unwrap().len(), 4_096);
    symlink(&log, scratch.path().join("link")).unwrap();
    assert!(tail(&scratch.path().join("link"), 0).is_err());
}

#[test]
fn its_memory_is_bounded_and_it_evicts_nothing() {
    let (_scratch, mut redis) = fake("");
    redis.limit(5);
    let command = redis.command();
    let args: Vec<_> = command.get_args().collect();
    for (name, value) in [
        ("--maxmemory", "5"),
        ("--maxmemory-policy", "noeviction"),
        ("--save", ""),
    ] {
        assert!(args.windows(2).any(|pair| pair == [name, value]), "{name}: {args:?}");
    }
    // What a build before this wrote has no limit.
    let mut written = serde_json::to_value(&redis).unwrap();
    written.as_object_mut().unwrap().remove("bytes_max").unwrap();
    let read: ManagedRedis = serde_json::from_value(written).unwrap();
    assert_eq!(read.bytes_max, 0);
}
