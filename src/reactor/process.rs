//! The processes of the workers, and the wires to them.

use crate::fleet::{SlotId, WorkerId};
use crate::sys::send::send;
use crate::sys::usage::{Meter, Usage};
use boot::{Incarnation, MESSAGE_BYTES_MAX, ToSupervisor, ToWorker};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use tracing::{error, warn};

/// Messages that may wait for one worker; a worker that lets more pile up counts as hung up.
const OUTBOX_MAX: usize = 64;
/// Messages read from one worker before the others have their turn.
const MESSAGES_PER_TURN: usize = 32;

/// All workers that have a process.
#[derive(Debug)]
pub(crate) struct Processes {
    workers: BTreeMap<WorkerId, Process>,
    /// For what is received: to clear one for each heartbeat would be most of what the heartbeat costs.
    buffer: Box<[u8]>,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            workers: BTreeMap::new(),
            buffer: vec![0; MESSAGE_BYTES_MAX].into(),
        }
    }
}

/// One worker's process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) slot: SlotId,
    pub(crate) incarnation: Incarnation,
    control: OwnedFd,
    meter: Meter,
    outbox: VecDeque<QueuedMessage>,
    /// It cannot be written to, or does not read.
    unreachable: bool,
    /// It closed its end, and everything it said was read.
    closed: bool,
}

