//! From the layers to a checked [`Config`]: each section is parsed, then what must fit together is
//! compared. Everything goes on after a fault, so that all of them are found.

use super::faults::Faults;
use super::values::{Source, Value, Values};
use super::{Config, Overrides, Workers, layers, parse, print, redis_url, security};
use boot::{
    App, AppKind, Check, Cookie, Diagnostics, Engine, Events, Http, Limits, Log, Logging, Namespaces, Offsets, Origins,
    Recovery, Redis, RedisEndpoint, SameSite, Settings, Socket,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Listen addresses of one fleet; each costs every worker a descriptor.
const LISTEN_MAX: usize = 16;
/// Name of the managed Redis' socket in the runtime directory.
const REDIS_SOCKET: &str = "redis.sock";

/// A file that was read.
pub(super) struct FileText {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Whether every user of the machine may read it.
    pub(super) public: bool,
}

/// All layers over the defaults.
pub(super) struct Inputs<'a> {
    pub(super) file: Option<FileText>,
    pub(super) dot_env: Option<FileText>,
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) overrides: &'a Overrides,
}

/// What the system says; the only view of it from here.
pub(super) struct Facts<'a> {
    /// The working directory.
    pub(super) directory: &'a Path,
    /// Effective user id.
    pub(super) euid: u32,
    /// Whether the log goes to a terminal.
    pub(super) terminal: bool,
    /// The id of a user, if there is one of that name.
    pub(super) uid_of: fn(&str) -> Option<u32>,
    /// Whether a directory exists.
    pub(super) is_directory: fn(&Path) -> bool,
    /// Whether a directory belongs to us or root and nobody else may write in it, or does not exist.
    pub(super) is_private: fn(&Path) -> bool,
}

/// Lays the layers over each other and checks the result.
pub(super) fn resolve(inputs: Inputs<'_>, facts: &Facts<'_>, faults: Faults) -> Result<Config, Faults> {
    let mut values = Values::defaults();
    values.faults = faults;
    if let Some(file) = &inputs.file {
        layers::file(&mut values, &file.path, &file.text);
    }
    if let Some(file) = &inputs.dot_env {
        layers::dot_env(&mut values, &file.path, &file.text);
    }
    layers::environment(&mut values, inputs.env, |name| Source::Env(name.to_owned()));
    layers::flags(&mut values, inputs.overrides);

    let mut notices = Vec::new();
    let listen = listen(&mut values);
    let runtime_directory = runtime_directory(&mut values, inputs.env, facts);
    let (redis, managed_redis) = redis(&mut values, &runtime_directory, &mut notices);
    let workers = workers(&mut values, redis.is_some(), facts, &mut notices);
    let mut settings = Settings {
        engine: engine(&mut values),
        socket: socket(&mut values),
        http: http(&mut values),
        redis,
        log: log(&values),
        recovery: recovery(&values),
        limits: limits(&values),
        app: app(&mut values),
        checks: checks(&mut values),
        diagnostics: diagnostics(&mut values),
        logging: logging(&values, facts),
        security: boot::Security::default(),
    };
    cross_check(&mut values, &settings, &workers);
    if !values.faults.is_empty() {
        return Err(values.faults);
    }
    let public = [&inputs.file, &inputs.dot_env]
        .into_iter()
        .flatten()
        .filter(|file| file.public);
    let public: Vec<&Path> = public.map(|file| file.path.as_path()).collect();
    let findings = security::findings(
        &settings,
        managed_redis,
        &workers,
        facts,
        &security::Exposed {
            runtime_directory: &runtime_directory,
            public_files: &public,
            redis_source: values.source("redis.url"),
        },
    );
    notices.extend(findings.iter().filter_map(security::Finding::notice));
    settings.security.checks = findings
        .into_iter()
        .map(|finding| (finding.name.to_owned(), finding.passed))
        .collect();
    settings.security.listen = listen.clone();
    let masked_toml = print::masked_toml(&mut values, &settings, managed_redis);
    Ok(Config {
        listen,
        workers,
        runtime_directory,
        managed_redis,
        settings,
        notices,
        masked_toml,
    })
}

fn listen(values: &mut Values) -> Vec<SocketAddr> {
    const KEY: &str = "listen.address";
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let texts = values.list(KEY);
    if texts.is_empty() || texts.len() > LISTEN_MAX {
        values.fault(
            KEY,
            format!("{} addresses", texts.len()),
            format!("give 1 to {LISTEN_MAX}"),
        );
    }
    for text in texts {
        let Some(address) = values.accept(KEY, parse::address(&text)) else {
            continue;
        };
        if address.port() != 0 && addresses.contains(&address) {
            values.fault(KEY, format!("{address} is there twice"), "remove one");
        }
        addresses.push(address);
    }
    addresses
}

