//! `anyworker check` of a binary that is to be used next, run aside: nothing waits for it, and what
//! it says is read when it has ended.

use super::memory;
use super::spawn::{Binary, detach};
use crate::fleet::{End, Moment};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, read};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;
use tracing::warn;

/// A check takes milliseconds; one that takes this long has hung.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);
/// So much of what it complained is passed on (bytes). The rest is read, so that it does not wait for us, and thrown away.
const COMPLAINT_BYTES_MAX: usize = 16 * 1024;
/// Room for the configuration that it prints (bytes): a file of 1 MiB at most, with the source of each value. Only what is
/// written takes memory.
const ANSWER_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Lines that every build of anyworker prints when a configuration is good, each with a value behind it: another program
/// that ends with 0 whatever it is asked (`true`) does not.
const ANSWER_LINES: [&str; 3] = ["[runtime]", "[workers]", "count = "];
/// Reads before others have their turn; a pipe holds as much at first.
const READS_PER_TURN: usize = 16;
/// What systemd tells this process alone. All else of the environment goes along: the check is to read the configuration
/// that a reload would.
const OURS: [&str; 6] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A check that runs.
#[derive(Debug)]
pub(crate) struct Check {
    pid: Pid,
    /// When it is killed; `None` when it was.
    deadline: Option<Moment>,
    /// Its standard error, until that ends.
    complaint: Option<OwnedFd>,
    /// Its standard output.
    answer: File,
    /// What it has said on its standard error.
    heard: Vec<u8>,
    reaped: bool,
}

impl Check {
    /// Starts it, on the configuration that a reload would read, to which these flags lead, and, if one is given, on the state
    /// that the binary is to continue from.
    ///
    /// # Errors
    /// When the kernel does not execute the binary.
    pub(crate) fn start(now: Moment, binary: &Binary, flags: &[OsString], state: Option<OwnedFd>) -> io::Result<Self> {
        // By descriptor: another file may be at its path by now.
        let mut command = Command::new(binary.path());
        command.arg("check").args(flags);
        for name in OURS {
            command.env_remove(name);
        }
        match state {
            Some(state) => command.arg("--state").stdin(state),
            None => command.stdin(Stdio::null()),
        };
        let answer = memory::output(c"anyworker-check", ANSWER_BYTES_MAX)?;
        command.stdout(answer.try_clone()?).stderr(Stdio::piped());
        let mut child = detach(&mut command).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        let complaint = child.stderr.take().map(OwnedFd::from);
        let complaint = complaint.ok_or_else(|| io::Error::other("no pipe to the check"))?;
        // A grandchild may keep the pipe open; it is not waited for.
        nix::fcntl::fcntl(&complaint, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self {
            pid,
            deadline: Some(now + CHECK_PATIENCE),
            complaint: Some(complaint),
            answer,
            heard: Vec::new(),
            reaped: false,
        })
    }

    /// To be polled; then [`Check::hear`].
    pub(crate) fn complaint(&self) -> Option<BorrowedFd<'_>> {
        self.complaint.as_ref().map(AsFd::as_fd)
    }

    /// Reads what it has said by now.
    pub(crate) fn hear(&mut self) {
        let mut bytes = [0; 4_096];
        for _ in 0..READS_PER_TURN {
            let Some(complaint) = &self.complaint else { return };
            match read(complaint, &mut bytes) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Ok(0) | Err(_) => self.complaint = None,
                Ok(count) => {
                    let room = COMPLAINT_BYTES_MAX.saturating_sub(self.heard.len());
                    self.heard.extend(bytes.iter().take(count.min(room)));
                }
            }
        }
    }

    /// When [`Check::turn`] is due.
    pub(crate) const fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    /// Kills it when it takes too long; it is reaped next.
    pub(crate) fn turn(&mut self, now: Moment) {
        if self.deadline.is_some_and(|at| now >= at) {
            warn!(
                pid = self.pid.as_raw(),
                "check of the new binary killed at its deadline"
            );
            self.deadline = None;
            // Not reaped yet, so the number is its own.
            kill(self.pid, Signal::SIGKILL).ok();
        }
    }

    /// Whether this child is the check.
    pub(crate) fn is(&self, pid: i32) -> bool {
        self.pid.as_raw() == pid
    }

    /// It ended: whether the binary is fit, or why not, one line each.
    pub(crate) fn verdict(mut self, end: End) -> Result<(), Vec<String>> {
        self.reaped = true;
        let is_answered = self.answer();
        if end == End::Code(0) && is_answered {
            return Ok(());
        }
        let what = if end == End::Code(0) {
            "it is not anyworker: `check` ended with 0 and did not print the configuration".to_owned()
        } else if self.deadline.is_none() {
            format!("its own check did not end within {} s", CHECK_PATIENCE.as_secs())
        } else {
            format!("its own check failed: {end}")
        };
        let mut lines = vec![format!("binary: {what}; install it again, or correct what it says")];
        self.hear();
        lines.extend(String::from_utf8_lossy(&self.heard).lines().map(ToOwned::to_owned));
        Err(lines)
    }
}

impl Check {
    /// Whether it has printed the configuration.
    fn answer(&mut self) -> bool {
        let mut bytes = Vec::new();
        let read = self.answer.rewind().and_then(|()| self.answer.read_to_end(&mut bytes));
        read.is_ok() && is_configuration(&bytes)
    }
}

/// Whether this is what `anyworker check` prints, with zeros behind it.
fn is_configuration(bytes: &[u8]) -> bool {
    let written = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(written);
    ANSWER_LINES
        .iter()
        .all(|wanted| text.lines().any(|line| line.starts_with(wanted)))
}

#[test]
fn only_anyworker_prints_its_configuration() {
    let good = "[admin]\naddress = \"\"  # default\n\n[runtime]\ndirectory = \"/run/x\"  # default\n\n[workers]\ncount = 2  # file\n";
    assert!(is_configuration(good.as_bytes()));
    assert!(is_configuration(&[good.as_bytes(), &[0; 64]].concat()));
    for other in [
        "",
        "\0\0\0",
        "anyworker 0.1.0\n",
        "check\n",
        "[runtime]\n",
        &good.replace("[workers]", "workers"),
    ] {
        assert!(!is_configuration(other.as_bytes()), "{other:?}");
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if !self.reaped {
            kill(self.pid, Signal::SIGKILL).ok();
        }
    }
}
