//! The commands' side of the control socket.

use super::protocol::{ANSWER_BYTES_MAX, Answer, Request, Status};
use super::view;
use crate::sys::runtime::{RESTORE_EVERY, holder};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, User};
use ops::{StatusError, printer};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Everything but a waiting `reload` and `stop` is answered by then.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// How long an answer may take before the command looks whether the supervisor is stopped at all.
const STOPPED_LOOK: Duration = Duration::from_secs(1);

/// Why a supervisor that has accepted a request does not answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Silence {
    /// Its process is stopped: SIGSTOP, SIGTSTP, a debugger.
    #[error(
        "the supervisor (pid {pid}) is stopped and answers only when it runs again; `kill -CONT {pid}` lets it run"
    )]
    Stopped {
        /// The process.
        pid: i32,
    },
    /// It runs, and [`ANSWER_PATIENCE`] is over.
    #[error("the supervisor (pid {pid}) runs and did not answer within {} s; its log says what it does", ANSWER_PATIENCE.as_secs())]
    Late {
        /// The process.
        pid: i32,
    },
    /// It closed the connection: it ended, or fell over the request.
    #[error("the supervisor hung up; its log says why")]
    HungUp,
}

impl From<Silence> for io::Error {
    fn from(silence: Silence) -> Self {
        Self::other(silence)
    }
}

/// Exit codes of the commands: verdicts, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// Done, or healthy.
    Good = 0,
    /// Refused, failed, or degraded.
    Bad = 1,
    /// No supervisor answers (`EX_UNAVAILABLE`).
    Unavailable = 69,
}

impl Verdict {
    pub(super) fn of(status: &Status) -> Self {
        if status.is_healthy() { Self::Good } else { Self::Bad }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(verdict as u8)
    }
}

/// Asks the supervisor behind `socket` and prints its answer.
pub(crate) fn run(socket: &Path, request: Request, json: bool) -> io::Result<Verdict> {
    let answer = match ask(socket, request) {
        Ok(answer) => answer,
        Err(error) => {
            writeln!(io::stderr(), "{}", unreachable(socket, &error)).ok();
            return Ok(Verdict::Unavailable);
        }
    };
    if let Some(status) = &answer.status {
        let text = if json {
            serde_json::to_string(status).map_err(io::Error::from)? + "\n"
        } else {
            view::text(status)
        };
        print(&text)?;
        return Ok(Verdict::of(status));
    }
    for line in &answer.lines {
        let line = printer::clean(line);
        if answer.ok {
            print(&format!("{line}\n"))?;
        } else {
            writeln!(io::stderr(), "{line}").ok();
        }
    }
    Ok(if answer.ok { Verdict::Good } else { Verdict::Bad })
}

/// Prints what was asked for. A reader that has seen enough does not change the verdict.
fn print(text: &str) -> io::Result<()> {
    let mut out = printer::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What `status --json` prints.
///
/// # Errors
/// Why no supervisor answers.
pub(crate) fn status(socket: &Path) -> Result<String, StatusError> {
    let answer = ask(socket, Request::Status).map_err(|error| StatusError {
        reason: unreachable(socket, &error),
        is_forbidden: error.kind() == ErrorKind::PermissionDenied,
    })?;
    serde_json::to_string(&answer.status).map_err(|error| StatusError::new(error.to_string()))
}

/// One request, one answer.
pub(super) fn ask(socket: &Path, request: Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    let patient = matches!(
        request,
        Request::Rebalance | Request::Reload { wait: true } | Request::Upgrade { wait: true } | Request::Stop { .. }
    );
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    if is_quiet(&stream, STOPPED_LOOK)?
        && let silence @ Silence::Stopped { .. } = silence(&stream)?
    {
        if !patient {
            return Err(silence.into());
        }
        // It waits without an end, and would say nothing.
        writeln!(io::stderr(), "{silence}").ok();
    }
    if !patient && is_quiet(&stream, ANSWER_PATIENCE)? {
        return Err(silence(&stream)?.into());
    }
    stream.set_read_timeout((!patient).then_some(ANSWER_PATIENCE))?;
    let mut reader = BufReader::new(stream.take(ANSWER_BYTES_MAX));
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Err(Silence::HungUp.into());
    }
    let answer: Answer = serde_json::from_str(&text)?;
    if answer.ok && matches!(request, Request::Stop { .. }) {
        // The supervisor holds the connection until it is gone.
        io::copy(&mut reader, &mut io::sink())?;
    }
    Ok(answer)
}

