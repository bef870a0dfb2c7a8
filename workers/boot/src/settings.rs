//! The checked configuration as a worker sees it. `src/config` builds it from defaults, file,
//! environment and flags; nothing here is re-checked later. The doc comment of a field is what the
//! reference `supervisor.toml` says about its key.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod limits;

pub use limits::Limits;

/// A text that must not be shown: `Debug` masks it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself; for use, never for display.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything a worker needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `[engine]`: Engine.IO.
    pub engine: Engine,
    /// `[socket]`: Socket.IO.
    pub socket: Socket,
    /// `[http]`: HTTP/1.1, CORS and origins.
    pub http: Http,
    /// `[redis]`; absent when `enabled = false`: one worker over the in-memory twin.
    pub redis: Option<Redis>,
    /// `[log]`: the ordered message log.
    pub log: Log,
    /// `[recovery]`: connection state recovery.
    pub recovery: Recovery,
    /// `[limits]`.
    pub limits: Limits,
    /// `[trace]`: notes about the lives of sessions.
    #[serde(default)]
    pub trace: Trace,
    /// `[app]`.
    pub app: App,
    /// `[checks.NAME]`: further readiness checks, by name.
    pub checks: BTreeMap<String, Check>,
    /// `[emit]`: sources of events from outside.
    pub emit: Emit,
    /// `[admin]`.
    #[serde(default)]
    pub admin: Admin,
    /// `[diagnostics]`.
    pub diagnostics: Diagnostics,
    /// `[logging]`.
    pub logging: Logging,
    /// `[security]` findings of `src/config`; readiness shows them as `security_validated`.
    pub security: Security,
}

/// `[engine]`: Engine.IO v4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// `path`: where clients connect; begins and ends with `/`. Default `/socket.io/`.
    pub path: String,
    /// `ping_interval_ms`: between the server's pings. Default 25 000.
    pub ping_interval: Duration,
    /// `ping_timeout_ms`: how long a pong may take. Default 20 000.
    pub ping_timeout: Duration,
    /// `upgrade_timeout_ms`: how long a probe may wait for its upgrade packet. Default 10 000.
    pub upgrade_timeout: Duration,
    /// `max_payload_bytes`: largest request body and WebSocket message. Default 1 000 000.
    pub max_payload_bytes: usize,
    /// `transports`: `polling`, `websocket` or both. Default both.
    pub polling: bool,
    /// See `polling`.
    pub websocket: bool,
    /// `allow_upgrades`: offer the upgrade from polling to WebSocket. Default true.
    pub allow_upgrades: bool,
    /// `cookie`: name of the cookie that carries the sid on the handshake; off by default.
    pub cookie: Option<Cookie>,
}

/// `[engine.cookie]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cookie {
    /// `name`. Default `io`.
    pub name: String,
    /// `path`. Default `/`.
    pub path: String,
    /// `http_only`. Default true.
    pub http_only: bool,
    /// `same_site`: `strict`, `lax` or `none`. Default `lax`.
    pub same_site: SameSite,
    /// `secure`. Default false; required by browsers when `same_site = "none"`.
    pub secure: bool,
}

/// The `SameSite` attribute of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of RFC 6265bis")]
pub enum SameSite {
    Lax,
    None,
    Strict,
}

/// Default of a key that the supervisor of an older build does not know.
const fn connect_bytes_max() -> usize {
    16 * 1024
}

/// `[socket]`: Socket.IO v5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Socket {
    /// `connect_timeout_ms`: a client that joined no namespace by then is closed. Default 45 000.
    pub connect_timeout: Duration,
    /// `connect_bytes_max`: a message or a body of a client that has joined no namespace yet. Default 16 KiB.
    #[serde(default = "connect_bytes_max")]
    pub connect_bytes_max: usize,
    /// `namespaces`: the list that exists, or `"*"` for all. Default `["/"]`.
    pub namespaces: Namespaces,
    /// `namespaces_max`: namespaces one client may join. Default 32.
    pub namespaces_max: usize,
    /// `rooms_max`: rooms one socket may be in. Default 128.
    pub rooms_max: usize,
    /// `room_bytes_max`: longest room name. Default 256.
    pub room_bytes_max: usize,
    /// `attachments_max`: binary attachments of one packet. Default 10.
    pub attachments_max: usize,
    /// `attachment_bytes_max`: all attachments of one packet together. Default 1 000 000.
    pub attachment_bytes_max: usize,
}

