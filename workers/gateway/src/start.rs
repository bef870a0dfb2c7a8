//! A worker's life: up, serving, out.

use crate::admin::Admin;
use crate::listen::{accept, listener};
use crate::supervisor::Supervisor;
use crate::worker::Worker;
use crate::{control, drain, evictions, ingest, notes, ready, report, startup_responder, sweep, tailer};
use boot::{Exit, RedisEndpoint, Settings, Setup, ToSupervisor};
use futures_util::future::join_all;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use store::{Backend, Cure, Endpoint, Options, RedisOptions, Speaks, Store, StoreError, Tail};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

/// Between two attempts to reach Redis at start.
const REDIS_RETRY: Duration = Duration::from_millis(500);
/// A worker that waits longer than this for Redis tells its clients so.
const STARTUP_RESPONDER_AFTER: Duration = Duration::from_secs(1);
/// How long a repeated publish id counts as the same.
const DEDUPE_WINDOW: Duration = Duration::from_secs(300);
/// What the process inherited from the supervisor.
#[derive(Debug)]
pub struct Inherited {
    /// Our end of the control socket.
    pub control: OwnedFd,
    /// The listeners of the slot.
    pub listeners: Vec<OwnedFd>,
    /// The listener for metrics and health, which all workers share.
    pub admin: Option<OwnedFd>,
    /// What this worker received at its start.
    pub setup: Setup,
    /// Lines of the log of this process that could not be written.
    pub log_lines_dropped: fn() -> u64,
}

/// Serves until told to leave. The runtime is built here; call it from a plain thread.
pub fn run(inherited: Inherited) -> Exit {
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "runtime not built");
            return Exit::Internal;
        }
    };
    let exit = runtime.block_on(live(inherited));
    // A thread may hang in a call, to a disk or a name server: nothing waits for it.
    runtime.shutdown_background();
    exit
}

async fn live(inherited: Inherited) -> Exit {
    let supervisor = match Supervisor::new(inherited.control) {
        Ok(supervisor) => Rc::new(supervisor),
        Err(error) => {
            error!(%error, "control socket not usable");
            return Exit::Internal;
        }
    };
    let listeners = match inherited
        .listeners
        .into_iter()
        .map(listener)
        .collect::<io::Result<Vec<_>>>()
    {
        Ok(listeners) => listeners,
        Err(error) => return fail(&supervisor, Exit::Internal, format!("listener not usable: {error}")).await,
    };
    let admin = Admin::new(supervisor.clone());
    match inherited.admin.map(listener).transpose() {
        Ok(Some(listener)) => drop(tokio::task::spawn_local(admin.clone().receive(listener))),
        Ok(None) => {}
        Err(error) => warn!(%error, "admin listener not usable"),
    }
    let (reason, reasons) = watch::channel(String::new());
    let opened = tokio::select! {
        opened = open_store(&inherited.setup, &reason) => opened,
        never = receive(&listeners) => match never {},
        () = control::dismissed(&supervisor, &admin) => return Exit::Done,
        never = supervisor.say_waiting(reasons) => match never {},
    };
    let (store, tail) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let reason = refused(&error, inherited.setup.settings.redis.as_ref());
            return fail(&supervisor, Exit::Config, reason).await;
        }
    };
    let worker = Worker::new(inherited.setup, store, tail.position(), inherited.log_lines_dropped);
    admin.serves(&worker);
    tokio::task::spawn_local(tailer::run(worker.clone(), tail));
    tokio::task::spawn_local(control::obey(worker.clone(), supervisor.clone(), admin.clone()));
    tokio::task::spawn_local(control::heed_sigterm(worker.clone()));
    for listener in listeners {
        tokio::task::spawn_local(accept(worker.clone(), listener));
    }
    supervisor.send(&ToSupervisor::ready()).await;
    info!(slot = worker.slot, incarnation = %worker.incarnation, "worker ready to serve");
    tokio::task::spawn_local(ingest::run(worker.clone()));
    tokio::task::spawn_local(sweep::run(worker.clone()));
    tokio::task::spawn_local(evictions::watch(worker.clone()));
    tokio::task::spawn_local(ready::watch_checks(worker.clone()));
    tokio::task::spawn_local(notes::run(worker.clone()));
    tokio::task::spawn_local(control::beat(worker.clone(), supervisor.clone()));
    tokio::task::spawn_local(report::tell(worker.clone(), supervisor.clone()));
    let sockets = || worker.sockets.borrow().len() as u64;
    let clean = drain::leave(&worker, &supervisor).await;
    let cut = if clean { 0 } else { sockets() };
    notes::finish(&worker).await;
    admin.leave().await;
    report::tell_now(&worker, &supervisor).await;
    let closed = worker.counters.closed_by_drain.get();
    supervisor.send(&ToSupervisor::Drained { closed, cut }).await;
    info!(closed, cut, "worker stopped");
    Exit::Done
}

