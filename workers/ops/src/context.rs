//! What every command is given: the checked configuration, and the way to the supervisor.

use crate::fleet::Fleet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use store::{IngestNames, Inspector, NoteBounds, RedisOptions, StoreError};

/// Fields of `INFO` that are `err` when Redis could not write to its disk.
pub(crate) const DISK_FIELDS: [&str; 3] = [
    "aof_last_write_status",
    "aof_last_bgrewrite_status",
    "rdb_last_bgsave_status",
];

/// Configuration and surroundings of a command.
pub struct Context {
    /// Addresses that the fleet listens on.
    pub listen: Vec<SocketAddr>,
    /// Workers that are to run.
    pub workers: u16,
    /// `workers.grace_ms`: how long a worker may drain.
    pub grace: Duration,
    /// The Redis of the fleet; none if it is disabled: then sessions are in the memory of one worker.
    pub redis: Option<Redis>,
    /// How clients talk.
    pub engine: Engine,
    /// What is bounded.
    pub limits: Limits,
    /// `emit.secret`.
    pub emit_secret: Option<String>,
    /// What the configuration says about its own security, as in `/api/ready`.
    pub security: Vec<SecurityCheck>,
    /// How much is kept of notes about sessions; none if nothing is to be noted.
    pub notes: Option<NoteBounds>,
    /// Where control socket and managed Redis are.
    pub runtime_directory: PathBuf,
    /// Asks the supervisor for what `status --json` prints; blocks for a moment.
    pub status: Box<dyn Fn() -> Result<String, StatusError>>,
}

/// How the fleet reaches its Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The way there.
    pub options: RedisOptions,
    /// Whether the supervisor runs it.
    pub managed: bool,
    /// Where it keeps its files, if the supervisor runs it.
    pub directory: Option<PathBuf>,
    /// First part of every key.
    pub prefix: String,
    /// What is read there of others.
    pub ingest: IngestNames,
    /// The URL without its password, for messages.
    pub url: String,
}

/// How clients talk to the fleet.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Where they connect; begins and ends with `/`.
    pub path: String,
    /// `engine.ping_interval_ms`.
    pub ping_interval: Duration,
    /// Whether polling is allowed.
    pub polling: bool,
    /// Whether WebSockets are.
    pub websocket: bool,
    /// A namespace that exists.
    pub namespace: String,
    /// Event that joins a room.
    pub join: String,
    /// Event that publishes to a room.
    pub publish: String,
    /// Event that members receive.
    pub message: String,
}

impl Engine {
    /// What a packet of the namespace begins with, behind its type: nothing, or `/name,`.
    pub(crate) fn prefix(&self) -> String {
        match self.namespace.as_str() {
            "/" => String::new(),
            name => format!("{name},"),
        }
    }
}

/// Limits that commands measure against.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `limits.connections_max`: TCP connections per worker.
    pub connections_max: usize,
    /// Descriptors that a worker keeps from its clients.
    pub descriptors_reserved: u64,
    /// `log.entries_max`.
    pub log_entries_max: u64,
    /// What Redis needs at least if the log is as large as it may be.
    pub redis_bytes_min: u64,
    /// `log.entry_bytes_max`.
    pub entry_bytes_max: usize,
    /// `log.canary_overdue_ms`.
    pub canary_overdue: Duration,
    /// How long the record of a silent session is kept.
    pub session_ttl: Duration,
}

/// A check of `security_checks` in `/api/ready`.
#[derive(Clone, Debug)]
pub struct SecurityCheck {
    /// Its name.
    pub name: String,
    /// Whether it passes.
    pub passed: bool,
    /// Why it does not, and the remedy.
    pub reason: String,
}

/// No supervisor answers.
#[derive(Debug)]
pub struct StatusError {
    /// Why, and what to do about it.
    pub reason: String,
    /// This user may not ask: one may run all the same.
    pub is_forbidden: bool,
}

impl StatusError {
    /// One that has nothing to do with rights.
    #[must_use]
    pub const fn new(reason: String) -> Self {
        Self {
            reason,
            is_forbidden: false,
        }
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Redis {
    /// A connection for an operator; made when it is first used.
    ///
    /// # Errors
    /// When the address makes no sense.
    pub(crate) fn inspector(&self) -> Result<Inspector, StoreError> {
        Inspector::new(self.options.clone(), &self.prefix)
    }
}

impl Context {
    /// What the supervisor of this machine says.
    ///
    /// # Errors
    /// When none answers, or it speaks another version's language.
    pub(crate) fn fleet(&self) -> Result<Fleet, StatusError> {
        let text = (self.status)()?;
        serde_json::from_str(&text).map_err(|error| StatusError::new(format!("status of the supervisor: {error}")))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("listen", &self.listen)
            .field("workers", &self.workers)
            .field("redis", &self.redis)
            .field("runtime_directory", &self.runtime_directory)
            .finish_non_exhaustive()
    }
}
