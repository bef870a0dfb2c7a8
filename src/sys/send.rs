//! Messages with descriptors over a unix socket.

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Sends one message without waiting for room.
///
/// # Errors
/// `EAGAIN` when there is no room, `EINTR`, and what sendmsg(2) says of a socket that is gone.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<(), Errno> {
    let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights = if descriptors.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None).map(drop)
}
