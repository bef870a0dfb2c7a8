//! Files in memory, for what another process is to read.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

/// Memory that a child can write to, and no more of it than this (bytes), or than a file may have (`RLIMIT_FSIZE`). What is
/// not written yet reads as zeros.
///
/// # Errors
/// When there are no descriptors.
pub(crate) fn output(name: &CStr, bytes_max: u32) -> nix::Result<File> {
    let memory = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    let (file_max, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    let bytes = i64::try_from(file_max).unwrap_or(i64::MAX).min(bytes_max.into());
    nix::unistd::ftruncate(&memory, bytes)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

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
