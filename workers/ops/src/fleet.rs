//! The fleet as the supervisor tells it: what `status --json` prints.

use serde::Deserialize;
use store::Offset;

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
    /// The managed Redis; none without one, or of a supervisor that does not tell.
    #[serde(default)]
    pub(crate) redis: Option<ManagedRedis>,
}

/// `redis` of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ManagedRedis {
    /// `running`, or why it does not answer.
    pub(crate) state: String,
    /// How it ended last, with its own last words.
    pub(crate) last_exit: Option<String>,
}

impl ManagedRedis {
    /// What is known of it, for an operator who cannot reach it.
    pub(crate) fn told(&self) -> String {
        let last = self.last_exit.as_deref().unwrap_or("never");
        format!("the supervisor says: {}, last exit: {last}", self.state)
    }
}

/// An entry of `workers` of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Worker {
    /// Number of the slot.
    pub(crate) slot: u16,
    /// Process id; none for a slot without a process.
    pub(crate) pid: Option<u32>,
    /// `ready`, or why it does not serve.
    pub(crate) state: String,
    /// Names of the checks that keep it from being ready, `redis` and `log` among them.
    #[serde(default)]
    pub(crate) failing: Vec<String>,
    /// Open connections.
    pub(crate) connections: u64,
    /// Sessions held.
    pub(crate) sessions: u64,
    /// How often the slot's worker ended without being asked to.
    pub(crate) restarts: u64,
    /// The latest entry of the log that it has heard; none of a worker that does not tell.
    #[serde(default)]
    pub(crate) log_position: Option<String>,
}

impl Worker {
    /// How many entries of the log, up to `head`, it has not heard; `None` if it does not tell.
    pub(crate) fn behind(&self, head: Offset) -> Option<u64> {
        let position: Offset = self.log_position.as_ref()?.parse().ok()?;
        Some(if position.epoch() == head.epoch() {
            head.seq().saturating_sub(position.seq())
        } else if position.epoch() > head.epoch() {
            0
        } else {
            head.seq()
        })
    }

    /// Whether it serves clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.state == "ready"
    }
}

impl Fleet {
    /// Slots with a worker that serves.
    pub(crate) fn ready_slots(&self) -> Vec<u16> {
        let mut slots: Vec<u16> = self.workers.iter().filter(|w| w.is_ready()).map(|w| w.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// All slots.
    pub(crate) fn slots(&self) -> Vec<u16> {
        let mut slots: Vec<u16> = self.workers.iter().map(|worker| worker.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

/// The slot in the name of an incarnation, such as `k3f9x2ab-2.17`.
pub(crate) fn slot_of(incarnation: &str) -> Option<u16> {
    let (_, slot_and_spawn) = incarnation.rsplit_once('-')?;
    slot_and_spawn.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_in_the_name() {
        assert_eq!(slot_of("k3f9x2ab-2.17"), Some(2));
        assert_eq!(slot_of("somebody"), None);
    }
}
