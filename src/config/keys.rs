//! Every key that exists, with its kind, limits and default. The reference `supervisor.toml`
//! explains them; a test keeps the two equal.

use strsim::levenshtein as distance;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted name, as in `engine.ping_interval_ms`.
    pub(super) name: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
}

/// What a value may be, and its default. An empty text means off, or "choose for me".
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool(bool),
    Choice {
        default: &'static str,
        options: &'static [&'static str],
    },
    Int {
        default: u64,
        min: u64,
        max: u64,
    },
    List(&'static [&'static str]),
    Text(&'static str),
}

impl Kind {
    /// Whether an empty text is a value of its own: "off", or "choose for me".
    pub(super) fn has_empty(self) -> bool {
        matches!(self, Self::List(_) | Self::Text(_))
    }
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Every key but those of `[checks.NAME]`, grouped by section.
pub(super) static KEYS: &[Key] = &[
    list("listen.address", &["127.0.0.1:8000"]),
    int("listen.wait_ms", 0, 0, HOUR_MS),
    int("workers.count", 4, 1, 1024),
    text("workers.user", ""),
    int("workers.grace_ms", 30_000, 0, HOUR_MS),
    int("workers.boot_timeout_ms", 30_000, 100, HOUR_MS),
    int("workers.pre_drain_ms", 0, 0, HOUR_MS),
    int("workers.max_age_ms", 0, 0, 365 * DAY_MS),
    int("workers.max_rss_bytes", 0, 0, 1024 * GIB),
    int("reload.soak_ms", 1_000, 0, HOUR_MS),
    text("redis.url", ""),
    text("redis.ca_file", ""),
    bool("redis.managed", true),
    text("redis.directory", ""),
    int("redis.memory_bytes_max", 0, 0, 1_024 * GIB),
    bool("redis.enabled", true),
    int("redis.db", 0, 0, 65_535),
    int("redis.pool_size", 4, 1, 1024),
    int("redis.connect_timeout_ms", 2_000, 1, HOUR_MS),
    int("redis.response_timeout_ms", 2_000, 1, HOUR_MS),
    text("redis.prefix", "socketio"),
    text("runtime.directory", ""),
    text("engine.path", "/socket.io/"),
    int("engine.ping_interval_ms", 25_000, 1, DAY_MS),
    int("engine.ping_timeout_ms", 20_000, 1, DAY_MS),
    int("engine.upgrade_timeout_ms", 10_000, 1, HOUR_MS),
    int("engine.max_payload_bytes", 1_000_000, 1, 256 * MIB),
    list("engine.transports", &["polling", "websocket"]),
    bool("engine.allow_upgrades", true),
    text("engine.cookie.name", "io"),
    text("engine.cookie.path", "/"),
    bool("engine.cookie.http_only", true),
    choice("engine.cookie.same_site", "lax", &["lax", "none", "strict"]),
    bool("engine.cookie.secure", false),
    int("socket.connect_timeout_ms", 45_000, 1, HOUR_MS),
    int("socket.connect_bytes_max", 16_384, 4_096, 256 * MIB),
    list("socket.namespaces", &["/"]),
    int("socket.namespaces_max", 32, 1, 65_536),
    int("socket.rooms_max", 128, 1, 1_000_000),
    int("socket.room_bytes_max", 256, 1, 65_536),
    int("socket.attachments_max", 10, 0, 10_000),
    int("socket.attachment_bytes_max", 1_000_000, 0, 256 * MIB),
    int("http.header_timeout_ms", 10_000, 1, HOUR_MS),
    int("http.body_timeout_ms", 30_000, 1, HOUR_MS),
    int("http.keepalive_timeout_ms", 30_000, 1, HOUR_MS),
    // hyper refuses to work with less than 8 KiB.
    int("http.header_bytes_max", 16_384, 8_192, MIB),
    bool("http.compression", true),
    int("http.compression_bytes_min", 1_024, 0, GIB),
    list("http.origins", &[]),
    bool("http.credentials", false),
    list("http.trusted_proxies", &[]),
    int("log.entries_max", 100_000, 1, 1_000_000_000),
    int("log.bytes_max", 256 * MIB, 1, 1_024 * GIB),
    int("log.age_max_ms", 300_000, 1, 7 * DAY_MS),
    // What anyworker itself writes to the log must fit.
    int("log.entry_bytes_max", 1_000_000, 512, 256 * MIB),
    int("log.ring_bytes_max", 16 * MIB, 1, 16 * GIB),
    int("log.queue_bytes_max", 8 * MIB, 1, 16 * GIB),
    int("log.publish_timeout_ms", 10_000, 1, HOUR_MS),
    int("log.canary_interval_ms", 5_000, 10, HOUR_MS),
    int("log.canary_overdue_ms", 15_000, 20, HOUR_MS),
    bool("recovery.enabled", true),
    int("recovery.window_ms", 120_000, 1, 7 * DAY_MS),
    choice("recovery.offsets", "auto", &["always", "auto", "never"]),
    int("recovery.entries_max", 10_000, 1, 1_000_000_000),
    choice("trace.level", "requests", &["off", "sessions", "requests"]),
    int("trace.bytes_max", 32 * MIB, MIB, 16 * GIB),
    int("trace.age_max_ms", HOUR_MS, 1_000, 7 * DAY_MS),
    int("limits.connections_max", 20_000, 1, 1_000_000),
    int("limits.buffers_bytes_max", 128 * MIB, MIB, 1_024 * GIB),
    int("limits.handshakes_max", 20_000, 1, 10_000_000),
    int("limits.outbox_bytes_max", MIB, 1, 16 * GIB),
    int("limits.ws_read_buffer_bytes", 4_096, 128, 16 * MIB),
    int("limits.events_per_second", 10_000, 0, 1_000_000_000),
    int("limits.bytes_per_second", 16 * MIB, 0, 1_024 * GIB),
    choice("app.kind", "relay", &["external", "relay"]),
    text("app.events.join", "join"),
    text("app.events.leave", "leave"),
    text("app.events.publish", "publish"),
    text("app.events.echo", "echo"),
    text("app.events.message", "message"),
    text("emit.secret", ""),
    text("emit.stream", "socketio:ingest"),
    text("emit.python_channel", "socketio"),
    text("emit.node_prefix", "socket.io"),
    text("emit.node_stream", "socket.io"),
    text("admin.address", "127.0.0.1:9464"),
    bool("admin.public_health", true),
    bool("admin.public_emit", true),
    text("diagnostics.engine_echo", ""),
    choice("logging.level", "info", &["error", "warn", "info", "debug", "trace"]),
    choice("logging.format", "auto", &["text", "json", "auto"]),
    bool("logging.connections", false),
];

/// The keys of one `[checks.NAME]`.
pub(super) static CHECK_KEYS: &[Key] = &[
    text("checks.NAME.http", ""),
    text("checks.NAME.tcp", ""),
    text("checks.NAME.writable_path", ""),
    int("checks.NAME.timeout_ms", 2_000, 1, 60_000),
];

/// Keys of which a reload refuses a change, and in which case; `reactor/generation.rs` compares them.
pub(crate) static RESTART: [(&str, &str); 5] = [
    ("listen.address", ""),
    ("runtime.directory", ""),
    ("redis.managed", ""),
    ("redis.directory", ", with a managed Redis"),
    ("workers.user", ", with a managed Redis"),
];

const fn bool(name: &'static str, default: bool) -> Key {
    Key {
        name,
        kind: Kind::Bool(default),
    }
}

const fn int(name: &'static str, default: u64, min: u64, max: u64) -> Key {
    Key {
        name,
        kind: Kind::Int { default, min, max },
    }
}

const fn text(name: &'static str, default: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Text(default),
    }
}