/// Answers what can be answered without a store, if that takes long: a worker that is up in a moment
/// leaves its clients in the accept queue for that moment.
async fn receive(listeners: &[TcpListener]) -> Infallible {
    sleep(STARTUP_RESPONDER_AFTER).await;
    join_all(listeners.iter().map(startup_responder::receive)).await;
    pending().await
}

async fn fail(supervisor: &Supervisor, exit: Exit, reason: String) -> Exit {
    error!(reason, "worker cannot serve");
    supervisor
        .send(&ToSupervisor::Failed {
            code: exit.code(),
            reason,
        })
        .await;
    exit
}

/// Opens the store; as long as Redis is away, or takes no writes, tries again: the worker is not ready until then. Why, is
/// said in `reason`.
async fn open_store(setup: &Setup, reason: &watch::Sender<String>) -> Result<(Store, Tail), StoreError> {
    let options = options(&setup.settings, setup.incarnation.as_str());
    let redis = setup
        .settings
        .redis
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    reason.send_replace(format!("{redis} has not answered yet"));
    let mut told = false;
    loop {
        match Store::open(options.clone()).await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.cure() == Cure::Time => {
                reason.send_replace(format!("{redis}: {error}"));
                if !told {
                    warn!(redis, %error, "redis not usable yet: trying again");
                    told = true;
                }
                sleep(REDIS_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Why no worker can serve with this Redis, which part of `redis.url` is meant, and what helps.
fn refused(error: &StoreError, redis: Option<&boot::Redis>) -> String {
    let Some(redis) = redis else {
        return error.to_string();
    };
    let told = format!("redis.url: {redis}: {error}");
    let remedy = match (error, &redis.username, &redis.password) {
        (StoreError::Unauthorized { .. }, None, None) => {
            "it wants a password, and the URL has none: write redis://:PASSWORD@HOST:PORT in redis.url, or REDIS_URL"
        }
        (StoreError::Unauthorized { .. }, None, Some(_)) => {
            "the password of the URL is wrong, or it wants a user too: correct redis.url, or REDIS_URL"
        }
        (StoreError::Unauthorized { .. }, Some(_), _) => {
            "the user or the password of the URL is wrong, or the user is off (`ACL LIST`): correct redis.url, or REDIS_URL"
        }
        (StoreError::TooOld { .. }, ..) => "upgrade it, or name another one",
        (StoreError::Clustered, ..) => "name one that runs alone, with replicas or without",
        (
            StoreError::NotRedis {
                speaks: Speaks::Plain | Speaks::Tls,
                ..
            },
            ..,
        ) => "correct redis.url, or REDIS_URL",
        (StoreError::NotRedis { .. }, ..) => "set redis.url (or REDIS_URL) to where Redis listens",
        (
            StoreError::Corrupt { .. }
            | StoreError::OutOfMemory { .. }
            | StoreError::Refused { .. }
            | StoreError::Timeout { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Unwritable { .. },
            ..,
        ) => "`anyworker doctor` tells more",
    };
    format!("{told}; {remedy}")
}

fn options(settings: &Settings, me: &str) -> Options {
    let log = &settings.log;
    let backend = match &settings.redis {
        None => Backend::Memory,
        Some(redis) => Backend::Redis(RedisOptions {
            endpoint: match &redis.endpoint {
                RedisEndpoint::Tcp { host, port } => Endpoint::Tcp {
                    host: host.clone(),
                    port: *port,
                },
                RedisEndpoint::Tls { host, port } => Endpoint::Tls {
                    host: host.clone(),
                    port: *port,
                },
                RedisEndpoint::Unix { path } => Endpoint::Unix { path: path.clone() },
            },
            db: redis.db,
            username: redis.username.clone(),
            password: redis.password.as_ref().map(|secret| secret.expose().to_owned()),
            ca_file: redis.ca_file.clone(),
            pool_size: redis.pool_size,
            connect_timeout: redis.connect_timeout,
            response_timeout: redis.response_timeout,
        }),
    };
    let prefix = settings
        .redis
        .as_ref()
        .map_or_else(|| "socketio".to_owned(), |redis| redis.prefix.clone());
    Options {
        backend,
        me: me.to_owned(),
        prefix,
        ping_interval: settings.engine.ping_interval,
        ping_timeout: settings.engine.ping_timeout,
        session_ttl: crate::context::session_ttl(settings),
        log_entries_max: log.entries_max,
        log_bytes_max: log.bytes_max,
        log_age_max: log.age_max,
        entry_bytes_max: log.entry_bytes_max,
        queue_bytes_max: log.queue_bytes_max,
        publish_timeout: log.publish_timeout,
        dedupe_window: DEDUPE_WINDOW,
        canary_interval: log.canary_interval,
    }
}
