//! Reaping: own children and, as PID 1, strangers.

use crate::fleet::End;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::io;
use tracing::error;

/// No more children are reaped in one go; the rest follows on the next turn of the loop.
const REAPED_MAX: usize = 256;

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

/// Everything that ended. Never blocks. Whether it is one of ours is for the caller to know.
#[must_use]
pub(crate) fn reap() -> Vec<Reaped> {
    let mut reaped = Vec::new();
    while reaped.len() < REAPED_MAX {
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
                error!(%errno, "children cannot be awaited");
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
            error!(pid = pid.as_raw(), %errno, "child cannot be reaped");
            None
        }
    }
}
