//! The worker's end of the control socket: heartbeats to the supervisor, orders from it. End of
//! file means that the supervisor is gone: drain and exit.

use crate::admin::Admin;
use crate::channel::Channel;
use crate::handover;
use crate::lifecycle::{Phase, Successor};
use crate::supervisor::{Supervisor, in_step};
use crate::worker::Worker;
use crate::{listen, ready};
use boot::{Beat, ToSupervisor, ToWorker};
use session::trace::Value::Text;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

/// How long a worker drains whose supervisor is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);
/// A beat so late says that the loop stood still.
const LATE: Duration = Duration::from_millis(500);
/// A worker that dies while Redis is away has its leases voided by then or not at all: they have run out.
const VOID_PATIENCE: Duration = Duration::from_secs(600);
/// Between two attempts.
const VOID_RETRY: Duration = Duration::from_millis(500);
/// Beats from one look at the memory to the next.
const RSS_EVERY: u64 = 8;

/// Waits, before there is anything to drain, for the order to leave.
pub(crate) async fn dismissed(supervisor: &Supervisor, admin: &Admin) {
    let mut buffer = vec![0; boot::MESSAGE_BYTES_MAX];
    while let Some((order, descriptors)) = supervisor.receive(&mut buffer).await {
        match order {
            ToWorker::Scraped { id } => admin.answered(id, descriptors),
            ToWorker::Drain { .. } | ToWorker::Stop => return,
            ToWorker::Give { .. }
            | ToWorker::Lend { .. }
            | ToWorker::Recall { .. }
            | ToWorker::Take
            | ToWorker::WorkerGone { .. } => {}
        }
    }
}

/// Resident memory of this process: the second number of `/proc/self/statm`, proc(5).
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// Sends heartbeats, for as long as the worker runs.
pub(crate) async fn beat(worker: Rc<Worker>, supervisor: Rc<Supervisor>) {
    let every = Duration::from_millis(Beat::EVERY_MS);
    let mut ticks = in_step(every);
    let mut last = Instant::now();
    let (mut nth, mut rss_bytes) = (0_u64, 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = worker.lifecycle.moved.notified() => {}
        }
        if nth.is_multiple_of(RSS_EVERY) {
            rss_bytes = resident_bytes().unwrap_or_default();
        }
        nth += 1;
        let lag = last.elapsed().saturating_sub(every);
        worker.metrics.lag.observe(lag.as_secs_f64());
        worker.metrics.rss.set_count(rss_bytes);
        let sockets = worker.sockets.borrow().len() as u64;
        let beat = Beat {
            connections: worker.counters.connections.get() + sockets,
            sessions: sockets + worker.hub.borrow().parked() as u64,
            lag_us: u64::try_from(lag.as_micros()).unwrap_or(u64::MAX),
            sockets,
            ready: ready::is_ready(&worker),
            failing: ready::failing(&worker),
            rss_bytes,
            log_epoch: worker.head().epoch(),
            log_seq: worker.head().seq(),
            // A loop that stood still has not listened.
            log_stalled: lag < LATE && ready::log_is_stalled(&worker),
        };
        supervisor.send(&ToSupervisor::Beat(beat)).await;
        last = Instant::now();
    }
}

/// Carries out the supervisor's orders, until the last one: stop.
pub(crate) async fn obey(worker: Rc<Worker>, supervisor: Rc<Supervisor>, admin: Rc<Admin>) {
    let mut buffer = vec![0; boot::MESSAGE_BYTES_MAX];
    let mut lent = Lent::default();
    loop {
        let Some((order, descriptors)) = supervisor.receive(&mut buffer).await else {
            info!("supervisor is gone: draining");
            worker.lifecycle.orphan.set(true);
            admin.close();
            // Its listeners close with it: new connections are for the next supervisor.
            return worker.lifecycle.drain(Instant::now() + ORPHAN_GRACE, false);
        };
        match order {
            ToWorker::Drain {
                grace_ms,
                notice_ms,
                last,
            } => {
                let deadline = Instant::now() + Duration::from_millis(grace_ms);
                give_notice(worker.clone(), Duration::from_millis(notice_ms), deadline, last);
            }
            ToWorker::Give { most, leaving } => {
                let Some(channel) = channel(descriptors) else { continue };
                let successor = Successor::new(channel, most);
                if leaving {
                    worker.lifecycle.successors.borrow_mut().push(successor);
                    worker.lifecycle.successor_came.notify_one();
                } else {
                    let (worker, supervisor) = (worker.clone(), supervisor.clone());
                    tokio::task::spawn_local(async move {
                        let report = handover::give(&worker, vec![successor]).await;
                        worker.lifecycle.moved.notify_one();
                        // The beat goes first.
                        tokio::task::yield_now().await;
                        supervisor.send(&ToSupervisor::Given(report)).await;
                    });
                }
            }
            ToWorker::Lend { slot } => lent.borrow(&worker, slot, descriptors),
            ToWorker::Recall { slot } => lent.give_back(slot),
            ToWorker::Scraped { id } => admin.answered(id, descriptors),
            ToWorker::Stop => {
                worker.lifecycle.phase.send_replace(Phase::Stopping);
            }
            ToWorker::Take => {
                if let Some(channel) = channel(descriptors) {
                    tokio::task::spawn_local(handover::take(worker.clone(), channel));
                }
            }
            ToWorker::WorkerGone { incarnation } => {
                let worker = worker.clone();
                tokio::task::spawn_local(async move { void_leases(&worker, incarnation.as_str()).await });
            }
        }
    }
}

