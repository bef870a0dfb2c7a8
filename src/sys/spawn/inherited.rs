//! Descriptors that have come into this process by number.

use super::adopt;
use nix::libc;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Descriptors that have survived an exec in place, by number.
pub(crate) struct InheritedDescriptors(BTreeSet<RawFd>);

impl InheritedDescriptors {
    /// To be made before this process opens anything of its own under these numbers; they were open,
    /// and of no other, when the former binary wrote them down.
    pub(crate) fn new(numbers: impl IntoIterator<Item = RawFd>) -> Self {
        Self(
            numbers
                .into_iter()
                .filter(|number| *number > libc::STDERR_FILENO)
                .collect(),
        )
    }

    /// Takes one over, once; from now on it is closed at exec.
    ///
    /// # Errors
    /// When it is not there, or was taken.
    pub(crate) fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        if !self.0.remove(&number) {
            return Err(io::Error::other(format!("descriptor {number} is not inherited")));
        }
        adopt(number).map_err(|_| io::Error::other(format!("descriptor {number} is not open")))
    }
}
