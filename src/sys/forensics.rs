//! What a hung process was doing, read from `/proc` before it is killed.

use std::fs;
use tracing::warn;

/// No file of `/proc` is logged beyond this (bytes).
const TEXT_BYTES_MAX: usize = 2_048;

/// What hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hung {
    /// The worker of a slot.
    Worker {
        /// Number of the slot.
        slot: u16,
    },
    /// The managed Redis.
    Redis,
}

/// Logs what the kernel tells about this process; what cannot be read is left out.
pub(crate) fn log(what: Hung, pid: i32) {
    let state = state(pid);
    let wchan = read(pid, "wchan");
    let syscall = read(pid, "syscall");
    let stack = read(pid, "stack");
    match what {
        Hung::Worker { slot } => warn!(slot, pid, state, wchan, syscall, stack, "forensics of a hung worker"),
        Hung::Redis => warn!(pid, state, wchan, syscall, stack, "forensics of the hung managed Redis"),
    }
}

/// Whether the kernel makes this process wait for a disk: nothing but the disk ends that, no signal either.
pub(crate) fn waits_for_disk(pid: i32) -> bool {
    state(pid).is_some_and(|state| state.starts_with('D'))
}

/// `S (sleeping)`
fn state(pid: i32) -> Option<String> {
    let text = read(pid, "status")?;
    text.lines()
        .find_map(|line| line.strip_prefix("State:").map(|state| state.trim().to_owned()))
}

fn read(pid: i32, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    let text = String::from_utf8_lossy(bytes.get(..TEXT_BYTES_MAX.min(bytes.len()))?)
        .trim()
        .to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_can_be_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(read(own, "status").unwrap().contains("State:"));
        assert_eq!(read(own, "no such file"), None);
    }
}
