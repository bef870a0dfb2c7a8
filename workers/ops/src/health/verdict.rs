//! From what was seen to a verdict. Pure.

use crate::Context;
use crate::context::DISK_FIELDS;
use crate::fleet::Fleet;
use crate::output::{count, millis, span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Info, Latency, LogState, StoreError, Unwritable};

/// A median above this slows every handshake, poll and publish down.
const LATENCY_DEGRADED: Duration = Duration::from_millis(10);
/// A median above this is near the times after which commands fail.
const LATENCY_UNHEALTHY: Duration = Duration::from_millis(250);
/// Entries of the log that a worker may not have heard after a heartbeat; a multiple of what one publishes meanwhile.
const BEHIND_DEGRADED: u64 = 5_000;
/// Part of `maxmemory` that may be used, in percent.
const MEMORY_DEGRADED_PERCENT: u64 = 90;

/// How it is. The order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Verdict {
    Healthy,
    Degraded,
    Unhealthy,
}

impl Verdict {
    /// The exit code.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::Unhealthy => 2,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

/// What there is to judge by.
#[derive(Default)]
pub(super) struct Seen<'a> {
    pub(super) fleet: Option<&'a Fleet>,
    /// Why there is none.
    pub(super) no_fleet: String,
    pub(super) redis_down: Option<String>,
    pub(super) latency: Option<&'a Latency>,
    pub(super) info: Option<&'a Info>,
    pub(super) log: Option<&'a LogState>,
    pub(super) tailers: Option<u64>,
}

/// The verdict, and why it is not better.
pub(super) fn of(context: &Context, seen: &Seen<'_>) -> (Verdict, Vec<String>) {
    let mut findings = fleet(seen);
    if let Some(error) = &seen.redis_down {
        let managed = seen.fleet.and_then(|fleet| fleet.supervisor.redis.as_ref());
        let why = managed.map(|redis| format!("; {}", redis.told())).unwrap_or_default();
        findings.push((Verdict::Unhealthy, format!("Redis cannot be used: {error}{why}")));
    }
    findings.extend(seen.latency.and_then(latency));
    findings.extend(writes(seen));
    findings.extend(seen.info.into_iter().flat_map(redis));
    findings.extend(seen.log.and_then(|log| canary(context, seen, log)));
    findings.extend(behind(seen));
    let worst = findings.iter().map(|(verdict, _)| *verdict).max();
    let reasons = findings.into_iter().map(|(_, reason)| reason).collect();
    (worst.unwrap_or(Verdict::Healthy), reasons)
}

fn fleet(seen: &Seen<'_>) -> Vec<(Verdict, String)> {
    let mut findings = Vec::new();
    let tailers = seen.tailers.unwrap_or_default();
    let Some(fleet) = seen.fleet else {
        let (verdict, elsewhere) = if tailers > 0 {
            (
                Verdict::Degraded,
                format!(" ({} subscribed to the log)", count(tailers, "worker")),
            )
        } else {
            (Verdict::Unhealthy, String::new())
        };
        return vec![(verdict, format!("{}{elsewhere}", seen.no_fleet))];
    };
    let (slots, ready) = (fleet.slots(), fleet.ready_slots());
    let idle: Vec<String> = slots
        .iter()
        .filter(|slot| !ready.contains(slot))
        .map(ToString::to_string)
        .collect();
    if ready.is_empty() {
        findings.push((Verdict::Unhealthy, "no worker serves".to_owned()));
    } else if !idle.is_empty() {
        let slots = idle.join(", ");
        findings.push((Verdict::Degraded, format!("no worker serves in slot {slots}")));
    }
    let mut failing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for worker in &fleet.workers {
        for check in &worker.failing {
            failing.entry(check).or_default().push(worker.slot.to_string());
        }
    }
    for (check, slots) in failing {
        let slots = slots.join(", ");
        let reason = format!("check {check} fails in slot {slots}: /api/ready answers 503 there");
        findings.push((Verdict::Degraded, reason));
    }
    let state = fleet.supervisor.state.as_str();
    if !matches!(state, "serving" | "reloading") {
        findings.push((Verdict::Degraded, format!("the supervisor is {state}")));
    }
    if let Some(tailers) = seen.tailers
        && tailers < u64::try_from(ready.len()).unwrap_or(u64::MAX)
    {
        let few = format!("{} of {} ready workers are subscribed to the log", tailers, ready.len());
        findings.push((Verdict::Degraded, few));
    }
    findings
}

