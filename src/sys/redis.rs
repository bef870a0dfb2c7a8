//! The managed Redis: a private `redis-server` or `valkey-server` on a unix socket in the runtime
//! directory, supervised like a worker, started first and stopped last. It is asked for a sign of life
//! (`PING`) over its socket; one that stays silent, or whose socket was removed, is replaced.

mod directory;
mod probe;
mod state;
#[cfg(test)]
mod tests;
mod words;

use super::environment;
use super::forensics::{self, Hung};
use super::spawn::detach;
use super::user::Identity;
use crate::fleet::{End, Moment};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use probe::Sight;
use serde::{Deserialize, Serialize};
use state::{State, Watch};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tracing::{error, info, warn};

use directory::{pid_file, survivor};

pub(crate) use directory::claim as claim_directory;
pub(crate) use state::RedisStatus;

/// Programs that will do, best first.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Between two looks at a Redis that starts.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// A start that takes longer is worth a warning (a large append-only file).
const START_WARNING: Duration = Duration::from_secs(10);
/// First pause before a restart; doubles with each death up to the maximum.
const RESTART_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const RESTART_MAX: Duration = Duration::from_secs(5);
/// A Redis that lived this long was stable: its next death counts as the first.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Between two looks at a Redis that runs. The supervisor's loop comes round as often anyway.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks in a row without any answer, `LOADING` and `BUSY` included, after which a Redis that runs is killed: 30 s. A long
/// script answers `BUSY` after 5 s, and a fork of a large memory takes seconds. Looks are counted, not time, so that a host
/// that stood still is not taken for a hung Redis.
const SILENT_LOOKS_MAX: u32 = 30;
/// The same of one that starts: 120 s, since it does not answer while it opens its files.
const SILENT_STARTS_MAX: u32 = 6_000;
/// From this many silent looks on, `status` says so.
const SILENT_LOOKS_SHOWN: u32 = 5;
/// Looks in a row that find no socket until the Redis is restarted to make one.
const ABSENT_LOOKS_MAX: u32 = 2;
/// All that it gets of our environment: where programs, libraries and temporary files are, the time zone of its log, and how
/// its allocator is tuned.
const ENVIRONMENT: [&str; 7] = [
    "GLIBC_TUNABLES",
    "HOME",
    "LD_LIBRARY_PATH",
    "MALLOC_CONF",
    "PATH",
    "TMPDIR",
    "TZ",
];
/// From `SIGTERM` to `SIGKILL`.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// No server program is installed.
#[derive(Debug, thiserror::Error)]
#[error(
    "redis.managed: neither redis-server nor valkey-server is in PATH; install it with \
     `sudo apt-get install -y redis-server` (Debian, Ubuntu; elsewhere with its own package manager), or give redis.url"
)]
pub(crate) struct NotInstalled;

/// What the reactor needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing new.
    Same,
    /// It accepts commands.
    Accepts,
}

/// The managed Redis.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ManagedRedis {
    program: PathBuf,
    socket: PathBuf,
    /// Its working directory: append-only files, log, pid file.
    directory: PathBuf,
    identity: Option<Identity>,
    /// `redis.memory_bytes_max`; 0, no limit, in what a build before this wrote.
    #[serde(default)]
    bytes_max: u64,
    state: State,
    deaths: u32,
    /// How often it ended without being asked to.
    #[serde(default)]
    restarts: u64,
    /// How it ended last, with its last words.
    #[serde(default)]
    last_exit: Option<String>,
    /// Why we end it, if we do.
    #[serde(default)]
    cause: Option<String>,
    /// Where its log ended when it was started (bytes).
    #[serde(default)]
    log_from: u64,
    /// Its standard output and error, in memory. After an upgrade its log has to do.
    #[serde(skip)]
    output: Option<File>,
    /// Its directory, locked against other supervisors. After an upgrade it is locked again at the first look.
    #[serde(skip)]
    home: Option<File>,
}

/// The first server program in PATH.
///
/// # Errors
/// When there is none.
pub(crate) fn locate() -> Result<PathBuf, NotInstalled> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    PROGRAMS
        .into_iter()
        .find_map(|name| {
            std::env::split_paths(&path)
                .map(|directory| directory.join(name))
                .find(|file| file.is_file())
        })
        .ok_or(NotInstalled)
}

