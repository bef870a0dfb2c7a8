//! The supervisor's side of the control socket: never blocks, bounded in every direction.

use super::protocol::{Answer, REQUEST_BYTES_MAX, Request};
use crate::fleet::Moment;
use crate::sys::trust::Inode;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};

/// Connections at one time; further ones wait in the backlog.
const CLIENTS_MAX: usize = 32;
/// A request must be complete by then, and an answer taken.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// When accept(2) fails, for want of descriptors, say, this long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The control socket and its connected clients.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// The socket file, as it was made.
    inode: Option<Inode>,
    clients: BTreeMap<u64, Client>,
    /// Connections ever accepted.
    accepted: u64,
    /// None is accepted until then: the latest attempt failed.
    shut_until: Option<Moment>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    state: State,
    /// It has closed its side for writing, and may still read.
    half_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Its request is not complete.
    Asking { deadline: Moment },
    /// Its request is being worked on.
    Waiting,
    /// Its answer is not all sent.
    Answering { deadline: Moment, then_hold: bool },
    /// Kept open until the supervisor ends.
    Held,
}

/// The control socket as it is handed to the next supervisor process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ControlHandoff {
    listener: RawFd,
    path: PathBuf,
    clients: Vec<ClientHandoff>,
    accepted: u64,
    #[serde(default)]
    inode: Option<Inode>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClientHandoff {
    id: u64,
    stream: RawFd,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    state: State,
}

impl ControlHandoff {
    /// Its descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let clients = self.clients.iter().map(|client| client.stream);
        [self.listener].into_iter().chain(clients)
    }
}

/// What a client is polled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Nothing but its end, which poll(2) always reports.
    End,
    Read,
    Write,
}