fn latency(latency: &Latency) -> Option<(Verdict, String)> {
    let medians = [("ping", latency.ping), ("get", Some(latency.get)), ("set", latency.set)];
    let measured = medians
        .into_iter()
        .filter_map(|(name, spread)| Some((name, spread?.p50)));
    let (name, worst) = measured.max_by_key(|(_, p50)| *p50)?;
    let verdict = if worst > LATENCY_UNHEALTHY {
        Verdict::Unhealthy
    } else if worst > LATENCY_DEGRADED {
        Verdict::Degraded
    } else {
        return None;
    };
    Some((
        verdict,
        format!("Redis is slow: {name} takes {} ms (median)", millis(worst)),
    ))
}

/// Whether Redis takes writes: by trying, and by what it says.
fn writes(seen: &Seen<'_>) -> Vec<(Verdict, String)> {
    let refused = seen.latency.and_then(|latency| latency.unwritable.as_ref());
    let by = |what| matches!(refused, Some(StoreError::Unwritable { by, .. }) if *by == what);
    let is = |name: &str, value: &str| seen.info.is_some_and(|info| info.text(name) == Some(value));
    let mut reasons = Vec::new();
    if by(Unwritable::Replica) {
        reasons.push("this Redis is a read-only replica: set redis.url to its primary".to_owned());
    } else if is("role", "slave") {
        reasons.push("this Redis is a replica: set redis.url to its primary".to_owned());
    }
    if by(Unwritable::Replicas) {
        let reason = "Redis refuses writes: NOREPLICAS, fewer replicas follow it than its min-replicas-to-write";
        reasons.push(reason.to_owned());
    }
    let mut signs = vec![("refuses writes: MISCONF", by(Unwritable::Disk))];
    signs.extend(DISK_FIELDS.map(|name| (name, is(name, "err"))));
    let signs: Vec<&str> = signs
        .into_iter()
        .filter_map(|(sign, seen)| seen.then_some(sign))
        .collect();
    if !signs.is_empty() {
        reasons.push(format!(
            "Redis cannot write to its disk ({}); `anyworker doctor` says what helps",
            signs.join(", ")
        ));
    }
    reasons.into_iter().map(|reason| (Verdict::Unhealthy, reason)).collect()
}

fn redis(info: &Info) -> Vec<(Verdict, String)> {
    let mut findings = Vec::new();
    let is = |name: &str, value: &str| info.text(name) == Some(value);
    if is("loading", "1") {
        findings.push((Verdict::Unhealthy, "Redis is loading its data".to_owned()));
    }
    let (used, max) = (
        info.number("used_memory"),
        info.number("maxmemory").filter(|max| *max > 0),
    );
    if let (Some(used), Some(max)) = (used, max) {
        let percent = used.saturating_mul(100) / max;
        if percent >= MEMORY_DEGRADED_PERCENT {
            findings.push((Verdict::Degraded, format!("{percent} % of maxmemory are used")));
        }
    }
    if let Some(evicted) = info.number("evicted_keys").filter(|evicted| *evicted > 0) {
        let reason = format!("{} evicted: sessions may have been among them", count(evicted, "key"));
        findings.push((Verdict::Degraded, reason));
    }
    findings
}

fn canary(context: &Context, seen: &Seen<'_>, log: &LogState) -> Option<(Verdict, String)> {
    // Without workers no canary is sent, and that is reported already.
    let served = seen.tailers != Some(0) && seen.fleet.is_none_or(|fleet| !fleet.ready_slots().is_empty());
    let age = log.canary_age?;
    (served && age > context.limits.canary_overdue).then(|| {
        (
            Verdict::Unhealthy,
            format!("no canary has passed through the log for {}", span(age)),
        )
    })
}

/// Workers that do not keep up with the log.
fn behind(seen: &Seen<'_>) -> Vec<(Verdict, String)> {
    let (Some(fleet), Some(log)) = (seen.fleet, seen.log) else {
        return Vec::new();
    };
    let late = fleet
        .workers
        .iter()
        .filter(|worker| worker.is_ready())
        .filter_map(|worker| {
            let behind = worker.behind(log.head)?;
            (behind > BEHIND_DEGRADED).then_some((worker.slot, behind))
        });
    let told = |(slot, behind)| {
        (
            Verdict::Degraded,
            format!("the worker of slot {slot} is {behind} entries behind"),
        )
    };
    late.map(told).collect()
}
