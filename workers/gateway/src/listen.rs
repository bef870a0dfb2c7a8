//! Listeners of the worker: its slot's, and those that are lent to it.

use crate::http;
use crate::lifecycle::{Held, IdlePolicy};
use crate::metrics::Limit;
use crate::worker::Worker;
use boot::Engine;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Of failures of accept(2) the first is reported, then one in this many.
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
/// Minimum time that a client has to read what was sent to it.
const STALL_MIN: Duration = Duration::from_secs(10);

/// Makes a listener of a descriptor; needs a runtime.
pub(crate) fn listener(fd: OwnedFd) -> io::Result<TcpListener> {
    let listener = StdListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A client that takes nothing of what was sent is like one that says nothing: after the same time the kernel ends its
/// connection. Without that, one that never opens its window would keep an answer, and a connection, for ever. What is
/// accepted has it from its listener.
fn bound_stalls(engine: &Engine, listener: &TcpListener) {
    let patience = (engine.ping_interval + engine.ping_timeout).max(STALL_MIN);
    let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(listener, millis) {
        debug!(%error, "TCP user timeout not set");
    }
}

/// Takes connections from the slot's listener until the worker drains. What is in the accept queue
/// then belongs to the next worker of the slot, which has the same listener. If there will be none, it goes on to the end.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    bound_stalls(&worker.settings.engine, &listener);
    let mut phase = worker.lifecycle.phase.subscribe();
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
            if worker.lifecycle.is_serving() && shed_at.is_none_or(|at: Instant| at.elapsed() >= SHED_EVERY) {
                shed_at = Some(Instant::now());
                worker.lifecycle.idle_policy.send_replace(IdlePolicy::Shed);
            }
            // They wait in the accept queue, where nothing is lost.
            tokio::select! {
                () = sleep(ACCEPT_PAUSE) => {}
                _ = phase.wait_for(|phase| !phase.accepts()) => return,
            }
            worker.lifecycle.idle_policy.send_if_modified(|idle_policy| {
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
