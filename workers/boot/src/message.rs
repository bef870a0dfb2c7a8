//! What supervisor and worker say to each other.

use crate::handover::Handover;
use crate::settings::Settings;
use crate::version::VERSION;
use meter::Snapshot;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// No control message is longer (bytes); a longer one is a bug and is refused by [`encode`].
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Names one life of one worker, unique across hosts and restarts: leases carry it, so that a
/// lease held by a dead worker can be told from one held by a living worker.
/// Form: `<supervisor instance>-<slot>.<spawn count>`, for example `k3f9x2ab-2.17`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(String);

impl Incarnation {
    /// `instance` is the random name of this run of the supervisor, `spawn` counts its spawns.
    #[must_use]
    pub fn new(instance: &str, slot: u16, spawn: u64) -> Self {
        Self(format!("{instance}-{slot}.{spawn}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything a worker receives at its start, through the memfd [`crate::fd::SETUP`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The numbered place that the worker fills.
    pub slot: u16,
    /// The accepted configuration and binary that it runs.
    pub generation: u64,
    /// Its own name.
    pub incarnation: Incarnation,
    /// Workers the fleet is to have (for `multi_worker_support`).
    pub workers: u16,
    /// How many listeners were inherited, from [`crate::fd::LISTENERS`] on.
    pub listeners: u16,
    /// Whether the admin listener was inherited, after them.
    #[serde(default)]
    pub admin: bool,
    /// Whether the supervisor understands [`ToSupervisor::Metrics`]; one of an older build does not.
    #[serde(default)]
    pub metrics: bool,
    /// The checked configuration.
    pub settings: Settings,
}

/// From supervisor to worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// Stop accepting (but see `last`), answer parked polls, close WebSockets one by one within `grace_ms`, exit.
    Drain {
        /// Milliseconds from now after which the worker is killed.
        grace_ms: u64,
        /// Milliseconds of these in which nothing changes but readiness: what sends clients here
        /// has time to see it.
        #[serde(default)]
        notice_ms: u64,
        /// No process accepts from the listeners afterwards: new connections are accepted meanwhile, and told to try later.
        #[serde(default)]
        last: bool,
    },
    /// Move WebSockets, with everything that is on their way, to the worker at the other end of the
    /// socket that comes with this message (`SCM_RIGHTS`, unix(7)). Answered by
    /// [`ToSupervisor::Given`]; a worker that does not know this order drains as usual.
    Give {
        /// So many at most.
        most: u64,
        /// A [`Self::Drain`] follows, and this is done then.
        leaving: bool,
    },
    /// Accept from the listeners that come with this message, too (`SCM_RIGHTS`, unix(7)): no worker
    /// serves their slot. What they accept is this worker's own.
    Lend {
        /// Whose they are.
        slot: u16,
    },
    /// Accept no longer from what was lent: the slot has a worker again.
    Recall {
        /// Whose they are.
        slot: u16,
    },
    /// What the fleet has counted: a memfd with a [`meter::Report`] as JSON comes with this message.
    Scraped {
        /// Of the [`ToSupervisor::Scrape`].
        id: u64,
    },
    /// Close everything now and exit; a second signal, or `SIGQUIT`.
    Stop,
    /// Serve the WebSockets that the worker at the other end of the socket that comes with this
    /// message hands over.
    Take,
    /// A worker of this host died: what it held is void.
    WorkerGone {
        /// The dead worker.
        incarnation: Incarnation,
    },
}

/// From worker to supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// Runtime up, a write to Redis done and heard of in the log, listener registered: clients are served.
    Ready {
        /// [`crate::VERSION`] of the worker's binary.
        #[serde(default)]
        version: String,
    },
    /// The worker cannot serve and exits with `code`; `reason` is for the operator.
    Failed {
        /// An [`crate::Exit`] code.
        code: u8,
        /// One line: what failed, on what, and what to do about it. No secrets.
        reason: String,
    },
    /// Not ready because a dependency (Redis) is not there: killing the worker would not bring it
    /// back. Said when a reason is known, and again every [`ToSupervisor::WAITING_EVERY_MS`] as long as it is so.
    Waiting {
        /// One line for the operator: on what, and why. No secrets. Empty of a worker of an older build.
        #[serde(default)]
        reason: String,
    },
    /// Sign of life, sent by the event loop every [`Beat::EVERY_MS`].
    Beat(Beat),
    /// What was to be given is given, and stored as the other worker's; or it could not be.
    Given(Handover),
    /// What the worker has counted since its birth; the latest one counts. Said every
    /// [`ToSupervisor::METRICS_EVERY_MS`], before a [`Self::Scrape`], and at the end.
    Metrics(Snapshot),
    /// Asks for what the whole fleet has counted. Answered by [`ToWorker::Scraped`].
    Scrape {
        /// Of this question.
        id: u64,
    },
    /// Draining has ended; the worker exits next.
    Drained {
        /// WebSockets closed with 1012.
        closed: u64,
        /// Connections cut at the end of the grace.
        cut: u64,
    },
}

impl ToSupervisor {
    /// [`ToSupervisor::Ready`] of this very binary.
    #[must_use]
    pub fn ready() -> Self {
        Self::Ready {
            version: VERSION.to_owned(),
        }
    }

