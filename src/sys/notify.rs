//! sd_notify: what systemd is told and asked, and what it keeps for us. Without `NOTIFY_SOCKET` nothing happens.

use super::spawn::{Estate, unblock_signals};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use sd_notify::NotifyState;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;
use tracing::warn;

/// By which systemd tells a service how long it may take to stop.
const STOP_TIMEOUT: [&str; 6] = [
    "--timeout=5",
    "get-property",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1/unit/self",
    "org.freedesktop.systemd1.Service",
    "TimeoutStopUSec",
];

/// The supervisor's line to systemd.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// How often the watchdog is to be fed: half of `WATCHDOG_USEC`.
    pub(crate) watchdog_every: Option<Duration>,
    /// The next supervisor finds the listeners again.
    pub(crate) keeps_listeners: bool,
    /// From whoever asks for `TimeoutStopSec=`; nobody waits for the answer.
    asked: Option<ChildStdout>,
    /// What came of it so far.
    answer: String,
}

impl Notifier {
    /// Reads the environment.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self {
            watchdog_every: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            keeps_listeners: is_there,
            asked: is_there.then(ask_stop_timeout).and_then(Result::ok),
            answer: String::new(),
        }
    }

    /// The fleet serves; also the end of a reload, good or bad (there is no verb for a bad one).
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload began.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
            Err(error) => warn!(%error, "monotonic clock cannot be read"),
        }
    }

    /// The fleet is in another state now.
    pub(crate) fn state(&self, state: &str) {
        self.tell(&[NotifyState::Status(state)]);
    }

    /// The supervisor stops, and may take so long: systemd waits for it, whatever `TimeoutStopSec=` is.
    pub(crate) fn stopping(&self, budget: Duration) {
        self.tell(&[NotifyState::Stopping, extend(budget), NotifyState::Status("draining")]);
    }

    /// What goes on (a start, a reload) gets on, and may take so much longer.
    pub(crate) fn prolong(&self, by: Duration) {
        self.tell(&[extend(by)]);
    }

    /// The loop runs.
    pub(crate) fn feed_watchdog(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// systemd is to keep these for the next supervisor; what it has already, it has once.
    pub(crate) fn store(&self, name: &str, fds: &[BorrowedFd<'_>]) {
        if fds.is_empty() {
            return;
        }
        let states = [NotifyState::FdStore, NotifyState::FdName(name)];
        if let Err(error) = sd_notify::notify_with_fds(&states, fds) {
            warn!(name, %error, "listeners not stored by systemd");
        }
    }

    /// systemd need not keep what it has under this name.
    pub(crate) fn discard(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// `TimeoutStopSec=`, as far as known yet.
    pub(crate) fn stop_timeout(&mut self) -> Option<Duration> {
        if let Some(pipe) = &mut self.asked
            && !matches!(pipe.read_to_string(&mut self.answer), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        {
            self.asked = None;
        }
        parse_usec(&self.answer)
    }

    #[expect(clippy::unused_self, reason = "whoever speaks to systemd holds the line")]
    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            warn!(%error, "systemd not notified");
        }
    }
}

/// What systemd has for this process, with names: sockets of a socket unit, and what a former process has stored. To
/// be taken once.
///
/// # Errors
/// When the environment promises descriptors that are not there.
pub(crate) fn found() -> io::Result<Vec<(String, OwnedFd)>> {
    let listed: Vec<_> = sd_notify::listen_fds_with_names()?.collect();
    let mut estate = Estate::new(listed.iter().map(|(number, _)| *number));
    listed
        .into_iter()
        .map(|(number, name)| Ok((name, estate.take(number)?)))
        .collect()
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// By a program of systemd's own: the value counts with all drop-ins and defaults, which no file tells.
fn ask_stop_timeout() -> io::Result<ChildStdout> {
    let mut command = Command::new("busctl");
    // It would tell systemd how it fared, as if it were the service.
    command.env_remove("NOTIFY_SOCKET");
    command
        .args(STOP_TIMEOUT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let pipe = unblock_signals(&mut command).spawn()?.stdout.take();
    let pipe = pipe.ok_or_else(|| io::Error::other("no pipe to busctl"))?;
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(pipe)
}

/// `t 45000000`; the highest number is "never".
fn parse_usec(answer: &str) -> Option<Duration> {
    let micros = answer.trim().strip_prefix("t ")?.parse().ok()?;
    (micros != u64::MAX).then(|| Duration::from_micros(micros))
}

#[test]
fn an_answer_of_systemd_is_a_time() {
    assert_eq!(parse_usec("t 45000000\n"), Some(Duration::from_secs(45)));
    assert_eq!(parse_usec("t 18446744073709551615\n"), None);
    assert_eq!(parse_usec(""), None);
}
