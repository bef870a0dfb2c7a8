//! Files in memory, for what another process is to read.

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

/// `value` as JSON in a memfd, rewound.
///
/// # Errors
/// When there is no memory, or a path in it is not UTF-8.
pub(crate) fn file(name: &CStr, value: &impl Serialize) -> io::Result<OwnedFd> {
    let text = serde_json::to_vec(value)?;
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&text)?;
    file.rewind()?;
    Ok(file.into())
}
