//! The fleet as the supervisor tells it: what `status --json` prints.

use serde::Deserialize;

/// `status --json`, as far as commands need it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fleet {
    /// The supervisor.
    pub(crate) supervisor: Supervisor,
    /// One entry for each process, and one for each slot without any.
    pub(crate) workers: Vec<Worker>,
}

/// `supervisor` of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Supervisor {
    /// Process id.
    pub(crate) pid: u32,
    /// `booting`, `serving`, `degraded`, `reloading` or `stopping`.
    pub(crate) state: String,
    /// Whole seconds since the start.
    pub(crate) uptime_s: u64,
}

/// An entry of `workers` of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Worker {
    /// `ready`, or why it does not serve.
    pub(crate) state: String,
}
