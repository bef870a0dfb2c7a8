//! Signals as events: blocked, and read from a signalfd together with their sender.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals that the supervisor answers; `SIGPIPE` and `SIGXFSZ` are ignored (`spawn::reset_dispositions`), `SIGWINCH`
/// by default.
const HANDLED: [Signal; 9] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caught {
    /// Which.
    pub(crate) signal: Signal,
    /// Who sent it; 0 for the kernel (a terminal).
    pub(crate) sender_pid: u32,
    /// As which user.
    pub(crate) sender_uid: u32,
}

/// The blocked signals of this process. Blocking is inherited: `spawn` undoes it in each child.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals; from now on they arrive here only. Call it before any child exists.
    ///
    /// # Errors
    /// When the kernel refuses the mask or the descriptor.
    pub(crate) fn block() -> nix::Result<Self> {
        let mask: SigSet = HANDLED.into_iter().collect();
        // Instead of what was inherited: a signal that is blocked for ever would not end what runs.
        mask.thread_set_mask()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd })
    }

    /// The next signal, if one is pending.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub(crate) fn next(&self) -> nix::Result<Option<Caught>> {
        loop {
            let info = match self.fd.read_signal() {
                Ok(Some(info)) => info,
                Ok(None) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Ok(signal) = Signal::try_from(number) {
                return Ok(Some(Caught {
                    signal,
                    sender_pid: info.ssi_pid,
                    sender_uid: info.ssi_uid,
                }));
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