/// The way to another worker, that came with an order.
fn channel(descriptors: Vec<OwnedFd>) -> Option<Rc<Channel>> {
    let descriptor = descriptors.into_iter().next()?;
    match Channel::new(descriptor) {
        Ok(channel) => Some(Rc::new(channel)),
        Err(error) => {
            warn!(%error, "channel to another worker not usable");
            None
        }
    }
}

/// Listeners of slots without a serving worker, with the task that accepts from each.
#[derive(Default)]
struct Lent(BTreeMap<u16, Vec<JoinHandle<()>>>);

impl Lent {
    fn borrow(&mut self, worker: &Rc<Worker>, slot: u16, descriptors: Vec<OwnedFd>) {
        self.give_back(slot);
        let mut acceptors = Vec::new();
        for descriptor in descriptors {
            match listen::listener(descriptor) {
                Ok(listener) => {
                    let accepting = listen::accept(worker.clone(), listener);
                    acceptors.push(tokio::task::spawn_local(accepting));
                }
                Err(error) => warn!(slot, %error, "lent listener not usable"),
            }
        }
        info!(slot, listeners = acceptors.len(), "serving a listener of another slot");
        self.0.insert(slot, acceptors);
    }

    /// Between two connections: none is lost.
    fn give_back(&mut self, slot: u16) {
        if let Some(acceptors) = self.0.remove(&slot) {
            acceptors.iter().for_each(JoinHandle::abort);
            info!(slot, "listener returned to its slot");
        }
    }
}

/// A signal to the whole process group, or an operator's to this worker alone: it leaves, and the
/// supervisor puts another one in its place.
pub(crate) async fn heed_sigterm(worker: Rc<Worker>) {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            if terminate.recv().await.is_some() {
                info!("SIGTERM received: draining");
                worker.lifecycle.drain(Instant::now() + ORPHAN_GRACE, false);
            }
        }
        Err(error) => warn!(%error, "SIGTERM handler not installed"),
    }
}

/// Drains after the notice, during which everything but readiness continues.
fn give_notice(worker: Rc<Worker>, notice: Duration, deadline: Instant, last: bool) {
    worker.lifecycle.leaving.set(true);
    if notice.is_zero() {
        return worker.lifecycle.drain(deadline, last);
    }
    let notice_ms = u64::try_from(notice.as_millis()).unwrap_or(u64::MAX);
    info!(notice_ms, "reporting not ready, draining soon");
    tokio::task::spawn_local(async move {
        tokio::time::sleep(notice).await;
        worker.lifecycle.drain(deadline, last);
    });
}

/// What a dead worker held is void at once, or as soon as Redis is back; its sessions can be resumed.
async fn void_leases(worker: &Worker, incarnation: &str) {
    let recovery = &worker.settings.recovery;
    let window = recovery.enabled.then_some(recovery.window);
    let give_up = Instant::now() + VOID_PATIENCE;
    let voided = loop {
        let voided = match worker.store.mark_dead(incarnation).await {
            Ok(()) => worker.store.sweep_dead(incarnation, window).await,
            Err(error) => Err(error),
        };
        match voided {
            Err(error) if error.passing() && Instant::now() < give_up => {
                debug!(incarnation, %error, "leases of a dead worker not voided yet");
                tokio::time::sleep(VOID_RETRY).await;
            }
            voided => break voided,
        }
    };
    match voided {
        Ok(ended) => {
            for sid in &ended {
                worker.trace.note(sid, "worker_died", &[("worker", Text(incarnation))]);
            }
            worker.metrics.swept.add(ended.len() as u64);
            info!(incarnation, sessions = ended.len(), "leases of a dead worker voided");
        }
        Err(error) => warn!(incarnation, %error, "leases of a dead worker not voided: they time out"),
    }
}
