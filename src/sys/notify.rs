//! sd_notify: messages to systemd, queries, and the descriptors that it keeps for us. Without `NOTIFY_SOCKET` nothing happens.
//!
//! Never waits: what the other end has no room for is kept, in its order, and sent when there is room.

use super::environment;
use super::send::send;
use super::spawn::{InheritedDescriptors, detach};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sd_notify::NotifyState;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;
use tracing::warn;

/// Messages that wait for room, at most: one for each of 1 024 slots, which are stored all at once at a start, and what
/// happens meanwhile. A socket holds few (`net.unix.max_dgram_qlen`, 10 on older kernels).
const WAITING_MAX: usize = 2_048;

/// By which systemd tells a service how long it may take to stop.
const STOP_TIMEOUT: [&str; 6] = [
    "--timeout=5",
    "get-property",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1/unit/self",
    "org.freedesktop.systemd1.Service",
    "TimeoutStopUSec",
];

/// What `busctl` needs to find itself and the bus.
const ENVIRONMENT: [&str; 3] = ["DBUS_SYSTEM_BUS_ADDRESS", "PATH", "XDG_RUNTIME_DIR"];

/// The supervisor's line to systemd.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// How often the watchdog is to be fed: half of `WATCHDOG_USEC`.
    pub(crate) watchdog_every: Option<Duration>,
    /// The next supervisor finds the listeners again.
    pub(crate) keeps_listeners: bool,
    /// From the query for `TimeoutStopSec=`; nothing waits for the answer.
    asked: Option<ChildStdout>,
    /// What came of it so far.
    answer: String,
    /// Not sent yet, oldest first.
    waiting: VecDeque<Message>,
    /// The way to systemd, as long as something waits.
    socket: Option<OwnedFd>,
}

/// A datagram for systemd.
#[derive(Debug)]
struct Message {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Notifier {
    /// Reads the environment.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let is_there = socket_name().is_some();
        Self {
            // A limit of nothing is none.
            watchdog_every: sd_notify::watchdog_enabled()
                .map(|limit| limit / 2)
                .filter(|every| !every.is_zero()),
            keeps_listeners: is_there,
            asked: is_there.then(ask_stop_timeout).and_then(Result::ok),
            answer: String::new(),
            waiting: VecDeque::new(),
            socket: None,
        }
    }

