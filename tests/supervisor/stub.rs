//! A worker that obeys the contract and misbehaves on demand. `app.events.message` of its
//! configuration says how: a word, or `word_slotN` for one slot only.

use boot::{Beat, Exit, ToSupervisor, ToWorker};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};
use supervisor::Inherited;

struct Stub {
    control: OwnedFd,
    listeners: Vec<TcpListener>,
    greeting: String,
    gone: usize,
    accepted: u64,
    die_at: Option<Instant>,
    lent: BTreeMap<u16, Vec<TcpListener>>,
}

/// The life of the stub.
pub(crate) fn run(inherited: Inherited) -> Exit {
    let Inherited {
        control,
        setup,
        listeners,
        ..
    } = inherited;
    let word = setup.settings.app.events.message.clone();
    let word = match word.split_once("_slot") {
        Some((word, slot)) if slot == setup.slot.to_string() => word.to_owned(),
        Some(_) => "message".to_owned(),
        None => word,
    };
    let greeting = format!(
        "slot {} pid {} generation {}",
        setup.slot,
        std::process::id(),
        setup.generation
    );
    let listeners = listeners.into_iter().map(TcpListener::from).collect();
    let mut stub = Stub {
        control,
        listeners,
        greeting,
        gone: 0,
        accepted: 0,
        die_at: None,
        lent: BTreeMap::new(),
    };
    let failed = |exit: Exit| ToSupervisor::Failed {
        code: exit.code(),
        reason: format!("the stub says {word}"),
    };
    match word.as_str() {
        "badconfig" => {
            stub.say(&failed(Exit::Config));
            return Exit::Config;
        }
        "nodependency" => {
            stub.say(&failed(Exit::Dependency));
            return Exit::Dependency;
        }
        "crash" => return Exit::Internal,
        "orphan" => {
            Command::new("sh")
                .args(["-c", "sleep 0.3 & sleep 0.3 &"])
                .status()
                .unwrap();
        }
        _ => {}
    }
    if word != "neverready" {
        stub.say(&ToSupervisor::ready());
    }
    if word == "dieslater" {
        stub.die_at = Some(Instant::now() + Duration::from_millis(300));
    }
    stub.serve(&word)
}

impl Stub {
    fn say(&self, message: &ToSupervisor) {
        // The supervisor may be gone; `serve` sees that.
        send(
            self.control.as_raw_fd(),
            &boot::encode(message).unwrap(),
            MsgFlags::MSG_NOSIGNAL,
        )
        .ok();
    }

    fn serve(&mut self, word: &str) -> Exit {
        let mut beat_at = Instant::now();
        loop {
            if self.die_at.is_some_and(|at| Instant::now() >= at) {
                return Exit::Internal;
            }
            if Instant::now() >= beat_at {
                beat_at = Instant::now() + Duration::from_millis(Beat::EVERY_MS);
                self.say(&ToSupervisor::Beat(Beat {
                    connections: self.accepted,
                    ready: true,
                    ..Beat::default()
                }));
            }
            let mut fds = vec![PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
            fds.extend(
                self.listeners
                    .iter()
                    .chain(self.lent.values().flatten())
                    .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)),
            );
            poll(&mut fds, PollTimeout::from(100_u8)).ok();
            let mut bytes = [0_u8; 65_536];
            match self.receive(&mut bytes) {
                Ok((0, _)) => return Exit::Done,
                Ok((count, lent)) => match boot::decode::<ToWorker>(&bytes[..count]).unwrap() {
                    ToWorker::WorkerGone { .. } => self.gone += 1,
                    // What came with it is closed: the other side drains.
                    ToWorker::Give { .. } | ToWorker::Take | ToWorker::Scraped { .. } => {}
                    ToWorker::Lend { slot } => drop(self.lent.insert(slot, lent)),
                    ToWorker::Recall { slot } => drop(self.lent.remove(&slot)),
                    _ if word == "deaf" => {}
                    ToWorker::Stop => return Exit::Done,
                    ToWorker::Drain { .. } => {
                        self.accept();
                        self.say(&ToSupervisor::Drained {
                            closed: self.accepted,
                            cut: 0,
                        });
                        return Exit::Done;
                    }
                },
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return Exit::Done,
            }
            self.accept();
        }
    }

    fn receive(&self, bytes: &mut [u8]) -> rustix::io::Result<(usize, Vec<TcpListener>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.control, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
        let mut lent = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                lent.extend(descriptors.map(TcpListener::from));
            }
        }
        Ok((received.bytes, lent))
    }

    fn accept(&mut self) {
        for listener in self.listeners.iter().chain(self.lent.values().flatten()) {
            while let Ok((mut stream, _)) = listener.accept() {
                self.accepted += 1;
                writeln!(stream, "{} gone {}", self.greeting, self.gone).ok();
            }
        }
    }
}
