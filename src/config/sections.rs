//! The sections that are the workers' alone: from values to the types of `boot`.

use super::parse;
use super::resolve::Facts;
use super::values::Values;
use boot::{
    App, AppKind, Check, Cookie, Diagnostics, Emit, Engine, Events, Http, Limits, Log, Logging, Namespaces, Offsets,
    Origins, Recovery, SameSite, Secret, Socket, Trace, TraceLevel,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn engine(values: &mut Values) -> Engine {
    const TRANSPORTS: &str = "engine.transports";
    let transports = values.list(TRANSPORTS);
    let known = |name: &String| name == "polling" || name == "websocket";
    if transports.is_empty() || !transports.iter().all(known) {
        values.fault(
            TRANSPORTS,
            format!("{transports:?} is not allowed"),
            "use polling, websocket or both",
        );
    }
    let path = values.accept("engine.path", parse::endpoint_path(&values.text("engine.path")));
    Engine {
        path: path.unwrap_or_default(),
        ping_interval: values.millis("engine.ping_interval_ms"),
        ping_timeout: values.millis("engine.ping_timeout_ms"),
        upgrade_timeout: values.millis("engine.upgrade_timeout_ms"),
        max_payload_bytes: values.size("engine.max_payload_bytes"),
        polling: transports.iter().any(|name| name == "polling"),
        websocket: transports.iter().any(|name| name == "websocket"),
        allow_upgrades: values.bool("engine.allow_upgrades"),
        cookie: cookie(values),
    }
}

/// The cookie is on as soon as one of its keys is set.
fn cookie(values: &mut Values) -> Option<Cookie> {
    if !values.is_any_set("engine.cookie.") {
        return None;
    }
    let name = values.accept(
        "engine.cookie.name",
        parse::cookie_name(&values.text("engine.cookie.name")),
    )?;
    let path = values.accept(
        "engine.cookie.path",
        parse::cookie_path(&values.text("engine.cookie.path")),
    )?;
    let same_site = match values.text("engine.cookie.same_site").as_str() {
        "strict" => SameSite::Strict,
        "none" => SameSite::None,
        _ => SameSite::Lax,
    };
    let secure = values.bool("engine.cookie.secure");
    if same_site == SameSite::None && !secure {
        let remedy = "set engine.cookie.secure = true, or another same_site";
        values.fault(
            "engine.cookie.same_site",
            "\"none\" without secure: browsers refuse such a cookie",
            remedy,
        );
    }
    Some(Cookie {
        name,
        path,
        http_only: values.bool("engine.cookie.http_only"),
        same_site,
        secure,
    })
}

pub(super) fn socket(values: &mut Values) -> Socket {
    let namespaces = values.accept(
        "socket.namespaces",
        parse::namespaces(&values.list("socket.namespaces")),
    );
    Socket {
        connect_timeout: values.millis("socket.connect_timeout_ms"),
        connect_bytes_max: values.size("socket.connect_bytes_max"),
        namespaces: namespaces.unwrap_or(Namespaces::All),
        namespaces_max: values.size("socket.namespaces_max"),
        rooms_max: values.size("socket.rooms_max"),
        room_bytes_max: values.size("socket.room_bytes_max"),
        attachments_max: values.size("socket.attachments_max"),
        attachment_bytes_max: values.size("socket.attachment_bytes_max"),
    }
}

pub(super) fn http(values: &mut Values) -> Http {
    let origins = values.accept("http.origins", parse::origins(&values.list("http.origins")));
    let proxies = values.accept(
        "http.trusted_proxies",
        parse::networks(&values.list("http.trusted_proxies")),
    );
    Http {
        header_timeout: values.millis("http.header_timeout_ms"),
        body_timeout: values.millis("http.body_timeout_ms"),
        keepalive_timeout: values.millis("http.keepalive_timeout_ms"),
        header_bytes_max: values.size("http.header_bytes_max"),
        compression: values.bool("http.compression"),
        compression_bytes_min: values.size("http.compression_bytes_min"),
        origins: origins.unwrap_or(Origins::SameOrigin),
        credentials: values.bool("http.credentials"),
        trusted_proxies: proxies.unwrap_or_default(),
    }
}

pub(super) fn log(values: &Values) -> Log {
    Log {
        entries_max: values.int("log.entries_max"),
        bytes_max: values.int("log.bytes_max"),
        age_max: values.millis("log.age_max_ms"),
        entry_bytes_max: values.size("log.entry_bytes_max"),
        ring_bytes_max: values.size("log.ring_bytes_max"),
        queue_bytes_max: values.size("log.queue_bytes_max"),
        publish_timeout: values.millis("log.publish_timeout_ms"),
        canary_interval: values.millis("log.canary_interval_ms"),
        canary_overdue: values.millis("log.canary_overdue_ms"),
    }
}

pub(super) fn recovery(values: &Values) -> Recovery {
    Recovery {
        enabled: values.bool("recovery.enabled"),
        window: values.millis("recovery.window_ms"),
        offsets: match values.text("recovery.offsets").as_str() {
            "always" => Offsets::Always,
            "never" => Offsets::Never,
            _ => Offsets::Auto,
        },
        entries_max: values.size("recovery.entries_max"),
    }
}

pub(super) fn trace(values: &Values) -> Trace {
    Trace {
        level: match values.text("trace.level").as_str() {
            "off" => TraceLevel::Off,
            "sessions" => TraceLevel::Sessions,
            _ => TraceLevel::Requests,
        },
        bytes_max: values.int("trace.bytes_max"),
        age_max: values.millis("trace.age_max_ms"),
    }
}

pub(super) fn limits(values: &Values) -> Limits {
    Limits {
        connections_max: values.size("limits.connections_max"),
        buffers_bytes_max: values.size("limits.buffers_bytes_max"),
        handshakes_max: values.size("limits.handshakes_max"),
        outbox_bytes_max: values.size("limits.outbox_bytes_max"),
        ws_read_buffer_bytes: values.size("limits.ws_read_buffer_bytes"),
        events_per_second: values.int("limits.events_per_second"),
        bytes_per_second: values.int("limits.bytes_per_second"),
    }
}

pub(super) fn app(values: &mut Values) -> App {
    let kind = match values.text("app.kind").as_str() {
        "external" => AppKind::External,
        _ => AppKind::Relay,
    };
    let mut event = |name: &str| {
        let key = format!("app.events.{name}");
        values
            .accept(&key, parse::event(&values.text(&key)))
            .unwrap_or_default()
    };
    let events = Events {
        join: event("join"),
        leave: event("leave"),
        publish: event("publish"),
        echo: event("echo"),
        message: event("message"),
    };
    App { kind, events }
}

pub(super) fn checks(values: &mut Values) -> BTreeMap<String, Check> {
    let mut checks = BTreeMap::new();
    for name in values.check_names() {
        let key = |field: &str| format!("checks.{name}.{field}");
        let probe = parse::check_name(&name).and_then(|()| {
            let text = |field: &str| values.text(&key(field));
            parse::probe(&text("http"), &text("tcp"), &text("writable_path"))
        });
        let timeout: Duration = values.millis(&key("timeout_ms"));
        if let Some(probe) = values.accept(&format!("checks.{name}"), probe) {
            checks.insert(name, Check { probe, timeout });
        }
    }
    checks
}

/// Fewest characters of `emit.secret`: a shorter one can be guessed.
const EMIT_SECRET_MIN: usize = 16;

pub(super) fn emit(values: &mut Values) -> Emit {
    const KEY: &str = "emit.secret";
    let secret = values.text_if_any(KEY);
    if secret
        .as_ref()
        .is_some_and(|secret| secret.chars().count() < EMIT_SECRET_MIN)
    {
        let what = format!("shorter than {EMIT_SECRET_MIN} characters: it could be guessed");
        values.fault(
            KEY,
            what,
            "use a long random one, such as `openssl rand -hex 32` prints",
        );
    }
    Emit {
        secret: secret.map(Secret::new),
        stream: values.text("emit.stream"),
        python_channel: values.text("emit.python_channel"),
        node_prefix: values.text("emit.node_prefix"),
        node_stream: values.text("emit.node_stream"),
    }
}

pub(super) fn admin(values: &Values) -> boot::Admin {
    boot::Admin {
        public_health: values.bool("admin.public_health"),
        public_emit: values.bool("admin.public_emit"),
    }
}

pub(super) fn diagnostics(values: &mut Values) -> Diagnostics {
    const KEY: &str = "diagnostics.engine_echo";
    let path = values.text_if_any(KEY).map(|path| parse::endpoint_path(&path));
    Diagnostics {
        engine_echo: path.and_then(|parsed| values.accept(KEY, parsed)),
    }
}

pub(super) fn logging(values: &Values, facts: &Facts<'_>) -> Logging {
    let json = match values.text("logging.format").as_str() {
        "json" => true,
        "text" => false,
        _ => !facts.terminal,
    };
    Logging {
        level: values.text("logging.level"),
        json,
        connections: values.bool("logging.connections"),
    }
}