    /// Milliseconds between two [`ToSupervisor::Waiting`].
    pub const WAITING_EVERY_MS: u64 = 1000;
    /// Milliseconds between two [`ToSupervisor::Metrics`]: the counts of a killed worker since the last one are lost.
    pub const METRICS_EVERY_MS: u64 = 1000;
}

/// A heartbeat: what the supervisor shows in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Open TCP connections.
    pub connections: u64,
    /// Sessions held here: WebSocket sessions and parked polls.
    pub sessions: u64,
    /// How late the event loop ran its last beat (microseconds).
    pub lag_us: u64,
    /// WebSockets, of the connections.
    #[serde(default)]
    pub sockets: u64,
    /// Whether the worker's own readiness checks pass: all but those that are configured.
    pub ready: bool,
    /// Checks of `/api/ready` that do not pass, by name, [`Beat::FAILING_MAX`] at most. A configured one is among them
    /// until it has passed for the first time.
    #[serde(default)]
    pub failing: Vec<String>,
    /// Resident memory.
    #[serde(default)]
    pub rss_bytes: u64,
    /// Epoch and number of the latest entry of the log that this worker has heard.
    #[serde(default)]
    pub log_epoch: u64,
    /// See `log_epoch`.
    #[serde(default)]
    pub log_seq: u64,
    /// Nothing is heard of the log, although Redis answers.
    #[serde(default, rename = "deaf")]
    pub log_stalled: bool,
}

impl Beat {
    /// Milliseconds between two beats.
    pub const EVERY_MS: u64 = 250;
    /// Names in `failing`: a control message has its limit, the number of checks has none.
    pub const FAILING_MAX: usize = 16;
}

/// A control message could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The bytes are not a message of this version.
    #[error("control message not understood: {0}")]
    Decode(serde_json::Error),
    /// The value could not be written as JSON.
    #[error("control message not encodable: {0}")]
    Encode(serde_json::Error),
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("control message of {0} bytes is longer than {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
}

/// The bytes of one control message.
///
/// # Errors
/// [`MessageError::TooLong`] beyond [`MESSAGE_BYTES_MAX`]; [`MessageError::Encode`] never for the
/// types of this crate.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = serde_json::to_vec(message).map_err(MessageError::Encode)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// The message in these bytes.
///
/// # Errors
/// [`MessageError::Decode`] when they are none.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    serde_json::from_slice(bytes).map_err(MessageError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let gone = ToWorker::WorkerGone {
            incarnation: Incarnation::new("abc", 3, 7),
        };
        assert_eq!(decode::<ToWorker>(&encode(&gone).unwrap()).unwrap(), gone);
        let beat = ToSupervisor::Beat(Beat {
            connections: 1,
            sessions: 2,
            lag_us: 3,
            sockets: 5,
            ready: true,
            failing: vec!["database".to_owned()],
            rss_bytes: 4,
            log_epoch: 6,
            log_seq: 7,
            log_stalled: true,
        });
        assert_eq!(decode::<ToSupervisor>(&encode(&beat).unwrap()).unwrap(), beat);
    }

    #[test]
    fn counts_survive_the_wire() {
        let mut snapshot = Snapshot::default();
        snapshot.count("gw_events_in_total", "", 3);
        snapshot.gauge("gw_connections", "transport=http", 2.0);
        let said = ToSupervisor::Metrics(snapshot);
        assert_eq!(decode::<ToSupervisor>(&encode(&said).unwrap()).unwrap(), said);
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let reason = "x".repeat(MESSAGE_BYTES_MAX);
        assert!(matches!(
            encode(&ToSupervisor::Failed { code: 70, reason }),
            Err(MessageError::TooLong(_))
        ));
    }
}