impl Server {
    /// Binds the socket, for this user only. The caller holds the lock of the runtime directory,
    /// so whatever is at the path is a leftover.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: bind(path)?,
            inode: Inode::at(path),
            path: path.to_owned(),
            clients: BTreeMap::new(),
            accepted: 0,
            shut_until: None,
        })
    }

    /// Binds the socket again if its file was removed or replaced; returns whether it was. Connected clients stay.
    ///
    /// # Errors
    /// When it cannot be bound; the next call tries again.
    pub(crate) fn restore(&mut self) -> io::Result<bool> {
        if self.inode.is_some() && Inode::at(&self.path) == self.inode {
            return Ok(false);
        }
        self.listener = bind(&self.path)?;
        self.inode = Inode::at(&self.path);
        Ok(true)
    }

    /// For the next supervisor process.
    pub(crate) fn export(&self) -> ControlHandoff {
        let clients = self.clients.iter().map(|(id, client)| ClientHandoff {
            id: *id,
            stream: client.stream.as_raw_fd(),
            inbox: client.inbox.clone(),
            outbox: client.outbox.clone(),
            state: client.state,
        });
        ControlHandoff {
            listener: self.listener.as_raw_fd(),
            path: self.path.clone(),
            clients: clients.collect(),
            accepted: self.accepted,
            inode: self.inode,
        }
    }

    /// What the former supervisor process had; `take` turns a number into the descriptor.
    ///
    /// # Errors
    /// Those of `take`.
    pub(crate) fn import(
        handoff: ControlHandoff,
        mut take: impl FnMut(RawFd) -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let mut clients = BTreeMap::new();
        for client in handoff.clients {
            let ClientHandoff {
                id,
                stream,
                inbox,
                outbox,
                state,
            } = client;
            let stream = take(stream)?.into();
            let client = Client {
                stream,
                inbox,
                outbox,
                state,
                // It is seen again.
                half_closed: false,
            };
            clients.insert(id, client);
        }
        Ok(Self {
            listener: take(handoff.listener)?.into(),
            // The build before did not say.
            inode: handoff.inode.or_else(|| Inode::at(&handoff.path)),
            path: handoff.path,
            clients,
            accepted: handoff.accepted,
            shut_until: None,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, unless there is no room.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        (self.clients.len() < CLIENTS_MAX && self.shut_until.is_none()).then(|| self.listener.as_fd())
    }

    /// Who is connected, and what for.
    pub(crate) fn clients(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>, Interest)> {
        self.clients.iter().map(|(id, client)| {
            let interest = match client.state {
                State::Answering { .. } => Interest::Write,
                State::Asking { .. } | State::Held | State::Waiting if client.half_closed => Interest::End,
                State::Asking { .. } | State::Held | State::Waiting => Interest::Read,
            };
            (*id, client.stream.as_fd(), interest)
        })
    }

    /// When [`Server::expire`] is due.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let clients = self.clients.values().filter_map(|client| client.state.deadline());
        clients.chain(self.shut_until).min()
    }

    /// Drops clients that take too long.
    pub(crate) fn expire(&mut self, now: Moment) {
        self.shut_until.take_if(|until| *until <= now);
        self.clients
            .retain(|_, client| client.state.deadline().is_none_or(|deadline| now < deadline));
    }

    /// Accepts waiting clients, after a check of their user.
    pub(crate) fn accept(&mut self, now: Moment) {
        while self.clients.len() < CLIENTS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // It stays readable: without a pause the loop would do nothing else.
                    self.shut_until = Some(now + ACCEPT_PAUSE);
                    return warn!(%error, "control connection not accepted");
                }
            };
            match admit(&stream) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    warn!(%error, "user of a control connection not known");
                    continue;
                }
            }
            self.accepted += 1;
            let state = State::Asking {
                deadline: now + CLIENT_PATIENCE,
            };
            self.clients.insert(
                self.accepted,
                Client {
                    stream,
                    inbox: Vec::new(),
                    outbox: Vec::new(),
                    state,
                    half_closed: false,
                },
            );
        }
    }

    /// Reads from a client; its request, when complete. Who breaks the rules is dropped.
    pub(crate) fn read(&mut self, id: u64) -> Option<Request> {
        let client = self.clients.get_mut(&id)?;
        let mut bytes = [0_u8; REQUEST_BYTES_MAX];
        let count = match client.stream.read(&mut bytes) {
            // A whole request and the end of what it writes: it waits for its answer. If it is gone altogether, it is
            // reported once more.
            Ok(0) if !client.half_closed && matches!(client.state, State::Held | State::Waiting) => {
                client.half_closed = true;
                return None;
            }
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return None,
            Err(_) => None,
        };
        let Some(count) = count else {
            self.clients.remove(&id);
            return None;
        };
        if !matches!(client.state, State::Asking { .. }) {
            // It talks out of turn: thrown away, never stored.
            return None;
        }
        client.inbox.extend(bytes.iter().take(count));
        let line = client
            .inbox
            .iter()
            .position(|byte| *byte == b'\n')
            .and_then(|end| client.inbox.get(..end));
        let Some(line) = line else {
            if client.inbox.len() >= REQUEST_BYTES_MAX {
                self.clients.remove(&id);
            }
            return None;
        };
        match serde_json::from_slice(line) {
            Ok(request) => {
                client.state = State::Waiting;
                Some(request)
            }
            Err(error) => {
                warn!(%error, "control request not understood");
                self.clients.remove(&id);
                None
            }
        }
    }

    /// Answers a client, if it is still there, and lets it go.
    pub(crate) fn answer(&mut self, now: Moment, id: u64, answer: &Answer) {
        self.queue(now, id, answer, false);
    }

    /// Answers a client and keeps it until the supervisor ends.
    pub(crate) fn answer_and_hold(&mut self, now: Moment, id: u64, answer: &Answer) {
        self.queue(now, id, answer, true);
    }

    fn queue(&mut self, now: Moment, id: u64, answer: &Answer, then_hold: bool) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match serde_json::to_vec(answer) {
            Ok(bytes) => client.outbox = bytes,
            Err(error) => warn!(%error, "control answer not encoded"),
        }
        client.outbox.push(b'\n');
        client.state = State::Answering {
            deadline: now + CLIENT_PATIENCE,
            then_hold,
        };
        self.write(id);
    }

    /// Sends what a client has not taken yet.
    pub(crate) fn write(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let State::Answering { then_hold, .. } = client.state else {
            return;
        };
        match client.stream.write(&client.outbox) {
            Ok(count) if count < client.outbox.len() => {
                client.outbox.drain(..count);
            }
            Ok(_) if then_hold => {
                client.outbox.clear();
                client.state = State::Held;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => {
                self.clients.remove(&id);
            }
        }
    }
}

impl State {
    const fn deadline(self) -> Option<Moment> {
        match self {
            Self::Asking { deadline } | Self::Answering { deadline, .. } => Some(deadline),
            Self::Waiting | Self::Held => None,
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => info!(path = %path.display(), "stale control socket replaced"),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let former = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(former);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts root and the supervisor's own user; every connection is logged.
fn admit(stream: &UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let peer = getsockopt(stream, PeerCredentials)?;
    let (pid, uid) = (peer.pid(), peer.uid());
    let admitted = uid == 0 || uid == geteuid().as_raw();
    if admitted {
        tracing::debug!(pid, uid, "control connection");
    } else {
        warn!(pid, uid, "control connection refused");
    }
    Ok(admitted)
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.inode.is_none() || Inode::at(&self.path) != self.inode {
            // Removed, or another supervisor's.
            return;
        }
        // The lock says whether we live; a leftover would only be replaced.
        if let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, "control socket not removed");
        }
    }
}
