//! Processes of a test: signals and children, the program under test, addresses that no other test has.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

/// Sends a signal to a process that the test started, directly or not.
pub fn signal(pid: u32, name: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    assert!(pid.as_raw() > 1, "not a process of ours");
    // Another process may have been faster; the caller will notice.
    if let Err(fault) = kill(pid, name) {
        eprintln!("{name} to {pid}: {fault}");
    }
}

/// Process ids of the children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// An address that no other test has: a loopback address for each process, a port for each server.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed);
    // Never 127.0.0.x, where other things of the machine listen. All 22 bits of a process id (proc_pid_max(5)) are in the
    // address, so no two processes have the same one; 127.64.1.0 is an address like others.
    SocketAddr::from(([127, 64 | (high & 63), middle, low], port))
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program under test, which cargo builds next to the directory of the tests.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let directory = test.parent().and_then(Path::parent).expect("a directory above");
    directory.join("anyworker")
}
