//! The processes of the workers, and the wires to them.

use crate::fleet::{SlotId, WorkerId};
use boot::{Incarnation, MESSAGE_BYTES_MAX, ToSupervisor, ToWorker};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use tracing::{error, warn};

/// Messages that wait for one worker; a worker that lets so many pile up counts as hung up.
const OUTBOX_MAX: usize = 64;
/// Messages read from one worker before the others have their turn.
const MESSAGES_PER_TURN: usize = 32;

/// All workers that have a process.
#[derive(Debug, Default)]
pub(crate) struct Processes(BTreeMap<WorkerId, Process>);

/// One worker's process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) slot: SlotId,
    pub(crate) incarnation: Incarnation,
    control: OwnedFd,
    outbox: VecDeque<Vec<u8>>,
    /// Its end is closed, or it does not read: nothing more goes either way.
    hung_up: bool,
}

/// A signal that could not be delivered because there is no such process any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Process {
    pub(crate) const fn new(pid: i32, slot: SlotId, incarnation: Incarnation, control: OwnedFd) -> Self {
        Self {
            pid,
            slot,
            incarnation,
            control,
            outbox: VecDeque::new(),
            hung_up: false,
        }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        while let Some(bytes) = self.outbox.front() {
            match send(
                self.control.as_raw_fd(),
                bytes,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ) {
                Ok(_) => {
                    self.outbox.pop_front();
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// One message; `Ok(None)` when there is none now.
    fn receive(&self) -> Result<Option<ToSupervisor>, Errno> {
        let mut bytes = vec![0_u8; MESSAGE_BYTES_MAX];
        loop {
            match recv(self.control.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(Errno::EPIPE),
                Ok(count) => match boot::decode(bytes.get(..count).unwrap_or_default()) {
                    Ok(message) => return Ok(Some(message)),
                    Err(error) => error!(pid = self.pid, slot = self.slot.number(), %error, "control message ignored"),
                },
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Processes {
    pub(crate) fn insert(&mut self, worker: WorkerId, process: Process) {
        self.0.insert(worker, process);
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) -> Option<Process> {
        self.0.remove(&worker)
    }

    pub(crate) fn ids(&self) -> Vec<WorkerId> {
        self.0.keys().copied().collect()
    }

    /// Which worker has this process id.
    pub(crate) fn by_pid(&self, pid: i32) -> Option<WorkerId> {
        self.0
            .iter()
            .find(|(_, process)| process.pid == pid)
            .map(|(worker, _)| *worker)
    }

    pub(crate) fn get(&self, worker: WorkerId) -> Option<&Process> {
        self.0.get(&worker)
    }

    /// The wires to poll, and whether to write on them.
    pub(crate) fn wires(&self) -> impl Iterator<Item = (WorkerId, BorrowedFd<'_>, bool)> {
        self.0
            .iter()
            .filter(|(_, process)| !process.hung_up)
            .map(|(worker, process)| (*worker, process.control.as_fd(), !process.outbox.is_empty()))
    }

    /// Sends or queues; whether the worker turned out to have hung up just now.
    pub(crate) fn send(&mut self, worker: WorkerId, message: &ToWorker) -> bool {
        let Some(process) = self.0.get_mut(&worker).filter(|process| !process.hung_up) else {
            return false;
        };
        let (pid, slot) = (process.pid, process.slot.number());
        match boot::encode(message) {
            Ok(_) if process.outbox.len() >= OUTBOX_MAX => {
                warn!(pid, slot, "worker does not read its control socket");
                process.hung_up = true;
            }
            Ok(bytes) => {
                process.outbox.push_back(bytes);
                process.hung_up = process.flush().is_err();
            }
            Err(error) => error!(pid, slot, %error, "control message not sent"),
        }
        process.hung_up
    }

    /// Sends what has waited; whether the worker turned out to have hung up just now.
    pub(crate) fn flush(&mut self, worker: WorkerId) -> bool {
        let Some(process) = self.0.get_mut(&worker).filter(|process| !process.hung_up) else {
            return false;
        };
        process.hung_up = process.flush().is_err();
        process.hung_up
    }

    /// What a worker has said, and whether it has hung up just now.
    pub(crate) fn receive(&mut self, worker: WorkerId) -> (Vec<ToSupervisor>, bool) {
        let mut messages = Vec::new();
        let Some(process) = self.0.get_mut(&worker).filter(|process| !process.hung_up) else {
            return (messages, false);
        };
        while messages.len() < MESSAGES_PER_TURN {
            match process.receive() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => {
                    process.hung_up = true;
                    break;
                }
            }
        }
        (messages, process.hung_up)
    }

    /// Signals a worker.
    pub(crate) fn signal(&self, worker: WorkerId, signal: Signal) -> Result<(), Gone> {
        let process = self.0.get(&worker).ok_or(Gone)?;
        // Not reaped yet, so the number cannot belong to anybody else.
        match kill(Pid::from_raw(process.pid), signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(Gone),
            Err(errno) => {
                error!(pid = process.pid, %signal, %errno, "worker not signalled");
                Ok(())
            }
        }
    }
}
