//! What a worker says about its store when it opens it.

use crate::answer::Settling;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// All that the store has to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the data is.
    pub backend: Backend,
    /// The incarnation of this worker: unique among all workers that ever lived. Leases and
    /// idempotent retries go by it; it becomes part of keys, so no spaces.
    pub me: String,
    /// First part of every key. Usually `socketio`.
    pub prefix: String,
    /// Between the server's pings.
    pub ping_interval: Duration,
    /// How long a pong may take. A session that is silent for both together is over.
    pub ping_timeout: Duration,
    /// How long the record of a polling session is kept after the last sign of life; at least as long
    /// as the session lives. Longer, it can still be resumed.
    pub session_ttl: Duration,
    /// Entries of the log that are kept, approximately.
    pub log_entries_max: u64,
    /// Bytes of entries that are kept: seven eighths of it, and what the workers have not counted yet, at most a 128th of it
    /// and a batch for each.
    pub log_bytes_max: u64,
    /// Older entries of the log are trimmed, approximately (to one canary interval).
    pub log_age_max: Duration,
    /// A larger entry is refused.
    pub entry_bytes_max: usize,
    /// Entries waiting for Redis in this worker, in bytes; beyond it they are refused.
    pub queue_bytes_max: usize,
    /// An entry not confirmed by then has failed.
    pub publish_timeout: Duration,
    /// For how long an entry with the same dedupe id counts as the same.
    pub dedupe_window: Duration,
    /// How often a canary passes through the log.
    pub canary_interval: Duration,
}

impl Options {
    /// How long a session lives without a sign of life.
    #[must_use]
    pub fn liveness(&self) -> Duration {
        self.ping_interval.saturating_add(self.ping_timeout)
    }

    /// How long a session and its record are kept after a POST that prolongs them.
    pub(crate) fn lifetimes(&self, settling: Settling) -> (Duration, Duration) {
        let left = match settling {
            Settling::Still(left) => left,
            Settling::Now | Settling::Over => Duration::MAX,
        };
        (self.liveness().min(left), self.record_ttl().min(left))
    }

    /// How long the record of a polling session is kept without a sign of life.
    pub(crate) fn record_ttl(&self) -> Duration {
        self.session_ttl.max(self.liveness())
    }
}

/// Where the data is.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In this process: one worker, nothing survives it.
    Memory,
    /// In Redis (6.0 or later) or Valkey.
    Redis(RedisOptions),
}

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Number of the database.
    pub db: i64,
    /// For AUTH.
    pub username: Option<String>,
    /// For AUTH; never shown.
    pub password: Option<String>,
    /// Certificates (PEM) that are trusted for TLS instead of those of `SSL_CERT_FILE`, `SSL_CERT_DIR` or the public ones.
    pub ca_file: Option<PathBuf>,
    /// Connections besides the tailer's. Every one is shared by many commands at a time.
    pub pool_size: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// A command not answered by then has failed.
    pub response_timeout: Duration,
}

/// Where Redis listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// TLS; the certificate is checked against `ca_file`, or else the public roots.
    Tls {
        /// Name, as in the certificate.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

impl fmt::Display for Endpoint {
    /// `HOST:PORT`, or the path of the socket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Only an IPv6 address has colons.
            Self::Tcp { host, port } | Self::Tls { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } | Self::Tls { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => path.display().fmt(f),
        }
    }
}

impl fmt::Debug for RedisOptions {
    /// Masks the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("endpoint", &self.endpoint)
            .field("db", &self.db)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("ca_file", &self.ca_file)
            .field("pool_size", &self.pool_size)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let options = RedisOptions {
            endpoint: Endpoint::Unix { path: "/x".into() },
            db: 0,
            username: None,
            password: Some("hunter2".into()),
            ca_file: None,
            pool_size: 1,
            connect_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
