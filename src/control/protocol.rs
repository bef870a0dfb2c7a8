//! Request and answer.

use crate::fleet::{Progress, Row, Snapshot};
use crate::sys::redis::RedisStatus;
use crate::sys::usage::Usage;
use boot::Handover;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// No request is longer (bytes).
pub(crate) const REQUEST_BYTES_MAX: usize = 4_096;
/// No answer is longer (bytes).
pub(crate) const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Check the configuration and replace the workers.
    Reload {
        /// Answer when it has ended, not when it was accepted.
        wait: bool,
    },
    /// Even connections out; answered when it is done.
    Rebalance,
    /// Sets the number of slots.
    Scale {
        /// How many.
        workers: u16,
    },
    /// Show the fleet.
    Status,
    /// Go on as the binary on disk, and replace the workers.
    Upgrade {
        /// Answer when it has ended, not when it was accepted.
        wait: bool,
    },
    /// End.
    Stop {
        /// Without draining.
        fast: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether the request was fulfilled, or accepted where that is all there is.
    pub(crate) ok: bool,
    /// For the operator: what happened, or every fault.
    pub(crate) lines: Vec<String>,
    /// For [`Request::Status`].
    pub(crate) status: Option<Status>,
}

impl Answer {
    /// It was done.
    pub(crate) fn done(line: impl Into<String>) -> Self {
        Self {
            ok: true,
            lines: vec![line.into()],
            status: None,
        }
    }

    /// It was not.
    pub(crate) fn refused(lines: Vec<String>) -> Self {
        Self {
            ok: false,
            lines,
            status: None,
        }
    }
}

/// The shape of `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The supervisor.
    pub(crate) supervisor: SupervisorStatus,
    /// One entry for each process, and one for each slot without any.
    pub(crate) workers: Vec<WorkerStatus>,
}

/// `supervisor`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SupervisorStatus {
    /// Process id.
    pub(crate) pid: u32,
    /// What its binary calls itself.
    pub(crate) version: String,
    /// The current generation.
    pub(crate) generation: u64,
    /// `booting`, `serving`, `degraded`, `reloading` or `stopping`.
    pub(crate) state: String,
    /// Whole seconds since the start.
    pub(crate) uptime_s: u64,
    /// How the last reload ended, or why it was refused; null before the first.
    pub(crate) last_reload: Option<String>,
    /// The live connections that were to move in the latest reload or rebalance; null before the first.
    pub(crate) last_handover: Option<HandoverStatus>,
    /// How far the reload is that runs; null without one.
    #[serde(default)]
    pub(crate) reload: Option<ReloadStatus>,
    /// Lines of the log, of supervisor and workers, that could not be written.
    #[serde(default)]
    pub(crate) log_lines_dropped: u64,
    /// The managed Redis; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) redis: Option<RedisStatus>,
}

/// `reload`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReloadStatus {
    /// The generation that every slot is to run.
    pub(crate) to: u64,
    /// `canary`: the first new worker proves itself; `replacing`; `back`: it failed, and what ran before comes back.
    pub(crate) stage: String,
    /// Slots that run it.
    pub(crate) done: u16,
    /// Slots that are to.
    pub(crate) slots: u16,
}

impl From<Progress> for ReloadStatus {
    fn from(progress: Progress) -> Self {
        let Progress { to, stage, done, slots } = progress;
        Self {
            to,
            stage: stage.to_owned(),
            done,
            slots,
        }
    }
}

/// `last_handover`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandoverStatus {
    /// Moved to another worker.
    pub(crate) moved: u64,
    /// Not moved, by reason: drained if their worker left.
    pub(crate) stayed: BTreeMap<String, u64>,
    /// Longest time in which one worker moved its connections (microseconds).
    pub(crate) took_us: u64,
    /// How long a connection was still: median, 99th percentile, longest (microseconds).
    pub(crate) freeze_p50_us: u64,
    pub(crate) freeze_p99_us: u64,
    pub(crate) freeze_max_us: u64,
}

impl From<Handover> for HandoverStatus {
    fn from(handover: Handover) -> Self {
        Self {
            moved: handover.moved,
            took_us: handover.took_us,
            freeze_p50_us: handover.freeze.quantile_us(0.5),
            freeze_p99_us: handover.freeze.quantile_us(0.99),
            freeze_max_us: handover.freeze.max_us,
            stayed: handover.stayed,
        }
    }
}

