//! How the supervisor hears of what a worker counts.

use crate::lifecycle::Phase;
use crate::metrics::{Held, Metrics, Spoken};
use crate::ready;
use crate::supervisor::{Supervisor, in_step};
use crate::worker::Worker;
use boot::{Process, ToSupervisor};
use meter::{Family, Snapshot, text_of};
use std::rc::Rc;
use std::time::Duration;

/// Everything that a page of this build shows.
pub(crate) fn families() -> Vec<Family> {
    let mut families = boot::Supervision::new().families();
    let known: Vec<&str> = families.iter().map(|family| family.name).collect();
    let mut ours = Metrics::new().families();
    ours.extend(store::Counts::new().families());
    families.extend(ours.into_iter().filter(|family| !known.contains(&family.name)));
    families
}

/// What this worker has counted.
pub(crate) fn snapshot(worker: &Worker) -> Snapshot {
    let metrics = &worker.metrics;
    look(worker);
    let mut snapshot = Snapshot::default();
    metrics.read(&mut snapshot);
    worker.store.counts().read(&mut snapshot);
    snapshot
}

/// What is not counted when it happens.
fn look(worker: &Worker) {
    let metrics = &worker.metrics;
    let sockets = worker.sockets.borrow().len() as u64;
    let parks = worker.hub.borrow().parked() as u64;
    metrics
        .connections
        .set_count(Spoken::Http, worker.counters.connections.get());
    metrics.connections.set_count(Spoken::Websocket, sockets);
    metrics.connections_max.set_count(worker.connections_max);
    metrics.sessions.set_count(Held::Websocket, sockets);
    metrics.sessions.set_count(Held::Parked, parks);
    metrics.ready.set_count(u64::from(ready::is_ready(worker)));
    metrics.redis_up.set_count(u64::from(ready::is_redis_up(worker)));
    metrics.slow.set_count(worker.counters.stuck.get());
    metrics.buffers.set_count(worker.budget.held() as u64);
    metrics
        .buffers_max
        .set_count(worker.settings.limits.buffers_bytes_max as u64);
    let unsettled = worker.unsettled.borrow_mut().count();
    metrics.unsettled.set_count(unsettled as u64);
    let ring = worker.ring.borrow();
    metrics.position.set_count(ring.head().seq());
    metrics.reread.set(worker.catch_up.reread());
    metrics.ring.set_count(ring.bytes() as u64);
    let left = if worker.lifecycle.is_serving() {
        0
    } else {
        sockets + parks
    };
    metrics.drain_remaining.set_count(left);
    if worker.settings.redis.is_some() {
        metrics.canary_age.set(worker.canary_seen.get().elapsed().as_secs_f64());
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let us = u64::try_from(cpu.tv_sec).unwrap_or_default() * 1_000_000
        + u64::try_from(cpu.tv_nsec).unwrap_or_default() / 1_000;
    metrics.cpu.set_us(us);
    let dropped = (worker.log_lines_dropped)();
    metrics.log_dropped.set(text_of(Process::Worker), dropped);
}

/// Tells the supervisor now and then, for as long as the worker runs.
pub(crate) async fn tell(worker: Rc<Worker>, supervisor: Rc<Supervisor>) {
    let mut ticks = in_step(Duration::from_millis(ToSupervisor::METRICS_EVERY_MS));
    loop {
        ticks.tick().await;
        tell_now(&worker, &supervisor).await;
        if *worker.lifecycle.phase.borrow() == Phase::Stopping {
            return;
        }
    }
}

/// Tells the supervisor what has been counted until now, if it wants to know.
pub(crate) async fn tell_now(worker: &Worker, supervisor: &Supervisor) {
    if worker.tells {
        supervisor.send(&ToSupervisor::Metrics(snapshot(worker))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meter::{Distribution, Kind};

    const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    const BEGIN: &str = "| metric | labels | what |\n|---|---|---|\n";

    fn table() -> String {
        families().iter().map(row).collect()
    }

    fn row(family: &Family) -> String {
        let (texts, worker) = match family.kind {
            Kind::Counter(texts) | Kind::Histogram(texts, _) => (texts, false),
            Kind::Gauge(texts, rule) => (texts, rule.by_worker()),
            Kind::Info => (&["version=…"][..], false),
            Kind::Time => (&[][..], false),
        };
        let kind = match family.kind {
            Kind::Counter(_) | Kind::Time => "counter",
            Kind::Gauge(..) | Kind::Info => "gauge",
            Kind::Histogram(..) => "histogram",
        };
        let mut labels: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, value) in texts
            .iter()
            .flat_map(|text| text.split(','))
            .filter_map(|l| l.split_once('='))
        {
            match labels.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => labels.push((name, vec![value])),
            }
        }
        let mut shown: Vec<String> = labels
            .iter()
            .map(|(name, values)| format!("`{name}`: {}", values.join(", ")))
            .collect();
        shown.extend(worker.then(|| "`worker`".to_owned()));
        format!(
            "| `{}` | {} | {kind}: {} |\n",
            family.name,
            shown.join("; "),
            family.help
        )
    }

    /// `UPDATE_DOCS=1` writes it.
    #[test]
    fn every_metric_is_documented() {
        let text = std::fs::read_to_string(DOC).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
        let wanted = format!("{before}{BEGIN}{}\n{after}", table());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(DOC, &wanted).unwrap();
        }
        assert_eq!(
            text, wanted,
            "docs/metrics.md is not up to date: UPDATE_DOCS=1 cargo test"
        );
    }

    /// However long a worker lives, what it has counted fits into a message.
    #[test]
    fn everything_fits_into_a_message() {
        let mut all = Snapshot::default();
        for Family { name, kind, .. } in families() {
            let (Kind::Counter(texts) | Kind::Gauge(texts, _) | Kind::Histogram(texts, _)) = kind else {
                all.count(name, "", u64::MAX);
                continue;
            };
            for labels in texts {
                match kind {
                    Kind::Gauge(..) => all.gauge(name, labels, f64::MIN_POSITIVE),
                    Kind::Histogram(_, bounds) => {
                        let within = bounds.iter().map(|bound| (*bound, u64::MAX)).collect();
                        let distribution = Distribution {
                            sum: f64::MAX,
                            within,
                            beyond: u64::MAX,
                        };
                        all.distribute(name, labels, distribution);
                    }
                    Kind::Counter(_) | Kind::Info | Kind::Time => all.count(name, labels, u64::MAX),
                }
            }
        }
        let bytes = boot::encode(&ToSupervisor::Metrics(all)).unwrap().len();
        assert!(bytes < boot::MESSAGE_BYTES_MAX / 2, "{bytes} bytes");
    }

    #[test]
    fn names_say_what_they_are() {
        let families = families();
        for Family { name, help, kind } in &families {
            let counter = matches!(kind, Kind::Counter(_) | Kind::Time);
            assert_eq!(counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("gw_") && help.ends_with('.'), "{name}: {help}");
            assert_eq!(families.iter().filter(|other| other.name == *name).count(), 1, "{name}");
        }
    }
}