/// A message that waits, and the descriptors that go with it.
#[derive(Debug)]
struct QueuedMessage {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// A process as it is handed to the next supervisor process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProcessHandoff {
    worker: WorkerId,
    pid: i32,
    slot: SlotId,
    incarnation: Incarnation,
    pub(super) control: RawFd,
    outbox: VecDeque<Vec<u8>>,
    #[serde(rename = "deaf")]
    unreachable: bool,
    closed: bool,
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
            meter: Meter::new(),
            outbox: VecDeque::new(),
            unreachable: false,
            closed: false,
        }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        while let Some(QueuedMessage { bytes, descriptors }) = self.outbox.front() {
            match send(&self.control, bytes, descriptors) {
                Ok(()) => {
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
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<ToSupervisor>, Errno> {
        let mut reset = false;
        loop {
            match recv(self.control.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(Errno::EPIPE),
                Ok(count) => match boot::decode(buffer.get(..count).unwrap_or_default()) {
                    Ok(message) => return Ok(Some(message)),
                    Err(error) => error!(pid = self.pid, slot = self.slot.number(), %error, "control message ignored"),
                },
                Err(Errno::EAGAIN) => return Ok(None),
                // It ended without reading our last message. Its own last words come after this
                // error, which is reported once.
                Err(Errno::ECONNRESET) if !reset => reset = true,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Processes {
    /// For the next supervisor process.
    pub(super) fn export(&self) -> Vec<ProcessHandoff> {
        let handoff = |(worker, process): (&WorkerId, &Process)| ProcessHandoff {
            worker: *worker,
            pid: process.pid,
            slot: process.slot,
            incarnation: process.incarnation.clone(),
            control: process.control.as_raw_fd(),
            // Lent listeners are lent again.
            outbox: process
                .outbox
                .iter()
                .filter(|message| message.descriptors.is_empty())
                .map(|message| message.bytes.clone())
                .collect(),
            unreachable: process.unreachable,
            closed: process.closed,
        };
        self.workers.iter().map(handoff).collect()
    }

    /// What the former supervisor process had; `take` turns a number into the descriptor.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn import(
        handoff: Vec<ProcessHandoff>,
        mut take: impl FnMut(RawFd) -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let mut processes = Self::default();
        for one in handoff {
            let process = Process {
                control: take(one.control)?,
                meter: Meter::new(),
                pid: one.pid,
                slot: one.slot,
                incarnation: one.incarnation,
                outbox: one
                    .outbox
                    .into_iter()
                    .map(|bytes| QueuedMessage {
                        bytes,
                        descriptors: Vec::new(),
                    })
                    .collect(),
                unreachable: one.unreachable,
                closed: one.closed,
            };
            processes.insert(one.worker, process);
        }
        Ok(processes)
    }

    pub(crate) fn insert(&mut self, worker: WorkerId, process: Process) {
        self.workers.insert(worker, process);
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) -> Option<Process> {
        self.workers.remove(&worker)
    }

    pub(crate) fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// Which worker has this process id.
    pub(crate) fn by_pid(&self, pid: i32) -> Option<WorkerId> {
        self.workers
            .iter()
            .find(|(_, process)| process.pid == pid)
            .map(|(worker, _)| *worker)
    }

    /// Measures what they use, now and then.
    pub(crate) fn measure(&mut self, now: Duration) {
        for process in self.workers.values_mut() {
            process.meter.look(process.pid, now);
        }
    }

    /// What each process uses.
    pub(crate) fn usages(&self) -> BTreeMap<i32, Usage> {
        let usages = self
            .workers
            .values()
            .map(|process| (process.pid, process.meter.usage()));
        usages.collect()
    }

    pub(crate) fn get(&self, worker: WorkerId) -> Option<&Process> {
        self.workers.get(&worker)
    }

    /// The wires to poll, and whether to write on them.
    pub(crate) fn wires(&self) -> impl Iterator<Item = (WorkerId, BorrowedFd<'_>, bool)> {
        self.workers
            .iter()
            .filter(|(_, process)| !process.closed)
            .map(|(worker, process)| {
                (
                    *worker,
                    process.control.as_fd(),
                    !process.outbox.is_empty() && !process.unreachable,
                )
            })
    }

    /// Sends or queues; whether the worker turned out to have hung up just now.
    pub(crate) fn send(&mut self, worker: WorkerId, message: &ToWorker) -> bool {
        self.send_with(worker, message, &[])
    }

    /// The same, with duplicates of these descriptors.
    pub(crate) fn send_with(&mut self, worker: WorkerId, message: &ToWorker, lent: &[BorrowedFd<'_>]) -> bool {
        let Some(process) = self.workers.get_mut(&worker).filter(|process| !process.unreachable) else {
            return false;
        };
        let (pid, slot) = (process.pid, process.slot.number());
        match boot::encode(message) {
            Ok(_) if process.outbox.len() >= OUTBOX_MAX => {
                warn!(pid, slot, "worker does not read its control socket");
                process.unreachable = true;
            }
            Ok(bytes) => {
                let duplicates = lent.iter().map(BorrowedFd::try_clone_to_owned);
                let Ok(descriptors) = duplicates.collect() else {
                    error!(pid, slot, "descriptors not duplicated, message not sent");
                    return false;
                };
                process.outbox.push_back(QueuedMessage { bytes, descriptors });
                process.unreachable = process.flush().is_err();
            }
            Err(error) => error!(pid, slot, %error, "control message not sent"),
        }
        process.unreachable
    }

    /// Sends what has waited; whether the worker turned out to have hung up just now.
    pub(crate) fn flush(&mut self, worker: WorkerId) -> bool {
        let Some(process) = self.workers.get_mut(&worker).filter(|process| !process.unreachable) else {
            return false;
        };
        process.unreachable = process.flush().is_err();
        process.unreachable
    }

    /// What a worker has said, and whether it has hung up just now.
    pub(crate) fn receive(&mut self, worker: WorkerId) -> (Vec<ToSupervisor>, bool) {
        let mut messages = Vec::new();
        let Some(process) = self.workers.get_mut(&worker).filter(|process| !process.closed) else {
            return (messages, false);
        };
        while messages.len() < MESSAGES_PER_TURN {
            match process.receive(&mut self.buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => {
                    process.closed = true;
                    break;
                }
            }
        }
        (messages, process.closed)
    }

    /// Signals a worker.
    pub(crate) fn signal(&self, worker: WorkerId, signal: Signal) -> Result<(), Gone> {
        let process = self.workers.get(&worker).ok_or(Gone)?;
        // Not reaped yet, so the number cannot belong to another process.
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
