//! A unit of a few connections: a memfd with their states, their sockets, a token.
//!
//! The memfd holds the length of the list (8 bytes, big endian), the list as JSON, then for each
//! connection what was read and what was not written.

use crate::lifecycle::Idle;
use crate::sockets::{Buffers, ConnectionState, FrozenConnection};
use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Connections of one unit at most; they freeze together. Descriptors that are on their way are
/// counted per user, unix(7): few at a time stay below every limit.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// Most bytes in transit between clients and server that a unit carries, except for
/// its first connection (bytes).
pub(super) const UNIT_BUFFERS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A connection that stands still, until it is known whose it is.
pub(super) trait Frozen {
    /// What the other worker has to know of it.
    type State: Serialize;

    fn state(&self) -> &Self::State;
    /// Bytes that were read and not acted on, and those that were not written.
    fn buffers(&self) -> (&[u8], &[u8]);
    /// A copy of its descriptor.
    fn socket(&self) -> io::Result<OwnedFd>;
    /// It is the other worker's: gone, without a shutdown.
    fn depart(self);
    /// It is ours, and continues.
    fn thaw(self);
}

impl Frozen for FrozenConnection {
    type State = ConnectionState;

    fn state(&self) -> &ConnectionState {
        &self.state
    }

    fn buffers(&self) -> (&[u8], &[u8]) {
        (&self.buffers.unread, &self.buffers.unsent)
    }

    fn socket(&self) -> io::Result<OwnedFd> {
        self.connection.descriptor()
    }

    fn depart(self) {
        self.connection.depart();
    }

    fn thaw(self) {
        self.connection.thaw(self.state.position);
    }
}

/// All that is known of it is whether there was a request on it.
impl Frozen for Idle {
    type State = bool;

    fn state(&self) -> &bool {
        &self.held.asked
    }

    fn buffers(&self) -> (&[u8], &[u8]) {
        (&self.held.unread, &[])
    }

    fn socket(&self) -> io::Result<OwnedFd> {
        self.held.tcp.as_fd().try_clone_to_owned()
    }

    fn depart(self) {}

    fn thaw(self) {
        // Who served it waits for it.
        drop(self.back.send(self.held));
    }
}

/// A connection in the list: its state, and the lengths of its buffers.
#[derive(Debug, Serialize, Deserialize)]
struct Packed<P> {
    #[serde(rename = "portrait")]
    state: P,
    unread: usize,
    unsent: usize,
}

/// Writes the states of connections.
pub(super) fn pack<F: Frozen>(connections: &[F]) -> io::Result<OwnedFd> {
    let states: Vec<_> = connections
        .iter()
        .map(|connection| {
            let (unread, unsent) = connection.buffers();
            Packed {
                state: connection.state(),
                unread: unread.len(),
                unsent: unsent.len(),
            }
        })
        .collect();
    let list = serde_json::to_vec(&states)?;
    let mut bytes = u64::try_from(list.len()).unwrap_or(u64::MAX).to_be_bytes().to_vec();
    bytes.extend(list);
    for connection in connections {
        let (unread, unsent) = connection.buffers();
        bytes.extend_from_slice(unread);
        bytes.extend_from_slice(unsent);
    }
    let mut file = File::from(memfd_create("anyworker-handover", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// Reads the states of connections.
pub(super) fn unpack<P: DeserializeOwned>(states: OwnedFd) -> io::Result<Vec<(P, Buffers)>> {
    let file = File::from(states);
    let size = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    // The other worker shares the position in the file.
    file.read_exact_at(&mut bytes, 0)?;
    let mut bytes = Bytes::from(bytes);
    let mut take = |count: usize| {
        if count > bytes.len() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(bytes.split_to(count))
    };
    let length = <[u8; 8]>::try_from(&take(8)?[..]).map_err(io::Error::other)?;
    let list = take(usize::try_from(u64::from_be_bytes(length)).map_err(io::Error::other)?)?;
    let states: Vec<Packed<P>> = serde_json::from_slice(&list)?;
    states
        .into_iter()
        .map(|packed| {
            let buffers = Buffers {
                unread: Bytes::copy_from_slice(&take(packed.unread)?),
                unsent: take(packed.unsent)?.to_vec(),
            };
            Ok((packed.state, buffers))
        })
        .collect()
}

/// A token that has not been taken.
pub(super) fn token() -> io::Result<OwnedFd> {
    Ok(eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Takes the token; false if the other side has it. eventfd(2): a read of a non-zero counter resets
/// it in the same step.
pub(super) fn take_token(token: impl AsFd) -> io::Result<bool> {
    let mut value = [0_u8; 8];
    loop {
        match rustix::io::read(&token, &mut value[..]) {
            Ok(_) => return Ok(true),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_owner() {
        let token = token().unwrap();
        let copies: Vec<_> = (0..8).map(|_| token.try_clone().unwrap()).collect();
        let takers: Vec<_> = copies
            .into_iter()
            .map(|copy| std::thread::spawn(move || take_token(copy).unwrap()))
            .collect();
        let owners = takers.into_iter().map(|taker| taker.join().unwrap());
        assert_eq!(owners.filter(|owner| *owner).count(), 1);
        assert!(!take_token(&token).unwrap());
    }
}