impl ManagedRedis {
    /// A Redis that listens on `socket` and keeps its files in `directory`; not started yet.
    #[must_use]
    pub(crate) fn new(
        program: PathBuf,
        socket: PathBuf,
        directory: PathBuf,
        identity: Option<Identity>,
        bytes_max: u64,
        home: Option<File>,
    ) -> Self {
        let state = match survivor(&directory) {
            Some(pid) => State::Evicting {
                pid,
                look_at: Moment::ZERO,
                kill_at: Moment::MAX,
            },
            None => State::Backoff { until: Moment::ZERO },
        };
        Self {
            program,
            socket,
            directory,
            identity,
            bytes_max,
            state,
            deaths: 0,
            restarts: 0,
            last_exit: None,
            cause: None,
            log_from: 0,
            output: None,
            home,
        }
    }

    /// Has another limit of memory from its next start on.
    pub(crate) const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// When [`ManagedRedis::turn`] is due.
    #[must_use]
    pub(crate) const fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Backoff { until } => Some(*until),
            State::Evicting { look_at, .. } | State::Starting { look_at, .. } => Some(*look_at),
            State::Running { watch, .. } => Some(watch.look_at),
            State::Stopping { kill_at, .. } => *kill_at,
            State::Stopped => None,
        }
    }

    /// Its process, if it runs.
    #[must_use]
    pub(crate) const fn pid(&self) -> Option<Pid> {
        match &self.state {
            State::Starting { pid, .. } | State::Running { pid, .. } | State::Stopping { pid, .. } => Some(*pid),
            State::Backoff { .. } | State::Evicting { .. } | State::Stopped => None,
        }
    }

    /// Whether it was started and does not answer yet.
    #[must_use]
    pub(crate) const fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting { .. })
    }

    /// For `status`.
    #[must_use]
    pub(crate) fn status(&self) -> RedisStatus {
        let state = match &self.state {
            State::Backoff { .. } => "backoff",
            State::Evicting { .. } => "evicting",
            State::Starting { .. } => "starting",
            State::Running { watch, .. } if watch.silent >= SILENT_LOOKS_SHOWN => "silent",
            State::Running { .. } => "running",
            State::Stopping { .. } => "stopping",
            State::Stopped => "stopped",
        };
        RedisStatus {
            state: state.to_owned(),
            pid: self.pid().map(Pid::as_raw),
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
        }
    }

    /// Whether it is gone for good.
    #[must_use]
    pub(crate) const fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Does what is due. Never blocks.
    pub(crate) fn turn(&mut self, now: Moment) -> Turn {
        match &mut self.state {
            State::Backoff { until } if now >= *until => self.start(now),
            State::Evicting { pid, look_at, kill_at } if now >= *look_at => {
                if *kill_at == Moment::MAX {
                    warn!(
                        pid = pid.as_raw(),
                        "stopping the Redis that a previous supervisor left behind"
                    );
                    signal(*pid, Signal::SIGTERM);
                    *kill_at = now + STOP_GRACE;
                } else if now >= *kill_at {
                    signal(*pid, Signal::SIGKILL);
                }
                *look_at = now + PROBE_EVERY;
                if survivor(&self.directory).is_none() {
                    self.state = State::Backoff { until: now };
                }
            }
            State::Starting { look_at, .. } if now >= *look_at => return self.look_at_start(now),
            State::Running { watch, .. } if now >= watch.look_at => self.look(now),
            State::Stopping {
                pid,
                kill_at: kill_at @ Some(_),
            } if kill_at.is_some_and(|at| now >= at) => {
                warn!(pid = pid.as_raw(), "managed Redis killed at its deadline");
                signal(*pid, Signal::SIGKILL);
                *kill_at = None;
            }
            State::Backoff { .. }
            | State::Evicting { .. }
            | State::Running { .. }
            | State::Starting { .. }
            | State::Stopped
            | State::Stopping { .. } => {}
        }
        Turn::Same
    }

    /// Whether one that was started answers by now.
    fn look_at_start(&mut self, now: Moment) -> Turn {
        let State::Starting {
            pid,
            since,
            look_at,
            probe,
            warned,
            silent,
        } = &mut self.state
        else {
            return Turn::Same;
        };
        *look_at = now + PROBE_EVERY;
        match probe::look(&self.socket, probe) {
            Sight::Pong => {
                let (pid, start_ms) = (*pid, millis(now.saturating_sub(*since)));
                info!(pid = pid.as_raw(), start_ms, socket = %self.socket.display(), "managed Redis ready");
                let watch = Watch {
                    look_at: now + LOOK_EVERY,
                    ..Watch::default()
                };
                self.state = State::Running { pid, since: now, watch };
                return Turn::Accepts;
            }
            Sight::Answer => *silent = 0,
            Sight::Absent | Sight::Silent => *silent += 1,
        }
        if !*warned && now >= *since + START_WARNING {
            *warned = true;
            let log = self.directory.join("redis.log");
            warn!(pid = pid.as_raw(), log = %log.display(), "managed Redis does not answer yet");
        }
        if *silent >= SILENT_STARTS_MAX {
            *silent = 0;
            let patience = PROBE_EVERY.saturating_mul(SILENT_STARTS_MAX);
            self.cause = replace_hung(*pid, patience).or(self.cause.take());
        }
        Turn::Same
    }

    /// Whether one that runs still answers.
    fn look(&mut self, now: Moment) {
        if self.home.is_none() {
            // After an upgrade; if it fails, the lock of the runtime directory has to do.
            self.home = claim_directory(&self.directory, self.identity.as_ref()).ok().flatten();
        }
        let State::Running { pid, watch, .. } = &mut self.state else {
            return;
        };
        watch.look_at = now + LOOK_EVERY;
        if let Some(kill_at) = watch.kill_at {
            if now >= kill_at {
                warn!(pid = pid.as_raw(), "managed Redis killed at its deadline");
                signal(*pid, Signal::SIGKILL);
                watch.kill_at = Some(Moment::MAX);
            }
            return;
        }
        match probe::look(&self.socket, &mut watch.probe) {
            Sight::Answer | Sight::Pong => (watch.silent, watch.absent) = (0, 0),
            Sight::Silent => (watch.silent, watch.absent) = (watch.silent + 1, 0),
            Sight::Absent => watch.absent += 1,
        }
        if watch.absent >= ABSENT_LOOKS_MAX {
            // It cannot be told to make another one.
            let socket = self.socket.display();
            warn!(pid = pid.as_raw(), %socket, "socket of the managed Redis was removed: restarting it");
            self.cause = Some("its socket was removed from outside".to_owned());
            signal(*pid, Signal::SIGTERM);
            watch.kill_at = Some(now + STOP_GRACE);
        } else if watch.silent >= SILENT_LOOKS_MAX {
            watch.silent = 0;
            if let Some(cause) = replace_hung(*pid, LOOK_EVERY.saturating_mul(SILENT_LOOKS_MAX)) {
                self.cause = Some(cause);
                watch.kill_at = Some(Moment::MAX);
            }
        }
    }

    /// A child ended; whether it was this one.
    pub(crate) fn reaped(&mut self, now: Moment, pid: i32, end: End) -> bool {
        if self.pid() != Some(Pid::from_raw(pid)) {
            return false;
        }
        if matches!(self.state, State::Stopping { .. }) {
            info!(pid, reason = %end, "managed Redis stopped");
            self.state = State::Stopped;
            return true;
        }
        if matches!(self.state, State::Running { since, .. } if now.saturating_sub(since) >= STABLE_AFTER) {
            self.deaths = 0;
        }
        let wait = self.pause();
        let log = self.directory.join("redis.log");
        let cause = self.cause.take();
        let output = self.output.take();
        // A killed one says nothing of it: its last lines are those of its start.
        let said = (end != End::Signal(nix::libc::SIGKILL))
            .then(|| words::last(output, &log, self.log_from))
            .flatten();
        error!(pid, reason = %end, cause, said, wait_ms = millis(wait), log = %log.display(), "managed Redis died");
        let cause = cause.map(|cause| format!(", {cause}")).unwrap_or_default();
        let said = said.map(|said| format!("; it said: {said}")).unwrap_or_default();
        self.last_exit = Some(format!("{end}{cause}{said}"));
        self.restarts += 1;
        self.state = State::Backoff { until: now + wait };
        true
    }

    /// Ends it, for good.
    pub(crate) fn stop(&mut self, now: Moment) {
        match &self.state {
            State::Starting { pid, .. } | State::Running { pid, .. } => {
                let pid = *pid;
                signal(pid, Signal::SIGTERM);
                self.state = State::Stopping {
                    pid,
                    kill_at: Some(now + STOP_GRACE),
                };
            }
            State::Backoff { .. } | State::Evicting { .. } => self.state = State::Stopped,
            State::Stopped | State::Stopping { .. } => {}
        }
    }

    fn pause(&mut self) -> Duration {
        let factor = 2_u32.checked_pow(self.deaths).unwrap_or(u32::MAX);
        self.deaths = self.deaths.saturating_add(1);
        RESTART_FIRST
            .checked_mul(factor)
            .unwrap_or(RESTART_MAX)
            .min(RESTART_MAX)
    }

    fn start(&mut self, now: Moment) {
        match self.spawn() {
            Ok(pid) => {
                self.state = State::Starting {
                    pid,
                    since: now,
                    look_at: now,
                    probe: None,
                    warned: false,
                    silent: 0,
                };
            }
            Err(error) => {
                let wait = self.pause();
                let program = self.program.display();
                error!(%program, error, "managed Redis not started");
                self.last_exit = Some(format!("not started: {error}"));
                self.state = State::Backoff { until: now + wait };
            }
        }
    }

    fn spawn(&mut self) -> Result<Pid, String> {
        // Let go first: our own lock would be in the way. The directory may have been removed meanwhile.
        self.home = None;
        self.home = claim_directory(&self.directory, self.identity.as_ref()).map_err(|error| error.to_string())?;
        self.log_from = std::fs::symlink_metadata(self.directory.join("redis.log")).map_or(0, |found| found.len());
        let mut command = self.command();
        self.output = words::output().ok();
        if let Some(output) = &self.output {
            let copy = || output.try_clone().map(Stdio::from).map_err(|error| error.to_string());
            command.stdout(copy()?).stderr(copy()?);
        }
        let child = detach(&mut command).spawn().map_err(|error| error.to_string())?;
        Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        environment::build(&mut command, &ENVIRONMENT);
        command
            .args("--port 0 --unixsocketperm 700 --daemonize no --save".split(' '))
            .arg("");
        // With `everysec` Redis holds writes back, for up to two seconds, while the disk is slow: killing it then
        // takes away what was acknowledged. With `no` all is in the kernel's hands before it is answered.
        command.args("--appendonly yes --appendfsync no --maxmemory-policy noeviction".split(' '));
        command.arg("--maxmemory").arg(self.bytes_max.to_string());
        command.arg("--unixsocket").arg(&self.socket);
        command.arg("--dir").arg(&self.directory);
        command.arg("--pidfile").arg(pid_file(&self.directory));
        command.arg("--logfile").arg(self.directory.join("redis.log"));
        command.current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Control-C in a terminal is for the supervisor, which stops Redis last.
        command.process_group(0);
        if let Some(identity) = &self.identity {
            command.uid(identity.uid.as_raw()).gid(identity.gid.as_raw());
        }
        command
    }
}

/// Kills a Redis that does not answer, after a look at what it does; why. None if it waits for a disk: its data come back
/// with the disk, and a new one would wait for the same.
fn replace_hung(pid: Pid, patience: Duration) -> Option<String> {
    forensics::log(Hung::Redis, pid.as_raw());
    let silent_s = patience.as_secs();
    if forensics::waits_for_disk(pid.as_raw()) {
        warn!(
            pid = pid.as_raw(),
            silent_s, "managed Redis does not answer: it waits for a disk"
        );
        return None;
    }
    error!(
        pid = pid.as_raw(),
        silent_s, "managed Redis does not answer: restarting it"
    );
    signal(pid, Signal::SIGKILL);
    Some(format!("killed because it had not answered for {silent_s} s"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn signal(pid: Pid, signal: Signal) {
    if let Err(errno) = kill(pid, signal) {
        warn!(pid = pid.as_raw(), %signal, %errno, "managed Redis not signalled");
    }
}
