//! A few connections in a parcel: a memfd with their states, their sockets, a token.
//!
//! The memfd holds the length of the list (8 bytes, big endian), the list as JSON, then for each
//! connection what was read and what was not written.

use crate::ws::{Leaver, Luggage, Portrait};
use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Connections of one unit at most; they freeze together. Descriptors that are on their way are
/// counted per user, unix(7): few at a time stay below every limit.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// A parcel carries no more than so much of what clients and server had on their way, except for
/// its first connection (bytes).
pub(super) const LUGGAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Of a connection.
#[derive(Debug, Serialize, Deserialize)]
struct State<P> {
    portrait: P,
    unread: usize,
    unsent: usize,
}

/// Writes the states of connections.
pub(super) fn pack(leavers: &[Leaver]) -> io::Result<OwnedFd> {
    let states: Vec<_> = leavers
        .iter()
        .map(|leaver| State {
            portrait: &leaver.portrait,
            unread: leaver.luggage.unread.len(),
            unsent: leaver.luggage.unsent.len(),
        })
        .collect();
    let list = serde_json::to_vec(&states)?;
    let mut bytes = u64::try_from(list.len()).unwrap_or(u64::MAX).to_be_bytes().to_vec();
    bytes.extend(list);
    for Leaver { luggage, .. } in leavers {
        bytes.extend_from_slice(&luggage.unread);
        bytes.extend_from_slice(&luggage.unsent);
    }
    let mut file = File::from(memfd_create("anyworker-handover", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// Reads the states of connections.
pub(super) fn unpack(states: OwnedFd) -> io::Result<Vec<(Portrait, Luggage)>> {
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
    let states: Vec<State<Portrait>> = serde_json::from_slice(&list)?;
    states
        .into_iter()
        .map(|state| {
            let luggage = Luggage {
                unread: Bytes::copy_from_slice(&take(state.unread)?),
                unsent: take(state.unsent)?.to_vec(),
            };
            Ok((state.portrait, luggage))
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