/// An entry of `workers`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    /// Number of the slot.
    pub(crate) slot: u16,
    /// Process id; null for a slot without a process.
    pub(crate) pid: Option<i32>,
    /// What it runs.
    pub(crate) generation: u64,
    /// What its binary calls itself; null before it was ready.
    pub(crate) version: Option<String>,
    /// `booting`, `ready`, `unready` (it serves, and `/api/ready` is 503 now), `lagging`, `aborting`, `exiting`, `draining`,
    /// `stopping`, `killed`, or without a process `backoff`, `parked`, `empty`.
    pub(crate) state: String,
    /// Checks of `/api/ready` that do not pass.
    #[serde(default)]
    pub(crate) failing: Vec<String>,
    /// Open connections.
    pub(crate) connections: u64,
    /// Sessions held.
    pub(crate) sessions: u64,
    /// How often the slot's worker ended without being asked to.
    pub(crate) restarts: u64,
    /// How the slot's last worker ended.
    pub(crate) last_exit: Option<String>,
    /// CPU in the last second or two, in hundredths of one CPU; null without a process, and in its first second.
    #[serde(default)]
    pub(crate) cpu_percent: Option<f64>,
    /// Resident memory; null without a process.
    #[serde(default)]
    pub(crate) rss_bytes: Option<u64>,
    /// How late its event loop ran its last heartbeat (microseconds); null without a process.
    #[serde(default)]
    pub(crate) lag_us: Option<u64>,
    /// The latest entry of the log that it has heard; null before its first heartbeat.
    #[serde(default)]
    pub(crate) log_position: Option<String>,
    /// It gives its live connections to another worker.
    #[serde(default)]
    pub(crate) handing_over: bool,
}

impl Status {
    /// Of a fleet, with what only the shell knows.
    pub(crate) fn new(
        snapshot: Snapshot,
        usages: &BTreeMap<i32, Usage>,
        uptime: Duration,
        last_reload: Option<String>,
        redis: Option<RedisStatus>,
    ) -> Self {
        let supervisor = SupervisorStatus {
            pid: std::process::id(),
            version: boot::VERSION.to_owned(),
            generation: snapshot.generation,
            state: snapshot.state.name().to_owned(),
            uptime_s: uptime.as_secs(),
            last_reload,
            last_handover: snapshot.handover.map(HandoverStatus::from),
            reload: snapshot.reload.map(ReloadStatus::from),
            log_lines_dropped: 0,
            redis,
        };
        Self {
            supervisor,
            workers: snapshot
                .rows
                .into_iter()
                .map(|row| {
                    let usage = row.pid.and_then(|pid| usages.get(&pid)).copied();
                    WorkerStatus::new(row, usage.unwrap_or_default())
                })
                .collect(),
        }
    }

    /// Every slot has a worker that serves, and nothing is wrong with the fleet as a whole.
    pub(crate) fn is_healthy(&self) -> bool {
        let serving = matches!(self.supervisor.state.as_str(), "serving" | "reloading");
        let mut slots: Vec<u16> = self.workers.iter().map(|worker| worker.slot).collect();
        slots.dedup();
        let ready = |slot: &u16| {
            self.workers
                .iter()
                .any(|worker| worker.slot == *slot && worker.state == "ready")
        };
        serving && slots.iter().all(ready)
    }
}

impl WorkerStatus {
    fn new(row: Row, usage: Usage) -> Self {
        let Row {
            slot,
            pid,
            generation,
            version,
            state,
            failing,
            connections,
            sessions,
            restarts,
            last_exit,
            lag_us,
            log_position,
            handing_over,
        } = row;
        Self {
            slot,
            pid,
            generation,
            version,
            state: state.to_owned(),
            failing,
            connections,
            sessions,
            restarts,
            last_exit,
            cpu_percent: usage.cpu_permille.map(|permille| f64::from(permille) / 10.0),
            rss_bytes: usage.rss_bytes,
            lag_us,
            log_position: log_position.map(|(epoch, seq)| format!("{epoch}-{seq}")),
            handing_over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::FleetState;

    #[test]
    fn the_shape_of_status_is_fixed() {
        let row = Row {
            slot: 0,
            pid: Some(7),
            generation: 2,
            version: None,
            state: "backoff",
            failing: Vec::new(),
            connections: 0,
            sessions: 0,
            restarts: 3,
            last_exit: Some("signal 9 (SIGKILL)".to_owned()),
            lag_us: Some(80),
            log_position: Some((1_764_000_000_000, 5)),
            handing_over: false,
        };
        let snapshot = Snapshot {
            generation: 2,
            state: FleetState::Serving,
            handover: None,
            reload: None,
            rows: vec![row],
        };
        let usage = Usage {
            cpu_permille: Some(125),
            rss_bytes: Some(4_096),
        };
        let status = Status::new(
            snapshot,
            &BTreeMap::from([(7, usage)]),
            Duration::from_secs(5),
            None,
            None,
        );
        assert!(!status.is_healthy());
        let expected = format!(
            r#"{{"supervisor":{{"pid":{},"version":"{}","generation":2,"state":"serving","uptime_s":5,"last_reload":null,"last_handover":null,"reload":null,"log_lines_dropped":0}},"workers":[{{"slot":0,"pid":7,"generation":2,"version":null,"state":"backoff","failing":[],"connections":0,"sessions":0,"restarts":3,"last_exit":"signal 9 (SIGKILL)","cpu_percent":12.5,"rss_bytes":4096,"lag_us":80,"log_position":"1764000000000-5","handing_over":false}}]}}"#,
            std::process::id(),
            boot::VERSION,
        );
        assert_eq!(serde_json::to_string(&status).unwrap(), expected);
    }

    #[test]
    fn requests_are_strict() {
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"command":"status"}"#).unwrap(),
            Request::Status
        );
        assert!(serde_json::from_str::<Request>(r#"{"command":"stop"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"command":"reboot"}"#).is_err());
    }
}