/// Which namespaces exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespaces {
    /// Any name that a client asks for.
    All,
    /// Only these; `/` is not implied.
    Only(Vec<String>),
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// `header_timeout_ms`: a request head must be complete by then. Default 10 000.
    pub header_timeout: Duration,
    /// `body_timeout_ms`: a request body must be complete by then. Default 30 000.
    pub body_timeout: Duration,
    /// `keepalive_timeout_ms`: a connection without a request is closed after it. Default 30 000.
    #[serde(default = "keepalive_timeout")]
    pub keepalive_timeout: Duration,
    /// `header_bytes_max`: size of a request head. Default 16 384.
    pub header_bytes_max: usize,
    /// `compression`: gzip polls for clients that accept it. Default true.
    pub compression: bool,
    /// `compression_bytes_min`: smaller polls are sent as they are. Default 1 024.
    pub compression_bytes_min: usize,
    /// `origins`: allowed `Origin` values for CORS and WebSocket. Default none configured: no CORS headers, and WebSockets
    /// only for pages of the requested host and port.
    pub origins: Origins,
    /// `credentials`: send `Access-Control-Allow-Credentials`. Default false; refused with `"*"`.
    pub credentials: bool,
    /// `trusted_proxies`: whose `X-Forwarded-For` tells a client's address, and whose `X-Anyworker-Request` the id of a
    /// request. Default: none.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
}

/// What a supervisor of a build without this setting does not say.
const fn keepalive_timeout() -> Duration {
    Duration::from_secs(30)
}

/// Which web pages may talk to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origins {
    /// `"*"`: any.
    Any,
    /// These, and for WebSockets pages of the requested host and port: as [`crate::origin::normal`] writes them.
    Only(Vec<String>),
    /// No CORS headers; a WebSocket's Origin must be absent or name the requested host.
    SameOrigin,
}

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redis {
    /// How to reach it.
    pub endpoint: RedisEndpoint,
    /// `db`: number of the database. Default 0.
    pub db: i64,
    /// Of the URL.
    pub username: Option<String>,
    /// Of the URL, decoded.
    pub password: Option<Secret>,
    /// `ca_file`: certificates that are trusted instead of the public ones. Written only if it is set: an older build knows
    /// no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// `pool_size`: connections per worker, besides the tailer's. Default 4.
    pub pool_size: usize,
    /// `connect_timeout_ms`. Default 2 000.
    pub connect_timeout: Duration,
    /// `response_timeout_ms`: a command not answered by then has failed. Default 2 000.
    pub response_timeout: Duration,
    /// `prefix`: first part of every key, of the session keys too. Default `socketio`.
    pub prefix: String,
}

/// Where Redis listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisEndpoint {
    /// `redis://host:port`
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `rediss://host:port`: TLS, certificate checked against the public roots.
    Tls {
        /// Name, as in the certificate.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:///path` or `redis+unix:///path`; also the managed Redis.
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

impl fmt::Display for Redis {
    /// The URL without its password, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = match (&self.username, &self.password) {
            (user, Some(_)) => format!("{}:***@", user.as_deref().unwrap_or_default()),
            (Some(user), None) => format!("{user}@"),
            (None, None) => String::new(),
        };
        // Only an IPv6 address has colons.
        let bracketed = |host: &str| {
            if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            }
        };
        match &self.endpoint {
            RedisEndpoint::Tcp { host, port } => write!(f, "redis://{user}{}:{port}/{}", bracketed(host), self.db),
            RedisEndpoint::Tls { host, port } => write!(f, "rediss://{user}{}:{port}/{}", bracketed(host), self.db),
            RedisEndpoint::Unix { path } => write!(f, "unix://{user}{}?db={}", path.display(), self.db),
        }
    }
}

/// `[log]`: the ordered message log in Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// `entries_max`: entries kept in Redis (approximately). Default 100 000.
    pub entries_max: u64,
    /// `bytes_max`: bytes of entries kept in Redis. Default 256 MiB.
    #[serde(default = "log_bytes_max")]
    pub bytes_max: u64,
    /// `age_max_ms`: older entries are trimmed (approximately). Default 300 000.
    pub age_max: Duration,
    /// `entry_bytes_max`: a larger publish is refused. Default 1 000 000.
    pub entry_bytes_max: usize,
    /// `ring_bytes_max`: recent entries kept in each worker's memory. Default 16 MiB.
    pub ring_bytes_max: usize,
    /// `queue_bytes_max`: publishes waiting for Redis in one worker; beyond it they fail. Default 8 MiB.
    pub queue_bytes_max: usize,
    /// `publish_timeout_ms`: a publish not in the log by then fails. Default 10 000.
    pub publish_timeout: Duration,
    /// `canary_interval_ms`: how often a canary passes through the log. Default 5 000.
    pub canary_interval: Duration,
    /// `canary_overdue_ms`: a worker that saw none for this long is not ready. Default 15 000.
    pub canary_overdue: Duration,
}

