//! Reaping: own children and, as PID 1, strangers.

use crate::fleet::End;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::io;
use tracing::error;

/// A reaped child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// Its former process id.
    pub(crate) pid: i32,
    /// How it ended.
    pub(crate) end: End,
}

/// Takes orphans of our descendants over, as PID 1 would, so that none is lost in a container.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Everything that ended: a signal tells of one, and may stand for many. Never blocks. Whether it is one of ours is for
/// the caller to know.
#[must_use]
pub(crate) fn reap() -> Vec<Reaped> {
    let mut reaped = Vec::new();
    loop {
        // Peek first: a status is taken by its process id, never blindly.
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let pid = match waitid(Id::All, peek) {
            Ok(status) => status.pid(),
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => None,
            Err(Errno::EINVAL) => {
                // Ended by a real-time signal, which `WaitStatus` cannot say. The status is taken, so
                // that the children behind it are reached; whose it was shows at the next kill.
                error!(status = ?waitpid(None, Some(WaitPidFlag::WNOHANG)), "child ended by an unknown signal");
                continue;
            }
            Err(errno) => {
                error!(%errno, "children not awaited");
                None
            }
        };
        let Some(pid) = pid else { break };
        match take(pid) {
            Some(end) => reaped.push(Reaped { pid: pid.as_raw(), end }),
            None => break,
        }
    }
    reaped
}

fn take(pid: Pid) -> Option<End> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(End::Code(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(End::Signal(signal as i32)),
        Ok(
            WaitStatus::Continued(_)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::StillAlive
            | WaitStatus::Stopped(..),
        ) => None,
        Err(errno) => {
            error!(pid = pid.as_raw(), %errno, "child not reaped");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn is_dead(pid: &i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    }

    #[test]
    fn however_many_ended_all_are_reaped() {
        let start = || {
            Command::new("true")
                .spawn()
                .map(|child| i32::try_from(child.id()).expect("a pid"))
        };
        let pids: Vec<i32> = (0..300).map(|_| start().expect("a child")).collect();
        while !pids.iter().all(is_dead) {
            std::thread::yield_now();
        }
        let reaped: Vec<i32> = reap().iter().map(|reaped| reaped.pid).collect();
        assert!(pids.iter().all(|pid| reaped.contains(pid)), "{} of 300", reaped.len());
    }
}
