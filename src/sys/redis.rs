//! The managed Redis: a private `redis-server` or `valkey-server` on a unix socket in the runtime
//! directory, supervised like a worker, started first and stopped last.

use super::spawn::unblock_signals;
use super::user::Identity;
use crate::fleet::{End, Moment};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tracing::{error, info, warn};

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
/// It lived so long: the next death counts as the first.
const STABLE_AFTER: Duration = Duration::from_secs(60);
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
    state: State,
    deaths: u32,
}

/// Handed to the next supervisor process, too.
#[derive(Debug, Serialize, Deserialize)]
enum State {
    /// Not running; started at this time.
    Backoff { until: Moment },
    /// The Redis of a supervisor that was killed still runs on our files.
    Evicting {
        #[serde(with = "number")]
        pid: Pid,
        look_at: Moment,
        kill_at: Moment,
    },
    /// Started; does not answer yet.
    Starting {
        #[serde(with = "number")]
        pid: Pid,
        since: Moment,
        look_at: Moment,
        #[serde(skip)]
        probe: Option<UnixStream>,
        warned: bool,
    },
    /// Answers.
    Running {
        #[serde(with = "number")]
        pid: Pid,
        since: Moment,
    },
    /// Told to stop.
    Stopping {
        #[serde(with = "number")]
        pid: Pid,
        kill_at: Option<Moment>,
    },
    /// Gone for good.
    Stopped,
}

/// A process id as a number.
mod number {
    use nix::unistd::Pid;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(pid: &Pid, to: S) -> Result<S::Ok, S::Error> {
        pid.as_raw().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pid, D::Error> {
        i32::deserialize(from).map(Pid::from_raw)
    }
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

/// Makes the directory of its files if it is missing, private to whom it becomes.
///
/// # Errors
/// When it cannot be created or given away.
pub(crate) fn prepare_directory(directory: &Path, identity: Option<&Identity>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if let Some(identity) = identity {
        chown(directory, Some(identity.uid), Some(identity.gid))?;
    }
    Ok(())
}

impl ManagedRedis {
    /// A Redis that listens on `socket` and keeps its files in `directory`; not started yet.
    #[must_use]
    pub(crate) fn new(program: PathBuf, socket: PathBuf, directory: PathBuf, identity: Option<Identity>) -> Self {
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
            state,
            deaths: 0,
        }
    }

    /// When [`ManagedRedis::turn`] is due.
    #[must_use]
    pub(crate) const fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Backoff { until } => Some(*until),
            State::Evicting { look_at, .. } | State::Starting { look_at, .. } => Some(*look_at),
            State::Stopping { kill_at, .. } => *kill_at,
            State::Running { .. } | State::Stopped => None,
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
                        "stopping the Redis that a former supervisor left behind"
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
            State::Starting {
                pid,
                since,
                look_at,
                probe,
                warned,
            } if now >= *look_at => {
                *look_at = now + PROBE_EVERY;
                if answers(&self.socket, probe) {
                    let start_ms = u64::try_from(now.saturating_sub(*since).as_millis()).unwrap_or(u64::MAX);
                    info!(pid = pid.as_raw(), start_ms, socket = %self.socket.display(), "managed Redis accepts");
                    self.state = State::Running { pid: *pid, since: now };
                    return Turn::Accepts;
                }
                if !*warned && now >= *since + START_WARNING {
                    *warned = true;
                    let log = self.directory.join("redis.log");
                    warn!(pid = pid.as_raw(), log = %log.display(), "managed Redis does not answer yet");
                }
            }
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
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        error!(pid, reason = %end, wait_ms, log = %log.display(), "managed Redis died");
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
        match unblock_signals(&mut self.command()).spawn() {
            Ok(child) => {
                let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
                self.state = State::Starting {
                    pid,
                    since: now,
                    look_at: now,
                    probe: None,
                    warned: false,
                };
            }
            Err(error) => {
                let wait = self.pause();
                let program = self.program.display();
                error!(%program, %error, "managed Redis cannot be started");
                self.state = State::Backoff { until: now + wait };
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args([
            "--port",
            "0",
            "--unixsocketperm",
            "700",
            "--daemonize",
            "no",
            "--save",
            "",
        ]);
        // With `everysec` Redis holds writes back, for up to two seconds, while the disk is slow: who kills it then
        // takes away what was acknowledged. With `no` all is in the kernel's hands before it is answered.
        command.args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "no",
            "--maxmemory-policy",
            "noeviction",
        ]);
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

fn pid_file(directory: &Path) -> PathBuf {
    directory.join("redis.pid")
}

/// A server of ours that outlived its supervisor: named by our pid file, and working in our
/// directory.
fn survivor(directory: &Path) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(pid_file(directory)).ok()?.trim().parse().ok()?;
    let work = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let ours = work == std::fs::canonicalize(directory).ok()? && PROGRAMS.contains(&program.trim());
    ours.then(|| Pid::from_raw(pid))
}

/// Whether it answers `PING`; the question stays open in `probe` until the next look.
fn answers(socket: &Path, probe: &mut Option<UnixStream>) -> bool {
    if probe.is_none() {
        *probe = ask(socket).ok();
    }
    let Some(stream) = probe else { return false };
    let mut answer = [0_u8; 64];
    match stream.read(&mut answer) {
        Ok(_) if answer.starts_with(b"+PONG") => {
            *probe = None;
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        // Loading its files, or gone: ask anew.
        Ok(_) | Err(_) => {
            *probe = None;
            false
        }
    }
}

fn ask(path: &Path) -> io::Result<UnixStream> {
    // Never blocks: a unix socket connects at once or not at all.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    let mut stream = UnixStream::from(socket);
    stream.write_all(b"PING\r\n")?;
    Ok(stream)
}

fn signal(pid: Pid, signal: Signal) {
    if let Err(errno) = kill(pid, signal) {
        warn!(pid = pid.as_raw(), %signal, %errno, "managed Redis not signalled");
    }
}