/// Of a supervisor that knows no `log.bytes_max`.
const fn log_bytes_max() -> u64 {
    256 << 20
}

/// `[recovery]`: connection state recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// `enabled`. Default true.
    pub enabled: bool,
    /// `window_ms`: how long a lost client may come back to its session. Default 120 000.
    pub window: Duration,
    /// `offsets`: whether events carry their offset as last argument. Default `auto`.
    pub offsets: Offsets,
    /// `entries_max`: a client that missed more gets a new session. Default 10 000.
    pub entries_max: usize,
}

/// When events carry their offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offsets {
    /// Always.
    Always,
    /// For clients that are known to understand it, or that ask.
    Auto,
    /// Never; then no client can recover.
    Never,
}

/// `[trace]`: notes about the lives of sessions, for `anyworker trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// `level`: what is noted. Default `requests`.
    pub level: TraceLevel,
    /// `bytes_max`: of notes that are kept in Redis; the oldest go. Default 32 MiB.
    pub bytes_max: u64,
    /// `age_max_ms`: older notes go. Default 3 600 000.
    pub age_max: Duration,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            level: TraceLevel::Off,
            bytes_max: 32 * 1024 * 1024,
            age_max: Duration::from_secs(3_600),
        }
    }
}

/// What is noted about sessions; each level with what the one before notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceLevel {
    /// Nothing.
    Off,
    /// Their beginnings, namespaces, rooms, upgrades, moves, resumes, ends.
    Sessions,
    /// Each request of those that poll.
    Requests,
}

/// `[app]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// `kind`: the application.
    pub kind: AppKind,
    /// `[app.events]`: names of the relay's events.
    pub events: Events,
}

/// Which application runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppKind {
    /// Processes of its own, behind the application link.
    External,
    /// Rooms, publish and echo.
    Relay,
}

/// `[app.events]`: what the relay's events are called on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// `join`. Default `join`.
    pub join: String,
    /// `leave`. Default `leave`.
    pub leave: String,
    /// `publish`. Default `publish`.
    pub publish: String,
    /// `echo`. Default `echo`.
    pub echo: String,
    /// `message`: what members receive. Default `message`.
    pub message: String,
}

/// `[checks.NAME]`: one more readiness check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked.
    pub probe: Probe,
    /// `timeout_ms`. Default 2 000.
    pub timeout: Duration,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `http = "http://host:port/path"`: a GET answers 2xx.
    Http {
        /// Host and port.
        authority: String,
        /// Path and query.
        path: String,
    },
    /// `tcp = "host:port"`: a connection opens.
    Tcp {
        /// Host and port.
        address: String,
    },
    /// `writable_path = "/path"`: a file can be created there.
    WritablePath {
        /// A directory.
        path: PathBuf,
    },
}

/// `[emit]`: how others emit to our clients. An empty name turns a source off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emit {
    /// `secret`: bearer token of `POST /api/emit`, 16 characters at least; without one there is no such path.
    pub secret: Option<Secret>,
    /// `stream`: Redis stream of plain JSON events; what is taken from it is deleted. Default `socketio:ingest`.
    pub stream: String,
    /// `python_channel`: channel of python-socketio's managers. Default `socketio`.
    pub python_channel: String,
    /// `node_prefix`: first part of the channels of `@socket.io/redis-emitter`. Default `socket.io`.
    pub node_prefix: String,
    /// `node_stream`: stream of servers with `@socket.io/redis-streams-adapter`. Default `socket.io`.
    pub node_stream: String,
}

/// `[admin]`: what the public port answers besides clients. The admin listener answers all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// `public_health`: `/api/live` and `/api/ready`. Default true.
    pub public_health: bool,
    /// `public_emit`: `/api/emit`. Default true.
    pub public_emit: bool,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            public_health: true,
            public_emit: true,
        }
    }
}

/// `[diagnostics]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// `engine_echo`: path of an Engine.IO endpoint that returns every message. Off by default.
    pub engine_echo: Option<String>,
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// `level`: `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub level: String,
    /// `format`: `text`, `json`, or `auto` (text on a terminal). Resolved here.
    pub json: bool,
    /// `connections`: one INFO line per connect, join and disconnect. Default false.
    pub connections: bool,
}

/// What `src/config` found out about the installation's security.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Each real check by name and whether it passed; `security_validated` is true only if all did.
    pub checks: BTreeMap<String, bool>,
    /// Addresses that the service listens on.
    pub listen: Vec<SocketAddr>,
}