    /// To be polled for writing, if something waits; then [`Notifier::flush`].
    pub(crate) fn blocked(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// The fleet serves; also the end of a reload, good or bad (there is no verb for a bad one).
    pub(crate) fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload began.
    pub(crate) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
            Err(error) => warn!(%error, "monotonic clock not read"),
        }
    }

    /// The fleet is in another state now.
    pub(crate) fn state(&mut self, state: &str) {
        self.tell(&[NotifyState::Status(state)]);
    }

    /// The supervisor stops, and may take this long: systemd waits for it, whatever `TimeoutStopSec=` is.
    pub(crate) fn stopping(&mut self, budget: Duration) {
        self.tell(&[NotifyState::Stopping, extend(budget), NotifyState::Status("draining")]);
    }

    /// The running start or reload makes progress, and may take this much longer.
    pub(crate) fn prolong(&mut self, by: Duration) {
        self.tell(&[extend(by)]);
    }

    /// The loop runs.
    pub(crate) fn feed_watchdog(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// systemd is to keep these for the next supervisor; what it has already, it has once.
    pub(crate) fn store(&mut self, name: &str, fds: &[BorrowedFd<'_>]) {
        if fds.is_empty() {
            return;
        }
        let descriptors = fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        match descriptors {
            Ok(descriptors) => self.send(&[NotifyState::FdStore, NotifyState::FdName(name)], descriptors),
            Err(error) => warn!(name, %error, "listeners not stored by systemd"),
        }
    }

    /// systemd need not keep what it has under this name.
    pub(crate) fn discard(&mut self, name: &str) {
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

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        self.send(states, Vec::new());
    }

    fn send(&mut self, states: &[NotifyState<'_>], descriptors: Vec<OwnedFd>) {
        if socket_name().is_none() {
            return;
        }
        let text = states.iter().map(|state| format!("{state}\n")).collect();
        let message = Message { text, descriptors };
        if self.waiting.len() >= WAITING_MAX {
            return warn!(told = message.text, "systemd not notified: its socket is full");
        }
        // Food for the watchdog is the same each time: one helping waits.
        if self.waiting.back().is_none_or(|last| last.text != message.text) {
            self.waiting.push_back(message);
        }
        self.flush();
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.waiting.front() {
            let sent = match &self.socket {
                Some(socket) => send(socket, message.text.as_bytes(), &message.descriptors),
                None => open().and_then(|socket| {
                    let socket = self.socket.insert(socket);
                    send(socket, message.text.as_bytes(), &message.descriptors)
                }),
            };
            match sent {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(errno) => {
                    warn!(%errno, told = message.text, "systemd not notified");
                    // It may listen at another socket of that name by now.
                    self.socket = None;
                }
            }
            if sent != Err(Errno::EINTR) {
                self.waiting.pop_front();
            }
        }
        self.socket = None;
    }
}

/// `NOTIFY_SOCKET`. A container or a script that "unsets" it sets it to nothing.
fn socket_name() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// The socket of `NOTIFY_SOCKET`: a path, or `@` and a name without a file (sd_notify(3)).
fn open() -> Result<OwnedFd, Errno> {
    let name = socket_name().unwrap_or_default();
    let address = address(&name)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn address(name: &OsStr) -> Result<UnixAddr, Errno> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(name),
    }
}

/// What systemd has for this process, with names: sockets of a socket unit, and what a former process has stored. To
/// be taken once.
///
/// # Errors
/// When the environment promises descriptors that are not there.
pub(crate) fn found() -> io::Result<Vec<(String, OwnedFd)>> {
    if !promises(|name| std::env::var(name).ok()) {
        return Ok(Vec::new());
    }
    let listed: Vec<_> = sd_notify::listen_fds_with_names()?.collect();
    let mut inherited = InheritedDescriptors::new(listed.iter().map(|(number, _)| *number));
    listed
        .into_iter()
        .map(|(number, name)| Ok((name, inherited.take(number)?)))
        .collect()
}

/// Whether the environment speaks of descriptors. systemd sets both names to numbers; a container or a script that "unsets"
/// them sets them to nothing.
fn promises(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_number = |name| variable(name).is_some_and(|value| value.parse::<u32>().is_ok());
    is_number("LISTEN_PID") && is_number("LISTEN_FDS")
}

fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// By a program of systemd's own: the value counts with all drop-ins and defaults, which no file tells.
fn ask_stop_timeout() -> io::Result<ChildStdout> {
    let mut command = Command::new("busctl");
    // With `NOTIFY_SOCKET` it would tell systemd how it fared, as if it were the service.
    environment::build(&mut command, &ENVIRONMENT)
        .args(STOP_TIMEOUT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let pipe = detach(&mut command).spawn()?.stdout.take();
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

#[test]
fn what_is_no_number_promises_no_descriptors() {
    for (pid, fds, expect) in [
        (Some("1"), Some("1"), true),
        (Some("1"), Some("0"), true),
        (None, None, false),
        (Some("1"), None, false),
        (None, Some("1"), false),
        (Some(""), Some(""), false),
        (Some(""), Some("1"), false),
        (Some("1"), Some(""), false),
        (Some("1"), Some("two"), false),
        (Some("1"), Some("-1"), false),
        (Some("1"), Some(" 1"), false),
        (Some("1"), Some("99999999999"), false),
        (Some("x"), Some("1"), false),
    ] {
        let variable = |name: &str| if name == "LISTEN_PID" { pid } else { fds }.map(str::to_owned);
        assert_eq!(promises(variable), expect, "{pid:?} {fds:?}");
    }
}
