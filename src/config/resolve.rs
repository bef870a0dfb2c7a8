//! From the layers to a checked [`Config`]: each section is parsed, then what must fit together is
//! compared. Everything goes on after a fault, so that all of them are found.

use super::faults::Faults;
use super::values::{Source, Value, Values};
use super::{Admin, Config, Overrides, Workers, cross, endpoint, layers, parse, print, sections, security};
use boot::Settings;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Listen addresses of one fleet; each costs every worker a descriptor.
const LISTEN_MAX: usize = 16;

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
    /// Whether something exists there that is no directory.
    pub(super) is_taken: fn(&Path) -> bool,
    /// Whether a directory belongs to us or root and no other user may write in it, or does not exist.
    pub(super) is_private: fn(&Path) -> bool,
}

/// Lays the layers over each other and checks the result.
pub(super) fn resolve(inputs: Inputs<'_>, facts: &Facts<'_>, faults: Faults) -> Result<Config, Faults> {
    let mut values = Values::defaults();
    values.faults = faults;
    if let Some(file) = &inputs.file {
        layers::file(&mut values, &file.path, &file.text);
    }
    let mut notices = Vec::new();
    let mut ignored = Vec::new();
    if let Some(file) = &inputs.dot_env {
        let names = layers::dot_env(&mut values, &file.path, &file.text, inputs.env, &mut notices);
        ignored.extend(names);
    }
    ignored.extend(layers::environment(&mut values, inputs.env, &mut notices, |name| {
        Source::Env(name.to_owned())
    }));
    layers::flags(&mut values, inputs.overrides);

    if !ignored.is_empty() {
        notices.push(format!(
            "{} ignored: not of the form {}",
            ignored.join(", "),
            layers::env_name("section.key")
        ));
    }
    let listen = listen(&mut values);
    let runtime_directory = runtime_directory(&mut values, inputs.env, facts);
    let redis_directory = redis_directory(&mut values, inputs.env, facts, &runtime_directory);
    let (redis, managed_redis) = endpoint::redis(&mut values, &runtime_directory, facts, &mut notices);
    let workers = workers(&mut values, redis.is_some(), facts, &mut notices);
    let mut settings = settings(&mut values, facts, redis);
    let admin = admin(&mut values, &listen);
    let redis_bytes_max = redis_bytes_max(&mut values, &settings);
    cross::cross_check(&mut values, &settings, &workers);
    if !values.faults.is_empty() {
        return Err(values.faults);
    }
    let read: Vec<&FileText> = [&inputs.file, &inputs.dot_env].into_iter().flatten().collect();
    let public = read.iter().filter(|file| file.public);
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
        listen_wait: values.millis("listen.wait_ms"),
        workers,
        soak: values.millis("reload.soak_ms"),
        runtime_directory,
        redis_directory,
        redis_bytes_max,
        managed_redis,
        admin,
        settings,
        files: read.iter().map(|file| file.path.clone()).collect(),
        notices,
        masked_toml,
    })
}

/// The settings that workers receive; security is judged later.
fn settings(values: &mut Values, facts: &Facts<'_>, redis: Option<boot::Redis>) -> Settings {
    Settings {
        engine: sections::engine(values),
        socket: sections::socket(values),
        http: sections::http(values),
        redis,
        log: sections::log(values),
        recovery: sections::recovery(values),
        limits: sections::limits(values),
        trace: sections::trace(values),
        app: sections::app(values),
        checks: sections::checks(values),
        emit: sections::emit(values),
        admin: sections::admin(values),
        diagnostics: sections::diagnostics(values),
        logging: sections::logging(values, facts),
        security: boot::Security::default(),
    }
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

fn admin(values: &mut Values, listen: &[SocketAddr]) -> Admin {
    const KEY: &str = "admin.address";
    let address = values
        .text_if_any(KEY)
        .and_then(|text| values.accept(KEY, parse::address(&text)));
    let other = address.and_then(|address| listen.iter().find(|other| collide(address, **other)));
    if let (Some(address), Some(other)) = (address, other) {
        let what = if address == *other {
            format!("{address} is in listen.address too")
        } else {
            format!("{address} is the port of listen.address {other} too")
        };
        values.fault(KEY, what, "use another port");
    }
    if address.is_none() && !values.bool("admin.public_health") {
        let remedy = "set an address, or admin.public_health = true";
        values.fault(
            KEY,
            "none although admin.public_health is false: health could not be asked for",
            remedy,
        );
    }
    Admin {
        address,
        chosen: values.is_set(KEY),
    }
}

/// Whether both cannot be listened on: the same port of the same address, or of all of its kind. (`[::]` is IPv6 only.)
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let overlap = a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified());
    one.port() != 0 && one.port() == other.port() && overlap
}