/// The directory that was set, or the first of the usual ones.
fn runtime_directory(values: &mut Values, env: &BTreeMap<String, String>, facts: &Facts<'_>) -> PathBuf {
    const KEY: &str = "runtime.directory";
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // systemd separates several RuntimeDirectory= by colons.
    let systemd = env
        .get("RUNTIME_DIRECTORY")
        .and_then(|paths| paths.split(':').next())
        .map(PathBuf::from);
    let directory = if let Some(text) = values.text_if_any(KEY) {
        facts.directory.join(text)
    } else if let Some(path) = systemd.filter(|path| path.is_absolute()) {
        path
    } else if let Some(path) = absolute("XDG_RUNTIME_DIR").filter(|path| (facts.is_directory)(path)) {
        path.join("anyworker")
    } else if facts.euid == 0 {
        PathBuf::from("/run/anyworker")
    } else {
        PathBuf::from(format!("/tmp/anyworker-{}", facts.euid))
    };
    values.accept(KEY, parse::socket_directory(&directory));
    values.resolve(KEY, Value::Text(directory.display().to_string()));
    directory
}

/// How workers reach Redis (`None`: disabled), and whether the supervisor starts it.
fn redis(values: &mut Values, directory: &Path, notices: &mut Vec<String>) -> (Option<Redis>, bool) {
    let url = values.text_if_any("redis.url").map(|url| redis_url::parse(&url));
    let given = url.is_some();
    let url = url.and_then(|parsed| values.accept("redis.url", parsed));
    let prefix = values.accept("redis.prefix", parse::prefix(&values.text("redis.prefix")));
    let enabled = values.bool("redis.enabled");
    let managed = enabled && managed(values, given, notices);
    values.resolve("redis.managed", Value::Bool(managed));
    if !enabled {
        return (None, false);
    }
    let url = url.filter(|_| !managed).unwrap_or(redis_url::RedisUrl {
        endpoint: RedisEndpoint::Unix {
            path: directory.join(REDIS_SOCKET),
        },
        username: None,
        password: None,
        db: None,
    });
    let db = i64::try_from(values.int("redis.db")).unwrap_or_default();
    let redis = Redis {
        endpoint: url.endpoint,
        db: if values.is_set("redis.db") {
            db
        } else {
            url.db.unwrap_or(db)
        },
        username: url.username,
        password: url.password,
        pool_size: values.size("redis.pool_size"),
        connect_timeout: values.millis("redis.connect_timeout_ms"),
        response_timeout: values.millis("redis.response_timeout_ms"),
        prefix: prefix.unwrap_or_default(),
    };
    (Some(redis), managed)
}

/// `managed` and a URL exclude each other: of two layers the later one wins, in one it is a fault.
fn managed(values: &mut Values, url_given: bool, notices: &mut Vec<String>) -> bool {
    let wanted = values.bool("redis.managed");
    if !url_given {
        if !wanted {
            values.fault(
                "redis.url",
                "missing, and redis.managed is false",
                "give a URL, or redis.managed = true",
            );
        }
        return wanted;
    }
    if !wanted || !values.is_set("redis.managed") {
        return false;
    }
    let (url, managed) = (values.source("redis.url"), values.source("redis.managed"));
    match managed.rank().cmp(&url.rank()) {
        std::cmp::Ordering::Equal => {
            values.fault(
                "redis.managed",
                "true, although redis.url is given",
                "remove one of them",
            );
            false
        }
        std::cmp::Ordering::Greater => {
            notices.push(format!("redis.managed = true ({managed}) overrides redis.url ({url})"));
            true
        }
        std::cmp::Ordering::Less => {
            notices.push(format!("redis.url ({url}) overrides redis.managed = true ({managed})"));
            false
        }
    }
}

fn workers(values: &mut Values, redis: bool, facts: &Facts<'_>, notices: &mut Vec<String>) -> Workers {
    let count = values.int("workers.count");
    if !redis && count > 1 {
        if values.is_set("workers.count") {
            let remedy = "set workers.count = 1 or redis.enabled = true";
            values.fault(
                "workers.count",
                format!("{count} although Redis is disabled: multi-worker needs Redis"),
                remedy,
            );
        } else {
            values.resolve("workers.count", Value::Int(1));
        }
    }
    if !redis {
        notices.push("Redis is disabled: one worker, sessions in its memory, multi_worker_support is false".to_owned());
    }
    let user = values.text_if_any("workers.user");
    if let Some(name) = &user {
        match (facts.uid_of)(name) {
            _ if name == "root" => {}
            Some(uid) if facts.euid != 0 && facts.euid != uid => {
                notices.push(format!(
                    "workers.user = {name:?} has no effect: only root can become another user"
                ));
            }
            Some(_) => {}
            None if facts.euid != 0 => {
                notices.push(format!(
                    "workers.user = {name:?} has no effect, and there is no such user"
                ));
            }
            None => values.fault(
                "workers.user",
                format!("there is no user {name:?}"),
                "create it or name another",
            ),
        }
    }
    Workers {
        count: u16::try_from(values.int("workers.count")).unwrap_or(1),
        user,
        grace: values.millis("workers.grace_ms"),
        boot_timeout: values.millis("workers.boot_timeout_ms"),
    }
}