const fn list(name: &'static str, default: &'static [&'static str]) -> Key {
    Key {
        name,
        kind: Kind::List(default),
    }
}

const fn choice(name: &'static str, default: &'static str, options: &'static [&'static str]) -> Key {
    Key {
        name,
        kind: Kind::Choice { default, options },
    }
}

/// The key of that name; `checks.ollama.http` is found under `checks.NAME.http`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    if let Some((check, field)) = name.strip_prefix("checks.").and_then(|rest| rest.split_once('.')) {
        let field = CHECK_KEYS
            .iter()
            .find(|key| key.name.strip_prefix("checks.NAME.") == Some(field));
        return field.filter(|_| !check.is_empty());
    }
    KEYS.iter().find(|key| key.name == name)
}

/// Whether keys begin with `name` and a dot.
pub(super) fn is_section(name: &str) -> bool {
    name == "checks"
        || KEYS
            .iter()
            .any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that was probably meant: the nearest spelling, or the same last part elsewhere.
pub(super) fn nearest(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if find(&lower).is_some() {
        return Some(lower);
    }
    if let Some((check, field)) = name.strip_prefix("checks.").and_then(|rest| rest.split_once('.')) {
        return CHECK_KEYS
            .iter()
            .filter_map(|key| key.name.strip_prefix("checks.NAME."))
            .map(|known| (distance(field, known), known))
            .min()
            .filter(|&(far, known)| far <= known.len().div_ceil(2))
            .map(|(_, known)| format!("checks.{check}.{known}"));
    }
    let spelled = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min();
    let last = name.rsplit('.').next()?;
    if let Some((far, known)) = spelled
        && far <= 2.max(known.len() / 4)
        // Neighbours in a section have much in common, whatever their last parts are.
        && (!same_section(name, known) || far <= 2.max(last.len() / 4))
    {
        return Some(known.to_owned());
    }
    let same = KEYS.iter().find(|key| key.name.rsplit('.').next() == Some(last));
    same.map(|key| key.name.to_owned())
}

fn same_section(one: &str, other: &str) -> bool {
    let section = |name: &str| name.rsplit_once('.').map(|(section, _)| section.to_owned());
    section(one) == section(other)
}

/// The section that was probably meant.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    let known = KEYS.iter().filter_map(|key| Some(key.name.split_once('.')?.0));
    let sections = known
        .chain(["checks"])
        .map(|section| (distance(name, section), section));
    sections
        .min()
        .filter(|&(far, section)| far <= 2 && 2 * far < section.len())
        .map(|(_, section)| section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_key() {
        for (written, meant) in [
            ("workers.cuont", Some("workers.count")),
            ("engine.ping_interval", Some("engine.ping_interval_ms")),
            ("worker.count", Some("workers.count")),
            ("server.namespaces_max", Some("socket.namespaces_max")),
            ("checks.ollama.htttp", Some("checks.ollama.http")),
            ("colour", None),
            ("app.events.foo", None),
            ("app.events.jion", Some("app.events.join")),
        ] {
            assert_eq!(nearest(written).as_deref(), meant, "{written}");
        }
        assert_eq!(
            (nearest_section("enigne"), nearest_section("foo")),
            (Some("engine"), None)
        );
    }
}
