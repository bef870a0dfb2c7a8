//! The supervisor continues as another binary in the same process: same process id, same children,
//! same descriptors. What it knows goes along in a memfd.

use super::memory;
use super::spawn::{Binary, InheritedDescriptors, keep_at_exec};
use nix::unistd::fexecve;
use serde::Serialize;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

/// Names the descriptor of the state in the environment of the next binary.
const STATE_VARIABLE: &str = "_ANYWORKER_STATE_FD";

/// A state in memory, ready to be read.
///
/// # Errors
/// When there is no memory, or a path in it is not UTF-8.
pub(crate) fn store(state: &impl Serialize) -> io::Result<OwnedFd> {
    memory::file(c"anyworker-state", state)
}

/// Goes on as `binary`, which finds `state` and everything in `keep` open. Returns only when that
/// fails; then all is as it was.
pub(crate) fn exec(binary: &Binary, state: &OwnedFd, keep: &[RawFd]) -> io::Error {
    let numbers = || keep.iter().copied().chain([state.as_raw_fd()]);
    let error = match numbers().try_for_each(|number| keep_at_exec(number, true)) {
        Ok(()) => match fexecve(binary.as_fd(), &arguments(), &environment(state.as_raw_fd())) {
            Ok(never) => match never {},
            Err(errno) => io::Error::from(errno),
        },
        Err(error) => error,
    };
    for number in numbers() {
        if let Err(error) = keep_at_exec(number, false) {
            tracing::error!(number, %error, "descriptor stays open at exec");
        }
    }
    error
}

/// The state that a former binary in this process has left, if this is what happened.
pub(crate) fn inherited() -> Option<io::Result<OwnedFd>> {
    let number = std::env::var(STATE_VARIABLE).ok()?;
    let number = number.parse().map_err(io::Error::other);
    // For readers of `ps`: the kernel would show the number of a descriptor.
    nix::sys::prctl::set_name(c"anyworker").ok();
    Some(number.and_then(|number| InheritedDescriptors::new([number]).take(number)))
}

fn arguments() -> Vec<CString> {
    let words = std::env::args_os();
    words.filter_map(|word| CString::new(word.into_vec()).ok()).collect()
}

fn environment(state: RawFd) -> Vec<CString> {
    let kept = std::env::vars_os().filter(|(name, _)| name != STATE_VARIABLE);
    let entries = kept.map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    });
    entries
        .chain([format!("{STATE_VARIABLE}={state}").into_bytes()])
        .filter_map(|entry| CString::new(entry).ok())
        .collect()
}