fn engine(values: &mut Values) -> Engine {
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

fn socket(values: &mut Values) -> Socket {
    let namespaces = values.accept(
        "socket.namespaces",
        parse::namespaces(&values.list("socket.namespaces")),
    );
    Socket {
        connect_timeout: values.millis("socket.connect_timeout_ms"),
        namespaces: namespaces.unwrap_or(Namespaces::All),
        namespaces_max: values.size("socket.namespaces_max"),
        rooms_max: values.size("socket.rooms_max"),
        room_bytes_max: values.size("socket.room_bytes_max"),
        attachments_max: values.size("socket.attachments_max"),
        attachment_bytes_max: values.size("socket.attachment_bytes_max"),
    }
}

fn http(values: &mut Values) -> Http {
    let origins = values.accept("http.origins", parse::origins(&values.list("http.origins")));
    Http {
        header_timeout: values.millis("http.header_timeout_ms"),
        body_timeout: values.millis("http.body_timeout_ms"),
        header_bytes_max: values.size("http.header_bytes_max"),
        compression: values.bool("http.compression"),
        compression_bytes_min: values.size("http.compression_bytes_min"),
        origins: origins.unwrap_or(Origins::SameOrigin),
        credentials: values.bool("http.credentials"),
    }
}

fn log(values: &Values) -> Log {
    Log {
        entries_max: values.int("log.entries_max"),
        age_max: values.millis("log.age_max_ms"),
        entry_bytes_max: values.size("log.entry_bytes_max"),
        ring_bytes_max: values.size("log.ring_bytes_max"),
        queue_bytes_max: values.size("log.queue_bytes_max"),
        publish_timeout: values.millis("log.publish_timeout_ms"),
        canary_interval: values.millis("log.canary_interval_ms"),
        canary_overdue: values.millis("log.canary_overdue_ms"),
    }
}

fn recovery(values: &Values) -> Recovery {
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

fn limits(values: &Values) -> Limits {
    Limits {
        connections_max: values.size("limits.connections_max"),
        outbox_bytes_max: values.size("limits.outbox_bytes_max"),
        ws_read_buffer_bytes: values.size("limits.ws_read_buffer_bytes"),
    }
}

fn app(values: &mut Values) -> App {
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
    App {
        kind: AppKind::Relay,
        events,
    }
}

fn checks(values: &mut Values) -> BTreeMap<String, Check> {
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

fn diagnostics(values: &mut Values) -> Diagnostics {
    const KEY: &str = "diagnostics.engine_echo";
    let path = values.text_if_any(KEY).map(|path| parse::endpoint_path(&path));
    Diagnostics {
        engine_echo: path.and_then(|parsed| values.accept(KEY, parsed)),
    }
}

fn logging(values: &Values, facts: &Facts<'_>) -> Logging {
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

/// What must fit together.
fn cross_check(values: &mut Values, settings: &Settings, workers: &Workers) {
    let Settings {
        http,
        log,
        recovery,
        engine,
        diagnostics,
        ..
    } = settings;
    if http.credentials && http.origins == Origins::Any {
        let what = "true although http.origins is \"*\": any page could act for a user";
        values.fault("http.credentials", what, "list the origins, or set it to false");
    }
    if let Some(echo) = &diagnostics.engine_echo
        && (echo.starts_with(&engine.path) || engine.path.starts_with(echo))
    {
        let what = format!("{echo:?} collides with engine.path {:?}", engine.path);
        values.fault(
            "diagnostics.engine_echo",
            what,
            "choose paths of which none contains the other",
        );
    }
    if log.canary_overdue <= log.canary_interval {
        let what = format!(
            "{} is not longer than log.canary_interval_ms",
            log.canary_overdue.as_millis()
        );
        values.fault("log.canary_overdue_ms", what, "use at least twice the interval");
    }
    for (key, bytes) in [
        ("log.ring_bytes_max", log.ring_bytes_max),
        ("log.queue_bytes_max", log.queue_bytes_max),
    ] {
        if bytes < log.entry_bytes_max {
            let what = format!(
                "{bytes} cannot hold one entry of log.entry_bytes_max {}",
                log.entry_bytes_max
            );
            values.fault(key, what, "raise it, or lower log.entry_bytes_max");
        }
    }
    if recovery.enabled && recovery.window > log.age_max {
        let what = format!(
            "{} is longer than log.age_max_ms: entries would be gone",
            recovery.window.as_millis()
        );
        values.fault("recovery.window_ms", what, "lower it, or raise log.age_max_ms");
    }
    if let Some(redis) = &settings.redis
        && redis.connect_timeout >= workers.boot_timeout
    {
        let what = format!(
            "{} is not shorter than workers.boot_timeout_ms",
            redis.connect_timeout.as_millis()
        );
        values.fault(
            "redis.connect_timeout_ms",
            what,
            "lower it, or raise workers.boot_timeout_ms",
        );
    }
    let Events {
        join,
        leave,
        publish,
        echo,
        ..
    } = &settings.app.events;
    let events = [("join", join), ("leave", leave), ("publish", publish), ("echo", echo)];
    for (nth, (name, event)) in events.iter().enumerate() {
        if let Some((earlier, _)) = events.iter().take(nth).find(|(_, other)| other == event) {
            let what = format!("{event:?} is app.events.{earlier} already");
            values.fault(&format!("app.events.{name}"), what, "choose another name");
        }
    }
}
