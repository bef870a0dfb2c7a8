//! What a hung process was doing, read from `/proc` before it is killed.

use std::fs;
use tracing::warn;

/// No file of `/proc` is logged beyond this (bytes).
const TEXT_BYTES_MAX: usize = 2_048;

/// Logs what the kernel tells about this process; what cannot be read is left out.
pub(crate) fn log(slot: u16, pid: i32) {
    let state = read(pid, "status").and_then(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("State:").map(|state| state.trim().to_owned()))
    });
    let wchan = read(pid, "wchan");
    let syscall = read(pid, "syscall");
    let stack = read(pid, "stack");
    warn!(slot, pid, state, wchan, syscall, stack, "forensics of a hung worker");
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
