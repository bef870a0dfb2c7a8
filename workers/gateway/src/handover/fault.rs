//! Places where tests of a debug build let a worker, or its supervisor, die in the middle of a
//! handover. Nothing of it is in a release build.

/// Passes a place. `TEST_HANDOVER_FAULT` is `PLACE:FAULT:FILE`: at `PLACE` one process of all,
/// the one that creates `FILE`, does `FAULT`: `kill` or `stop` itself, or kill its `parent`.
#[cfg(debug_assertions)]
pub(super) fn pass(place: &str) {
    use rustix::process::{Signal, getpid, getppid, kill_process};
    let Ok(fault) = std::env::var("TEST_HANDOVER_FAULT") else {
        return;
    };
    let mut parts = fault.splitn(3, ':');
    let (Some(wanted), Some(fault), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    if wanted != place || std::fs::File::create_new(file).is_err() {
        return;
    }
    // Not by the log: its thread would die or stop with the line.
    let line = format!("fault of a test place={place} fault={fault}\n");
    drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
    let done = match (fault, getppid()) {
        ("kill", _) => kill_process(getpid(), Signal::KILL),
        ("stop", _) => kill_process(getpid(), Signal::STOP),
        ("parent", Some(parent)) => kill_process(parent, Signal::KILL),
        _ => Ok(()),
    };
    if let Err(error) = done {
        tracing::error!(%error, "injected fault not executed");
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) const fn pass(_place: &str) {}
