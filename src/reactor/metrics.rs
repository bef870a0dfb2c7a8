//! What all workers have counted, kept for requesters: the latest of each, and the sum of those that
//! have ended, so that no counter goes back when a worker does.

use super::Reactor;
use crate::fleet::{Event, FleetState, Moment, WorkerId};
use crate::sys::{log, memory};
use boot::meter::{Reading, Report, Snapshot, text_of};
use boot::{Process, Supervision, ToWorker, WorkerState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::error;

/// The counter of log lines that could not be written, in both sets of instruments.
const LOG_DROPPED: &str = "gw_log_lines_dropped_total";

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MetricsAggregator {
    latest: BTreeMap<WorkerId, (Moment, Snapshot)>,
    /// Of all workers that have ended.
    ended: Snapshot,
    /// Ends of reloads, by the labels of [`boot::ReloadResult`].
    reloads: BTreeMap<String, u64>,
    upgrades: u64,
    late: u64,
    /// Log lines that earlier binaries of this process could not write. What builds without this field say is zero.
    #[serde(default)]
    log_dropped: u64,
}

impl MetricsAggregator {
    /// A worker tells what it has counted.
    pub(super) fn note(&mut self, now: Moment, worker: WorkerId, snapshot: Snapshot) {
        self.latest.insert(worker, (now, snapshot));
    }

    /// A worker has ended; what it counted stays.
    pub(super) fn close(&mut self, worker: WorkerId) {
        if let Some((_, snapshot)) = self.latest.remove(&worker) {
            self.ended.add(&snapshot);
        }
    }

    /// A reload has ended.
    pub(super) fn reloaded(&mut self, result: boot::ReloadResult) {
        let labels = text_of(result);
        *self.reloads.entry(labels.to_owned()).or_default() += 1;
    }

    /// The supervisor continues as another binary.
    pub(super) fn upgraded(&mut self) {
        self.upgrades += 1;
    }

    /// The supervisor ran late.
    pub(super) fn ran_late(&mut self) {
        self.late += 1;
    }

    /// For the next binary of this process: lines that this one has dropped, and that go with it.
    pub(super) fn leave_log(&mut self, unwritten: u64) {
        self.log_dropped += log::lines_dropped() + unwritten;
    }

    /// Log lines that could not be written: by the supervisor, by all workers together.
    pub(super) fn log_lines_dropped(&self) -> (u64, u64) {
        let series = format!("{LOG_DROPPED}{{{}}}", text_of(Process::Worker));
        let latest = self.latest.values().map(|(_, snapshot)| snapshot);
        let of_workers = latest.chain([&self.ended]).map(|snapshot| snapshot.counter(&series));
        (self.log_dropped + log::lines_dropped(), of_workers.sum())
    }

    /// All workers together.
    fn sum(&self) -> Snapshot {
        let mut sum = self.ended.clone();
        for (_, snapshot) in self.latest.values() {
            sum.add(snapshot);
        }
        sum
    }
}

impl Reactor {
    /// A worker asks what the fleet has counted.
    pub(super) fn report_to(&mut self, worker: WorkerId, id: u64) {
        let report = self.report();
        let sent = memory::file(c"anyworker-metrics", &report).map(|file| {
            let message = ToWorker::Scraped { id };
            self.processes.send_with(worker, &message, &[file.as_fd()])
        });
        match sent {
            Ok(false) => {}
            Ok(true) => self.pending.push_back(Event::HungUp { worker }),
            Err(error) => error!(%error, "metrics not sent to the requester"),
        }
    }

    fn report(&self) -> Report {
        let now = self.now();
        let mut sum = self.aggregator.sum();
        self.supervision(now).read(&mut sum);
        let mut workers: Vec<Reading> = self
            .aggregator
            .latest
            .iter()
            .filter_map(|(id, told)| self.reading(now, *id, told))
            .collect();
        let silent = self
            .fleet
            .statistics(now)
            .silent
            .into_iter()
            .map(|(slot, silent)| Reading {
                slot,
                age_ms: 0,
                gauges: BTreeMap::from([("gw_worker_silent_seconds".to_owned(), silent.as_secs_f64())]),
            });
        workers.extend(silent);
        Report { sum, workers }
    }

    fn reading(&self, now: Moment, id: WorkerId, (told, snapshot): &(Moment, Snapshot)) -> Option<Reading> {
        let age = now.saturating_sub(*told);
        Some(Reading {
            slot: self.processes.get(id)?.slot.number(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            gauges: snapshot.gauges().clone(),
        })
    }

    /// What the supervisor knows itself.
    fn supervision(&self, now: Moment) -> Supervision {
        let of = Supervision::new();
        let (snapshot, statistics) = (self.fleet.snapshot(), self.fleet.statistics(now));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        of.started.set(since_1970.saturating_sub(now).as_secs_f64().round());
        of.generation.set_count(snapshot.generation);
        of.slots.set_count(u64::from(statistics.slots));
        of.degraded.set_count(u64::from(snapshot.state == FleetState::Degraded));
        of.reloading
            .set_count(u64::from(snapshot.state == FleetState::Reloading));
        let states = [
            (WorkerState::Aborting, &["aborting", "exiting", "killed"][..]),
            (WorkerState::Backoff, &["backoff", "parked"]),
            (WorkerState::Booting, &["booting"]),
            (WorkerState::Draining, &["draining", "stopping"]),
            (WorkerState::Lagging, &["lagging"]),
            (WorkerState::Ready, &["ready", "unready"]),
        ];
        for (state, names) in states {
            let rows = snapshot.rows.iter().filter(|row| names.contains(&row.state));
            of.workers.set_count(state, rows.count() as u64);
        }
        statistics
            .restarts
            .iter()
            .for_each(|(labels, n)| of.restarts.set(labels, *n));
        of.spawned.set(statistics.spawned);
        self.aggregator
            .reloads
            .iter()
            .for_each(|(labels, n)| of.reloads.set(labels, *n));
        of.upgrades.set(self.aggregator.upgrades);
        of.late.set(self.aggregator.late);
        let (dropped, _) = self.aggregator.log_lines_dropped();
        of.log_dropped.set(text_of(Process::Supervisor), dropped);
        of
    }
}