/// The directory that was set, or the first of the usual ones.
fn runtime_directory(values: &mut Values, env: &BTreeMap<String, String>, facts: &Facts<'_>) -> PathBuf {
    const KEY: &str = "runtime.directory";
    let directory = if let Some(text) = values.text_if_any(KEY) {
        facts.directory.join(text)
    } else if let Some(path) = directory_from(env, "RUNTIME_DIRECTORY") {
        path
    } else if let Some(path) = directory_from(env, "XDG_RUNTIME_DIR").filter(|path| (facts.is_directory)(path)) {
        path.join("anyworker")
    } else if facts.euid == 0 {
        PathBuf::from("/run/anyworker")
    } else {
        PathBuf::from(format!("/tmp/anyworker-{}", facts.euid))
    };
    values.accept(KEY, parse::socket_directory(&directory));
    refuse_taken(values, KEY, &directory, facts);
    values.resolve(KEY, Value::Text(directory.display().to_string()));
    directory
}

fn refuse_taken(values: &mut Values, key: &str, directory: &Path, facts: &Facts<'_>) {
    if (facts.is_taken)(directory) {
        let what = format!("{} is no directory", directory.display());
        values.fault(key, what, "name a directory, or one that can be made");
    }
}

/// An absolute directory in the environment. systemd separates several by colons.
fn directory_from(env: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    let path = env.get(name)?.split(':').next().map(PathBuf::from);
    path.filter(|path| path.is_absolute())
}

/// Where the managed Redis keeps its files: what was set, or where systemd keeps state.
fn redis_directory(values: &mut Values, env: &BTreeMap<String, String>, facts: &Facts<'_>, runtime: &Path) -> PathBuf {
    const KEY: &str = "redis.directory";
    let directory = match values.text_if_any(KEY) {
        Some(text) => facts.directory.join(text),
        None => directory_from(env, "STATE_DIRECTORY")
            .as_deref()
            .unwrap_or(runtime)
            .join("redis"),
    };
    refuse_taken(values, KEY, &directory, facts);
    values.resolve(KEY, Value::Text(directory.display().to_string()));
    directory
}

/// Bytes that Redis needs at least, if log and notes are as large as they may be: payloads take up to a quarter more
/// there, and sessions need room.
pub(crate) fn redis_bytes_min(settings: &Settings) -> u64 {
    const SESSIONS: u64 = 64 << 20;
    let log = settings.log.bytes_max.saturating_add(settings.log.bytes_max / 4);
    log.saturating_add(settings.trace.bytes_max).saturating_add(SESSIONS)
}

/// What is chosen for `redis.memory_bytes_max` at least: room for some 250 000 sessions beside log and notes.
const REDIS_BYTES: u64 = 1 << 30;

/// How much the managed Redis may take: what was set, or three times what log and notes may have (a payload takes up to a
/// quarter more than it has, and what is on its way to workers counts too), and [`REDIS_BYTES`] at least.
fn redis_bytes_max(values: &mut Values, settings: &Settings) -> u64 {
    const KEY: &str = "redis.memory_bytes_max";
    match values.int(KEY) {
        0 => {
            let kept = settings.log.bytes_max.saturating_add(settings.trace.bytes_max);
            let chosen = kept.saturating_mul(3).max(REDIS_BYTES);
            values.resolve(KEY, Value::Int(chosen));
            chosen
        }
        set => {
            let least = redis_bytes_min(settings);
            if set < least {
                let what =
                    format!("{set} is too little for log.bytes_max and trace.bytes_max: sessions would be refused");
                let remedy = format!("use at least {least}, or 0 to have it chosen, or lower log.bytes_max");
                values.fault(KEY, what, remedy);
            }
            set
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
    // Whether this process may become another user is asked by `run` and `check` (`user::resolve`), which say the same.
    // All other commands may be run by any user.
    if let Some(name) = &user
        && facts.euid == 0
        && (facts.uid_of)(name).is_none()
    {
        values.fault(
            "workers.user",
            format!("there is no user {name:?}"),
            "create it or name another",
        );
    }
    Workers {
        count: u16::try_from(values.int("workers.count")).unwrap_or(1),
        user,
        grace: values.millis("workers.grace_ms"),
        pre_drain: values.millis("workers.pre_drain_ms"),
        max_age: values.millis("workers.max_age_ms"),
        max_rss_bytes: values.int("workers.max_rss_bytes"),
        boot_timeout: values.millis("workers.boot_timeout_ms"),
    }
}
