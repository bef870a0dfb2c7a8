//! `/api/live` and `/api/ready`, in the shape that the guide's readers know.

use crate::answer::{Answer, body};
use crate::checks::passes;
use crate::worker::Worker;
use boot::Beat;
use http::StatusCode;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often the configured checks run without a request, so that `status` and reloads know their outcome.
const CHECKS_EVERY: Duration = Duration::from_secs(5);

/// The event loop turns: nothing else is looked at.
pub(crate) fn live() -> Answer {
    body(StatusCode::OK, "application/json", r#"{"status":"live"}"#)
}

/// Whether clients should be sent here.
pub(crate) async fn ready(worker: &Worker) -> Answer {
    let mut checks = BTreeMap::new();
    let redis = worker.settings.redis.is_some();
    if redis {
        checks.insert("redis", is_redis_up(worker));
    }
    checks.insert("log", is_log_heard(worker));
    checks.extend(probe(worker).await);
    let draining = worker.lifecycle.leaving.get() || !worker.lifecycle.is_serving();
    let all = checks.values().all(|passed| *passed);
    let status = match (draining, all) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not_ready",
    };
    let security = &worker.settings.security.checks;
    let mut json = serde_json::json!({
        "status": status,
        "checks": checks,
        "security_validated": !security.is_empty() && security.values().all(|passed| *passed),
        "security_checks": security,
        "multi_worker_support": redis && worker.workers > 1 && is_redis_up(worker),
        "workers": worker.workers,
    });
    if let Some(json) = json.as_object_mut().filter(|_| redis) {
        let age = worker.canary_seen.get().elapsed().as_millis();
        json.insert(
            "canary_age_ms".to_owned(),
            u64::try_from(age).unwrap_or(u64::MAX).into(),
        );
    }
    let code = if status == "ready" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    body(code, "application/json", json.to_string())
}

/// Carries the configured checks out, and remembers which of them fail.
async fn probe(worker: &Worker) -> Vec<(&str, bool)> {
    let checks = worker.settings.checks.iter();
    let probes = checks.map(async |(name, check)| (name.as_str(), passes(&worker.disks, check).await));
    let outcomes = futures_util::future::join_all(probes).await;
    let failing = outcomes.iter().filter(|(_, passed)| !passed);
    worker
        .failing
        .replace(failing.map(|(name, _)| (*name).to_owned()).collect());
    outcomes
}

/// Carries the configured checks out every now and then, for the supervisor.
pub(crate) async fn watch_checks(worker: Rc<Worker>) {
    if worker.settings.checks.is_empty() {
        return;
    }
    let mut told = Vec::new();
    loop {
        probe(&worker).await;
        let failing = worker.failing.borrow().clone();
        if failing != told {
            if failing.is_empty() {
                info!("all checks pass");
            } else {
                warn!(checks = failing.join(" "), "checks fail");
            }
            told = failing;
        }
        sleep(CHECKS_EVERY).await;
    }
}

/// Checks that do not pass, for the heartbeat.
pub(crate) fn failing(worker: &Worker) -> Vec<String> {
    let own = [("redis", is_redis_up(worker)), ("log", is_log_heard(worker))];
    let own = own
        .into_iter()
        .filter(|(_, passed)| !passed)
        .map(|(name, _)| name.to_owned());
    own.chain(worker.failing.borrow().iter().cloned())
        .take(Beat::FAILING_MAX)
        .collect()
}

/// What the heartbeat tells the supervisor: everything but the configured checks.
pub(crate) fn is_ready(worker: &Worker) -> bool {
    !worker.lifecycle.leaving.get() && worker.lifecycle.is_serving() && is_redis_up(worker) && is_log_heard(worker)
}

pub(crate) fn is_redis_up(worker: &Worker) -> bool {
    worker.stores() && worker.tail_up.get()
}

/// The log is stalled: Redis answers, and nothing is heard of the log.
pub(crate) fn log_is_stalled(worker: &Worker) -> bool {
    is_redis_up(worker) && !is_log_heard(worker)
}

/// A canary passes through the log every few seconds: without it the log of this worker is stalled.
fn is_log_heard(worker: &Worker) -> bool {
    worker.settings.redis.is_none() || worker.canary_seen.get().elapsed() < worker.settings.log.canary_overdue
}
