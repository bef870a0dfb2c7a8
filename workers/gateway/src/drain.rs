//! Drain: no new connections, polls answered, WebSockets given to another worker or closed one by one,
//! and an end to it.

use crate::ending::Ending;
use crate::handover::Handoff;
use crate::lifecycle::{IdlePolicy, Phase};
use crate::sockets::Socket;
use crate::supervisor::Supervisor;
use crate::worker::Worker;
use boot::ToSupervisor;
use rustc_hash::FxHashSet;
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};
use tracing::info;

/// WebSockets are sent away over this part of the grace; the rest is for goodbyes.
const WINDOW_PART: f64 = 0.5;
/// No drain of WebSockets takes longer, however long the grace (a reload is not to be held up).
const WINDOW_MAX: Duration = Duration::from_secs(10);
/// How long connections between two requests stay open: a request that is on its way when they close would fail.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Between two looks at what is still open.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for the order to drain, and drains: true if every connection ended in time.
pub(crate) async fn leave(worker: &Rc<Worker>, supervisor: &Supervisor) -> bool {
    let mut phase = worker.lifecycle.phase.subscribe();
    let left = phase
        .wait_for(|phase| *phase != Phase::Serving)
        .await
        .map(|phase| *phase);
    match left {
        Ok(Phase::Draining { deadline, .. }) => {
            info!(sockets = worker.sockets.borrow().len(), "drain started");
            tokio::select! {
                () = send_away(worker, supervisor, deadline) => {}
                () = sleep_until(deadline.into()) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
            }
        }
        Ok(Phase::Serving | Phase::Stopping) | Err(_) => {}
    }
    cut(worker).await
}

async fn send_away(worker: &Rc<Worker>, supervisor: &Supervisor, deadline: Instant) {
    // Who comes in later, by an upgrade, has its own turn below.
    let first = sockets(worker);
    let successors = worker.lifecycle.successors.take();
    let mut handoff = None;
    if !successors.is_empty() {
        let handoff = handoff.insert(Handoff::begin(worker, successors).await);
        handoff.give_all().await;
        handoff.give_idle().await;
        let report = handoff.finish().await;
        supervisor.send(&ToSupervisor::Given(report)).await;
    }
    tokio::select! {
        () = close_sockets(worker, &first, handoff, deadline) => {}
        never = close_idle(worker) => match never {},
    }
}

async fn close_idle(worker: &Worker) -> Infallible {
    sleep(IDLE_GRACE).await;
    worker.lifecycle.idle_policy.send_replace(IdlePolicy::Close);
    pending().await
}

/// Closes those of `first` that are still here, and new WebSockets (upgrades that end meanwhile), until none is left.
async fn close_sockets(worker: &Rc<Worker>, first: &[Rc<dyn Socket>], mut handoff: Option<Handoff>, deadline: Instant) {
    let stayed = still_here(worker, first);
    let window = deadline
        .saturating_duration_since(Instant::now())
        .mul_f64(WINDOW_PART)
        .min(WINDOW_MAX);
    if let Ok(count) = u32::try_from(stayed.len())
        && count > 0
    {
        // At a steady pace: the clients that come back are a stream, not a flood.
        let pace = (window / count).min(Duration::from_millis(5));
        for socket in stayed {
            socket.end(Ending::Drain);
            sleep(pace).await;
        }
    }
    while worker.counters.connections.get() > 0 || !worker.sockets.borrow().is_empty() {
        let late = sockets(worker);
        if let Some(handoff) = &mut handoff {
            handoff.give_late(&late).await;
        }
        for socket in still_here(worker, &late) {
            socket.end(Ending::Drain);
        }
        sleep(LOOK).await;
    }
    if let Some(handoff) = &mut handoff {
        handoff.finish().await;
    }
}

fn sockets(worker: &Worker) -> Vec<Rc<dyn Socket>> {
    worker
        .sockets
        .borrow()
        .iter()
        .map(|(_, socket)| socket.clone())
        .collect()
}

/// Tells sockets from each other.
fn address(socket: &Rc<dyn Socket>) -> *const () {
    Rc::as_ptr(socket).cast()
}

/// Those of `known` that have neither moved nor ended.
fn still_here(worker: &Worker, known: &[Rc<dyn Socket>]) -> Vec<Rc<dyn Socket>> {
    let known: FxHashSet<_> = known.iter().map(address).collect();
    let mut here = sockets(worker);
    here.retain(|socket| known.contains(&address(socket)));
    here
}

/// Ends what is left; whether nothing was.
async fn cut(worker: &Rc<Worker>) -> bool {
    worker.lifecycle.phase.send_replace(Phase::Stopping);
    worker.lifecycle.idle_policy.send_replace(IdlePolicy::Close);
    let left = sockets(worker);
    for socket in &left {
        socket.end(Ending::Drain);
    }
    if !left.is_empty() {
        // One turn of the loop for their close frames.
        sleep(LOOK).await;
    }
    left.is_empty()
}
