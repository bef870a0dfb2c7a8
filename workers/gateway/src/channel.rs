//! A `SOCK_SEQPACKET` socket to another process: messages of boot, and descriptors with them.

use boot::MessageError;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// Descriptors that one message may carry: `SCM_MAX_FD`, unix(7).
pub(crate) const DESCRIPTORS_MAX: usize = 253;

/// See the module.
pub(crate) struct Channel {
    /// Only reading is waited for: an idle worker would wake whenever the other side has read.
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// Takes an inherited or received socket; needs a runtime.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self {
            socket: watched(fd, Interest::READABLE)?,
        })
    }

    /// Sends a message, and descriptors with it. Waits as long as the other side does not read.
    pub(crate) async fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = boot::encode(message).map_err(|error: MessageError| io::Error::other(error))?;
        let send = || -> io::Result<usize> {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let flags = SendFlags::NOSIGNAL;
            Ok(sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)?)
        };
        match send() {
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                let writable = watched(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?;
                writable.async_io(Interest::WRITABLE, |_| send()).await.map(drop)
            }
            sent => sent.map(drop),
        }
    }

    /// The next message that is understood, and the descriptors that came with it; nothing when the
    /// other side is gone.
    pub(crate) async fn receive<T: DeserializeOwned>(&self, buffer: &mut [u8]) -> Option<(T, Vec<OwnedFd>)> {
        loop {
            let received = self.socket.async_io(Interest::READABLE, |_| self.read(buffer)).await;
            match received {
                Ok((0, _)) | Err(_) => return None,
                Ok((n, descriptors)) => match boot::decode(buffer.get(..n).unwrap_or_default()) {
                    Ok(message) => return Some((message, descriptors)),
                    Err(error) => warn!(%error, "message of another process not understood"),
                },
            }
        }
    }

    /// Whether the other side has closed its end and everything it said was read.
    pub(crate) fn is_closed(&self) -> bool {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.socket, &mut byte[..], flags) {
            Ok((bytes, _)) => bytes == 0,
            Err(error) => error != rustix::io::Errno::AGAIN,
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received = recvmsg(&self.socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                descriptors.extend(sent);
            }
        }
        Ok((received.bytes, descriptors))
    }
}

#[expect(
    deprecated,
    reason = "what replaces it asks for unsafe code; an `OwnedFd` stays open"
)]
fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
