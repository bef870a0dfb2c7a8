//! A worker's life: up, serving, out.

use crate::admin::Admin;
use crate::control::{self, Control};
use crate::http::{Held, IdlePolicy};
use crate::metrics::Limit;
use crate::worker::Worker;
use crate::{drain, evictions, http, ingest, metrics, ready, startup_responder, tailer, trace};
use boot::{Engine, Exit, RedisEndpoint, Settings, Setup, ToSupervisor};
use futures_util::future::join_all;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::{Backend, Cure, Endpoint, Options, RedisOptions, Speaks, Store, StoreError, Tail};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

/// Between two attempts to reach Redis at start.
const REDIS_RETRY: Duration = Duration::from_millis(500);
/// A worker that waits longer than this for Redis tells its clients so.
const STARTUP_RESPONDER_AFTER: Duration = Duration::from_secs(1);
/// How long a repeated publish id counts as the same.
const DEDUPE_WINDOW: Duration = Duration::from_secs(300);
/// Of failures of accept(2) the first is reported, and then every so many.
const ACCEPT_WARN_EVERY: u64 = 200;
/// What accept(2) says when the process, or the system, has no more descriptors.
const EXHAUSTED: [i32; 2] = [
    rustix::io::Errno::MFILE.raw_os_error(),
    rustix::io::Errno::NFILE.raw_os_error(),
];
/// When accept(2) fails for want of file descriptors or memory, this long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// While a worker has as many connections as it may have, those without a request are closed this often.
const SHED_EVERY: Duration = Duration::from_secs(1);
/// A client is given so long, at least, to take what was sent to it.
const STALL_MIN: Duration = Duration::from_secs(10);

/// What the process inherited from the supervisor.
#[derive(Debug)]
pub struct Inherited {
    /// Our end of the control socket.
    pub control: OwnedFd,
    /// The listeners of the slot.
    pub listeners: Vec<OwnedFd>,
    /// The listener for metrics and health, which all workers share.
    pub admin: Option<OwnedFd>,
    /// What we are told at birth.
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
    // A thread may hang in a call, to a disk or a name server: nobody waits for it.
    runtime.shutdown_background();
    exit
}

async fn live(inherited: Inherited) -> Exit {
    let control = match Control::new(inherited.control) {
        Ok(control) => Rc::new(control),
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
        Err(error) => return fail(&control, Exit::Internal, format!("listener not usable: {error}")).await,
    };
    let admin = Admin::new(control.clone());
    match inherited.admin.map(listener).transpose() {
        Ok(Some(listener)) => drop(tokio::task::spawn_local(admin.clone().receive(listener))),
        Ok(None) => {}
        Err(error) => warn!(%error, "admin listener not usable"),
    }
    let (reason, reasons) = watch::channel(String::new());
    let opened = tokio::select! {
        opened = open_store(&inherited.setup, &reason) => opened,
        never = receive(&listeners) => match never {},
        () = control.dismissed(&admin) => return Exit::Done,
        never = control.say_waiting(reasons) => match never {},
    };
    let (store, tail) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let reason = refused(&error, inherited.setup.settings.redis.as_ref());
            return fail(&control, Exit::Config, reason).await;
        }
    };
    let worker = Worker::new(inherited.setup, store, tail.position(), inherited.log_lines_dropped);
    admin.serves(&worker);
    tokio::task::spawn_local(tailer::run(worker.clone(), tail));
    tokio::task::spawn_local(control::obey(worker.clone(), control.clone(), admin.clone()));
    tokio::task::spawn_local(control::heed_sigterm(worker.clone()));
    for listener in listeners {
        tokio::task::spawn_local(accept(worker.clone(), listener));
    }
    control.send(&ToSupervisor::ready()).await;
    info!(slot = worker.slot, incarnation = %worker.incarnation, "worker is ready");
    tokio::task::spawn_local(ingest::run(worker.clone()));
    tokio::task::spawn_local(evictions::watch(worker.clone()));
    tokio::task::spawn_local(ready::watch_checks(worker.clone()));
    tokio::task::spawn_local(trace::run(worker.clone()));
    tokio::task::spawn_local(control::beat(worker.clone(), control.clone()));
    tokio::task::spawn_local(metrics::tell(worker.clone(), control.clone()));
    let sockets = || worker.sockets.borrow().len() as u64;
    let clean = drain::leave(&worker, &control).await;
    let cut = if clean { 0 } else { sockets() };
    trace::finish(&worker).await;
    admin.leave().await;
    metrics::tell_now(&worker, &control).await;
    let closed = worker.counters.closed_by_drain.get();
    control.send(&ToSupervisor::Drained { closed, cut }).await;
    info!(closed, cut, "worker leaves");
    Exit::Done
}

