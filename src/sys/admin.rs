//! The admin listener: one socket, which all workers accept from.

use super::listener::{ADDRESS_PATIENCE, ADDRESS_RETRY, ListenError, prepare};
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

const KEY: &str = "admin.address";
/// Connections that wait for a worker.
const BACKLOG: i32 = 128;

/// See the module.
#[derive(Debug)]
pub(crate) struct AdminListener {
    /// As configured: the port may be 0.
    wanted: SocketAddr,
    /// With the real port.
    address: SocketAddr,
    socket: Socket,
}

/// The admin listener as it is handed to the next supervisor process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdminHandoff {
    wanted: SocketAddr,
    address: SocketAddr,
    pub(crate) socket: RawFd,
}

impl AdminListener {
    /// Binds the address. With `patience`, workers of a supervisor that was killed may still hold it for a moment.
    ///
    /// # Errors
    /// When it is taken, forbidden, or not of this host.
    pub(crate) fn bind(wanted: SocketAddr, patience: bool) -> Result<Self, ListenError> {
        let give_up = Instant::now() + ADDRESS_PATIENCE;
        loop {
            match Self::listen(wanted) {
                Ok(listener) => return Ok(listener),
                Err(error) if patience && error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                    // Interrupted or not, the next try tells.
                    nix::poll::poll(&mut [], ADDRESS_RETRY).ok();
                }
                Err(source) => {
                    return Err(ListenError::Address {
                        key: KEY,
                        address: wanted,
                        step: "bind",
                        source,
                    });
                }
            }
        }
    }

    fn listen(wanted: SocketAddr) -> io::Result<Self> {
        let socket = prepare(wanted, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&wanted.into())?;
        socket.listen(BACKLOG)?;
        let bound = socket.local_addr()?.as_socket();
        Ok(Self {
            wanted,
            address: bound.unwrap_or(wanted),
            socket,
        })
    }

    /// As it was configured.
    pub(crate) const fn wanted(&self) -> SocketAddr {
        self.wanted
    }

    /// With the real port.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// For the next supervisor process.
    pub(crate) fn export(&self) -> AdminHandoff {
        AdminHandoff {
            wanted: self.wanted,
            address: self.address,
            socket: self.socket.as_raw_fd(),
        }
    }

    /// What the former supervisor process had; `take` turns a number into the descriptor.
    ///
    /// # Errors
    /// Those of `take`.
    pub(crate) fn import(handoff: &AdminHandoff, take: impl FnOnce(RawFd) -> io::Result<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            wanted: handoff.wanted,
            address: handoff.address,
            socket: take(handoff.socket)?.into(),
        })
    }
}

impl AsFd for AdminListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
