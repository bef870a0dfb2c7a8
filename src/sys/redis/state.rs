//! What the managed Redis is doing. Also handed to the next supervisor process: a new field needs `#[serde(default)]`.

use crate::fleet::Moment;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::os::unix::net::UnixStream;

/// What `status` says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RedisStatus {
    /// `backoff`, `evicting` (a former supervisor's is being stopped), `starting`, `running`, `silent` (it has not answered
    /// for some seconds), `stopping` or `stopped`.
    pub(crate) state: String,
    /// Process id; null without a process.
    pub(crate) pid: Option<i32>,
    /// How often it ended without being asked to.
    pub(crate) restarts: u64,
    /// How it ended last, with its own last words; null if it never did.
    pub(crate) last_exit: Option<String>,
}

/// Handed to the next supervisor process, too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum State {
    /// Not running; started at this time.
    Backoff { until: Moment },
    /// The Redis of a supervisor that was killed still runs on our files.
    Evicting {
        #[serde(with = "number")]
        pid: Pid,
        look_at: Moment,
        kill_at: Moment,
    },
    /// Started; does not answer yet.
    Starting {
        #[serde(with = "number")]
        pid: Pid,
        since: Moment,
        look_at: Moment,
        #[serde(skip)]
        probe: Option<UnixStream>,
        warned: bool,
        /// Looks in a row without an answer.
        #[serde(default)]
        silent: u32,
    },
    /// Answers.
    Running {
        #[serde(with = "number")]
        pid: Pid,
        since: Moment,
        #[serde(default)]
        watch: Watch,
    },
    /// Told to stop.
    Stopping {
        #[serde(with = "number")]
        pid: Pid,
        kill_at: Option<Moment>,
    },
    /// Gone for good.
    Stopped,
}

/// How a Redis that runs is watched.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) look_at: Moment,
    #[serde(skip)]
    pub(super) probe: Option<UnixStream>,
    /// Looks in a row without an answer.
    pub(super) silent: u32,
    /// Looks in a row that found no socket.
    pub(super) absent: u32,
    /// It was told to stop, and is killed at this time.
    pub(super) kill_at: Option<Moment>,
}

/// A process id as a number.
mod number {
    use nix::unistd::Pid;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(pid: &Pid, to: S) -> Result<S::Ok, S::Error> {
        pid.as_raw().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pid, D::Error> {
        i32::deserialize(from).map(Pid::from_raw)
    }
}