/// Whether nothing comes for this long.
fn is_quiet(stream: &UnixStream, wait: Duration) -> io::Result<bool> {
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], wait)? == 0)
}

/// Why there is no answer yet: the socket of a stopped process accepts all the same.
fn silence(stream: &UnixStream) -> io::Result<Silence> {
    let pid = getsockopt(stream, PeerCredentials)?.pid();
    let stopped = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_stopped(&stat));
    Ok(if stopped {
        Silence::Stopped { pid }
    } else {
        Silence::Late { pid }
    })
}

/// proc_pid_stat(5): the state stands behind the name, which may hold anything; `T` is stopped, `t` by a tracer.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// For the operator.
pub(super) fn unreachable(socket: &Path, error: &io::Error) -> String {
    let place = socket.display();
    if error.kind() == ErrorKind::PermissionDenied {
        return format!(
            "{place} may not be opened by this user, so whether a supervisor runs is not known: {error}; {}",
            who_may(socket)
        );
    }
    if let Some(silence) = error.get_ref().and_then(|inner| inner.downcast_ref::<Silence>()) {
        return format!("no supervisor answers at {place}: {silence}");
    }
    let holder = socket
        .parent()
        .and_then(holder)
        .filter(|_| error.kind() == ErrorKind::NotFound);
    if let Some(pid) = holder {
        return format!(
            "the supervisor (pid {pid}) runs, but its control socket {place} was removed; it makes it anew within {} s: \
             repeat the command then",
            RESTORE_EVERY.as_secs()
        );
    }
    let remedy = if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
        "start it with `anyworker run`, or name its configuration with --config; if it runs as another user, ask as \
         that user (sudo -u USER) or as root"
    } else {
        "see the log of the supervisor"
    };
    format!("no supervisor answers at {place}: {error}; {remedy}")
}

/// The user that the control socket belongs to: the owner of its directory, which others may see from outside.
fn who_may(socket: &Path) -> String {
    let owner = socket.parent().and_then(|directory| directory.metadata().ok());
    let owner = owner
        .map(|found| Uid::from_raw(found.uid()))
        .filter(|uid| !uid.is_root());
    let name = owner.map(|uid| match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("#{uid}"),
    });
    match name {
        Some(name) => format!("run this command as {name} (sudo -u {name}), or as root (sudo)"),
        None => "run this command as root (sudo)".to_owned(),
    }
}

#[test]
fn silence_is_told_once_with_one_remedy() {
    for silence in [Silence::Stopped { pid: 7 }, Silence::Late { pid: 7 }, Silence::HungUp] {
        let text = unreachable(Path::new("/run/x/control.sock"), &silence.into());
        assert_eq!(text, format!("no supervisor answers at /run/x/control.sock: {silence}"));
        assert!(!text.contains("see the log"), "{text}");
    }
}

#[test]
fn a_stopped_process_is_told_from_others() {
    for (stat, stopped) in [
        ("12 (anyworker) T 1 12", true),
        ("12 (anyworker) t 1 12", true),
        ("12 (anyworker) S 1 12", false),
        ("12 (a) T 1) S 1 12", false),
        ("12 (a) S) T 1 12", true),
        ("", false),
    ] {
        assert_eq!(is_stopped(stat), stopped, "{stat}");
    }
}
