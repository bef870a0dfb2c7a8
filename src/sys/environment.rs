//! What children find in their environment: it is built from a short list for each, and never simply inherited.

use std::ffi::{CStr, CString};
use std::process::Command;

/// The environment variables that a worker gets; all others stay with the supervisor, passwords
/// in URLs among them.
const ENVIRONMENT: &[&str] = &[
    #[cfg(feature = "faults")]
    "FAULT_POINTS",
    "GLIBC_TUNABLES",
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
];
/// What a worker's `GLIBC_TUNABLES` are unless the operator set some: freed blocks of up to 16 KiB
/// (tasks, HTTP buffers) are kept at hand for the next connection. Other C libraries ignore it.
const MALLOC_TUNING: &CStr = c"GLIBC_TUNABLES=glibc.malloc.tcache_max=16384";

/// The environment of a worker, as `NAME=value`.
pub(super) fn of_a_worker() -> Vec<CString> {
    // Tests of a debug build tell workers where to die.
    let names = ENVIRONMENT
        .iter()
        .chain(cfg!(debug_assertions).then_some(&"TEST_HANDOVER_FAULT"));
    let inherited = names.filter_map(|name| {
        let mut entry = name.as_bytes().to_vec();
        entry.push(b'=');
        entry.extend(std::os::unix::ffi::OsStringExt::into_vec(std::env::var_os(name)?));
        CString::new(entry).ok()
    });
    let tuned = std::env::var_os("GLIBC_TUNABLES").is_none();
    inherited.chain(tuned.then(|| MALLOC_TUNING.to_owned())).collect()
}

/// Builds the environment of a foreign program. It gets these variables of ours, if they are set, and the locale `C`, which every
/// host has. Passwords, systemd's variables and locales that ssh forwards stay here.
pub(super) fn build<'a>(command: &'a mut Command, names: &[&str]) -> &'a mut Command {
    command.env_clear();
    for name in names {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("LC_ALL", "C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_environment_stay_here() {
        for entry in of_a_worker() {
            let entry = entry.into_string().unwrap();
            assert!(ENVIRONMENT.contains(&entry.split('=').next().unwrap()), "{entry}");
        }
    }
}
