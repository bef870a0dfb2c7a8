//! Commands of operators: what they are given is made here, what they do is in `workers/ops`.

use crate::config::Config;
use crate::control::client;
use crate::sys::runtime::control_socket;
use boot::{Emit, Namespaces, RedisEndpoint, Settings, Trace, TraceLevel};
use ops::{Command, Context, Endpoint, Engine, IngestNames, Limits, NoteBounds, Redis, RedisOptions, SecurityCheck};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs a command against the fleet of a configuration.
pub(crate) fn run(command: &Command, config: Config) -> io::Result<ExitCode> {
    ops::run(command, &context(config)).map(ExitCode::from)
}

fn context(config: Config) -> Context {
    let socket = control_socket(&config.runtime_directory);
    let settings = &config.settings;
    let redis = settings.redis.as_ref();
    let (engine, log) = (&settings.engine, &settings.log);
    let liveness = engine.ping_interval + engine.ping_timeout;
    let window = Some(settings.recovery.window).filter(|_| settings.recovery.enabled);
    Context {
        redis: redis.map(|redis| {
            reached(
                redis,
                &settings.emit,
                config.managed_redis.then_some(&config.redis_directory),
            )
        }),
        engine: talk(settings),
        limits: Limits {
            connections_max: settings.limits.connections_max,
            descriptors_reserved: boot::descriptors::reserve(settings),
            log_entries_max: log.entries_max,
            redis_bytes_min: crate::config::redis_bytes_min(settings),
            entry_bytes_max: log.entry_bytes_max,
            canary_overdue: log.canary_overdue,
            session_ttl: liveness.max(window.unwrap_or_default()),
        },
        emit_secret: settings.emit.secret.as_ref().map(|secret| secret.expose().to_owned()),
        security: security(&config),
        notes: notes(&settings.trace),
        listen: config.listen,
        workers: config.workers.count,
        grace: config.workers.grace,
        runtime_directory: config.runtime_directory,
        status: Box::new(move || client::status(&socket)),
    }
}

fn talk(settings: &Settings) -> Engine {
    let engine = &settings.engine;
    let main = "/".to_owned();
    let namespace = match &settings.socket.namespaces {
        Namespaces::Only(names) if !names.contains(&main) => names.first().cloned().unwrap_or(main),
        Namespaces::Only(_) | Namespaces::All => main,
    };
    let events = &settings.app.events;
    Engine {
        path: engine.path.clone(),
        ping_interval: engine.ping_interval,
        polling: engine.polling,
        websocket: engine.websocket,
        namespace,
        join: events.join.clone(),
        publish: events.publish.clone(),
        message: events.message.clone(),
    }
}

/// The checks of the configuration, with the reasons that the log gives.
fn security(config: &Config) -> Vec<SecurityCheck> {
    let checks = config.settings.security.checks.iter();
    let reason = |name: &str| {
        let head = format!("security: {name} is false: ");
        let mut notices = config.notices.iter();
        notices.find_map(|notice| notice.strip_prefix(&head).map(str::to_owned))
    };
    let check = |(name, passed): (&String, &bool)| SecurityCheck {
        name: name.clone(),
        passed: *passed,
        reason: reason(name).unwrap_or_default(),
    };
    checks.map(check).collect()
}

fn notes(trace: &Trace) -> Option<NoteBounds> {
    (trace.level > TraceLevel::Off).then_some(NoteBounds {
        bytes_max: trace.bytes_max,
        age_max: trace.age_max,
    })
}

fn reached(redis: &boot::Redis, emit: &Emit, directory: Option<&PathBuf>) -> Redis {
    let open = |name: &String| (!name.is_empty()).then(|| name.clone());
    let options = RedisOptions {
        endpoint: match redis.endpoint.clone() {
            RedisEndpoint::Tcp { host, port } => Endpoint::Tcp { host, port },
            RedisEndpoint::Tls { host, port } => Endpoint::Tls { host, port },
            RedisEndpoint::Unix { path } => Endpoint::Unix { path },
        },
        db: redis.db,
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|secret| secret.expose().to_owned()),
        ca_file: redis.ca_file.clone(),
        pool_size: redis.pool_size,
        connect_timeout: redis.connect_timeout,
        response_timeout: redis.response_timeout,
    };
    Redis {
        options,
        managed: directory.is_some(),
        directory: directory.cloned(),
        prefix: redis.prefix.clone(),
        ingest: IngestNames {
            python_channel: open(&emit.python_channel),
            node_prefix: open(&emit.node_prefix),
            node_stream: open(&emit.node_stream),
            own_stream: open(&emit.stream),
        },
        url: redis.to_string(),
    }
}