/// Answers what can be answered without a store, if that takes long: a worker that is up in a moment
/// leaves its clients in the accept queue for that moment.
async fn receive(listeners: &[TcpListener]) -> Infallible {
    sleep(STARTUP_RESPONDER_AFTER).await;
    join_all(listeners.iter().map(startup_responder::receive)).await;
    pending().await
}

async fn fail(control: &Control, exit: Exit, reason: String) -> Exit {
    error!(reason, "worker cannot serve");
    control
        .send(&ToSupervisor::Failed {
            code: exit.code(),
            reason,
        })
        .await;
    exit
}

pub(crate) fn listener(fd: OwnedFd) -> io::Result<TcpListener> {
    let listener = StdListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
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
                    warn!(redis, %error, "redis cannot be used yet, trying again; clients are served when it can");
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
        session_ttl: crate::worker::session_ttl(settings),
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

/// A client that takes nothing of what was sent is like one that says nothing: after the same time the kernel ends its
/// connection. Without that, one that never opens its window would keep an answer, and a connection, for ever. What is
/// accepted has it from its listener.
fn bound_stalls(engine: &Engine, listener: &TcpListener) {
    let patience = (engine.ping_interval + engine.ping_timeout).max(STALL_MIN);
    let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(listener, millis) {
        debug!(%error, "clients may take their time");
    }
}

/// Takes connections from the slot's listener until the worker drains. What is in the accept queue
/// then belongs to the next worker of the slot, which has the same listener. If there will be none, it goes on to the end.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    bound_stalls(&worker.settings.engine, &listener);
    let mut phase = worker.phase.subscribe();
    let mut failures: u64 = 0;
    let mut was_full = false;
    let mut shed_at = None;
    loop {
        let is_full = !worker.has_room(1);
        if is_full && !was_full {
            worker.metrics.limits.one(Limit::Connections);
        }
        was_full = is_full;
        if is_full {
            if worker.is_serving() && shed_at.is_none_or(|at: Instant| at.elapsed() >= SHED_EVERY) {
                shed_at = Some(Instant::now());
                worker.idle_policy.send_replace(IdlePolicy::Shed);
            }
            // They wait in the accept queue, where nothing is lost.
            tokio::select! {
                () = sleep(ACCEPT_PAUSE) => {}
                _ = phase.wait_for(|phase| !phase.accepts()) => return,
            }
            worker.idle_policy.send_if_modified(|idle_policy| {
                let sheds = matches!(idle_policy, IdlePolicy::Shed);
                if sheds {
                    *idle_policy = IdlePolicy::Stay;
                }
                sheds
            });
            continue;
        }
        let accepted = tokio::select! {
            // First: what is in the queue when the order to leave is here belongs to the next worker.
            biased;
            _ = phase.wait_for(|phase| !phase.accepts()) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // TCP_NODELAY and TCP_USER_TIMEOUT it has from the listener.
            Ok((tcp, peer)) => {
                worker.metrics.accepted.one();
                http::admit(&worker, Held::new(tcp), peer);
            }
            Err(error) => {
                failures += 1;
                let out_of_descriptors = error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code));
                if out_of_descriptors {
                    worker.metrics.limits.one(Limit::Descriptors);
                }
                if failures.is_multiple_of(ACCEPT_WARN_EVERY) || failures == 1 {
                    warn!(%error, failures, "connection not accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
