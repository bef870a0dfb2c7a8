//! What a chaos run reports.

use crate::chaos_run::{Member, Options, Run};
use crate::stats::{Report, round};
use serde_json::{Value, json};

/// Adds the counters of all members and publishers to what the window measured.
pub(crate) fn report(run: &Run, options: &Options, faults: &[String], mut report: Report) -> Report {
    let counters = run.counters.borrow();
    let members = run.members.borrow();
    let sum = |count: fn(&Member) -> u64| members.iter().map(count).sum::<u64>();
    let missing: Vec<u64> = members
        .iter()
        .enumerate()
        .map(|(number, member)| run.missing(member, number % options.rooms))
        .collect();
    let offline = || members.iter().zip(&missing).filter(|(member, _)| !member.is_online);
    let mut gaps: Vec<u64> = members
        .iter()
        .map(|member| member.longest_gap.as_millis() as u64)
        .collect();
    gaps.sort_unstable();
    let mut down = counters.downtime_ms.clone();
    down.sort_unstable();
    let failed: Vec<&String> = faults.iter().filter(|fault| !fault.is_empty()).collect();
    let lost: u64 = missing.iter().sum();
    let delivered = sum(|member| member.checks.delivered);
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("scenario", json!("chaos"));
    put("faults_run", json!(faults.len()));
    put("faults_failed", json!(failed));
    put("client_disconnects", json!(counters.disconnects));
    put("publisher_disconnects", json!(counters.publisher_disconnects));
    put("disconnect_kinds", json!(counters.disconnect_kinds));
    put("connect_attempts", json!(counters.connect_attempts));
    put("failed_attempts", json!(counters.failed_attempts.values().sum::<u64>()));
    put("failed_attempts_by_kind", json!(counters.failed_attempts));
    put("sessions_recovered", json!(counters.recovered));
    put("sessions_lost", json!(counters.lost_sessions));
    put("offline_at_end", json!(offline().count()));
    put("offline_ms", quantiles(&down));
    put("join_retries", json!(counters.join_retries));
    put("published_acked", json!(counters.published));
    put("publish_retries", json!(counters.retries));
    put("publishes_never_acked", json!(counters.unacked));
    put("deliveries", json!(delivered));
    put("messages_lost", json!(lost));
    put(
        "messages_lost_by_offline_at_end",
        json!(offline().map(|(_, lost)| lost).sum::<u64>()),
    );
    put(
        "clients_with_loss",
        json!(missing.iter().filter(|lost| **lost > 0).count()),
    );
    put("duplicated", json!(sum(|member| member.checks.duplicated)));
    put(
        "duplicated_of_retried",
        json!(sum(|member| member.duplicated_of_retried)),
    );
    put("out_of_order", json!(sum(|member| member.checks.out_of_order)));
    put("misrouted", json!(sum(|member| member.checks.misrouted)));
    put("longest_gap_ms", quantiles(&gaps));
    let expected = (lost + delivered).max(1) as f64;
    put("lost_pct", json!(round(lost as f64 / expected * 100.0, 4)));
    put("errors", json!(*run.stats.errors.borrow()));
    report
}

fn quantiles(sorted: &[u64]) -> Value {
    let last = sorted.len().saturating_sub(1) as f64;
    let at = |quantile: f64| sorted.get((last * quantile) as usize).copied();
    json!({"p50": at(0.5), "p99": at(0.99), "max": sorted.last()})
}
