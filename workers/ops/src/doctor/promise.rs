//! Whether Redis keeps what the laws promise: what was acknowledged is not lost, sessions end only when they should,
//! and nothing waits.

use super::evidence::{Evidence, Seen, both};
use super::findings::Findings;
use crate::context::DISK_FIELDS;
use crate::output::{bytes, count, millis};
use crate::{Context, Redis};
use std::time::Duration;
use store::{REDIS_MAJOR_MIN, StoreError, Unwritable, redis_major};

/// Medians above which Redis is slow, and too slow.
const LATENCY_WARN: Duration = Duration::from_millis(10);
const LATENCY_FAIL: Duration = Duration::from_millis(250);
/// Part of `maxmemory` that may be used, in percent.
const MEMORY_WARN_PERCENT: u64 = 80;
/// Pushes that a tailer may be behind before Redis cuts it off, in entries of the largest size.
const PUSHES: u64 = 8;
/// Connections of a worker besides its pool: tailer, ingest, and one that is being made.
const OWN_CONNECTIONS: u64 = 3;
/// Of operators.
const OTHER_CONNECTIONS: u64 = 16;

pub(super) fn examine(context: &Context, redis: &Redis, evidence: &Evidence, findings: &mut Findings) {
    version(evidence, findings);
    role(evidence, findings);
    persistence(evidence, findings);
    disk(evidence, findings);
    fsync(redis, evidence, findings);
    eviction(evidence, findings);
    memory(context, evidence, findings);
    output_buffer(context, evidence, findings);
    clients(context, redis, evidence, findings);
    latency(evidence, findings);
}

fn version(evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.version";
    let (version, from) = match evidence.version() {
        Ok(found) => found,
        Err(why) => return findings.unseen(CHECK, why),
    };
    match redis_major(version) {
        Some(major) if major >= REDIS_MAJOR_MIN => findings.pass(CHECK, format!("{version} ({from})")),
        Some(_) => findings.fail(CHECK, format!("{version} ({from})"), "upgrade Redis to 6.0 or newer"),
        None => findings.unseen(CHECK, format!("{version:?} ({from}) is no version")),
    }
}

fn role(evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.role";
    let (role, mode, from) = match (evidence.info("role"), evidence.info("redis_mode"), &evidence.greeting) {
        (Ok(role), Ok(mode), _) => (role, mode, "INFO"),
        (_, _, Ok(greeting)) => (greeting.role.as_str(), greeting.mode.as_str(), "HELLO"),
        (Err(why), _, Err(error)) => return findings.unseen(CHECK, both(&why, error)),
        (Ok(_), Err(why), Err(_)) => return findings.unseen(CHECK, why),
    };
    let seen = format!("{role}, {mode} ({from})");
    if role != "master" {
        findings.fail(
            CHECK,
            seen,
            "nothing can be written to a replica: set redis.url to its master",
        );
    } else if mode != "standalone" {
        findings.fail(
            CHECK,
            seen,
            "set redis.url to a standalone Redis: a cluster or sentinel will not do",
        );
    } else if let Some(StoreError::Unwritable {
        by: Unwritable::Replicas,
        reason,
        ..
    }) = &evidence.unwritable
    {
        findings.fail(
            CHECK,
            format!("{seen}; {reason}"),
            "are its replicas there (`redis-cli INFO replication`)? Or lower min-replicas-to-write",
        );
    } else {
        findings.pass(CHECK, seen);
    }
}

fn persistence(evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.persistence";
    let aof = match evidence.info("aof_enabled") {
        Ok(enabled) => Ok((enabled == "1", "INFO aof_enabled".to_owned())),
        Err(why) => match evidence.setting("appendonly") {
            Ok(Seen { value, from }) => Ok((value == "yes", from)),
            Err(error) => Err(both(&why, &error)),
        },
    };
    match aof {
        Ok((true, from)) => findings.pass(CHECK, format!("append-only file is on ({from})")),
        Ok((false, from)) => findings.fail(
            CHECK,
            format!("append-only file is off ({from}): what was acknowledged is lost with Redis, and all sessions"),
            "redis-cli CONFIG SET appendonly yes (keeps the data); and in redis.conf: appendonly yes, appendfsync everysec\n\
             (where CONFIG is gone: redis.conf and a restart, after which the database is empty and sessions begin anew)",
        ),
        Err(why) => findings.unseen(CHECK, why),
    }
}

fn disk(evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.disk";
    let (mut bad, mut unseen) = (Vec::new(), None);
    if let Some(StoreError::Unwritable {
        by: Unwritable::Disk,
        reason,
        ..
    }) = &evidence.unwritable
    {
        bad.push(reason.clone());
    }
    for name in DISK_FIELDS {
        match evidence.info(name) {
            Ok("ok") => {}
            Ok(status) => bad.push(format!("{name} is {status} (INFO)")),
            Err(why) => unseen = Some(why),
        }
    }
    match unseen {
        _ if !bad.is_empty() => findings.fail(
            CHECK,
            format!("{}: Redis refuses writes", bad.join(", ")),
            "is the disk full, or the directory not its own? See the log of Redis, `df -h`, `ls -ld` of its `dir`",
        ),
        Some(why) => findings.unseen(CHECK, why),
        None => findings.pass(CHECK, "the latest writes to its disk succeeded (INFO)"),
    }
}

fn fsync(redis: &Redis, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.appendfsync";
    match evidence.setting("appendfsync") {
        // It lives in the runtime directory, which seldom outlives a power failure either.
        Ok(seen) if seen.value == "no" && !redis.managed => findings.warn(
            CHECK,
            format!(
                "appendfsync is no ({}): a power failure costs up to half a minute",
                seen.from
            ),
            "redis-cli CONFIG SET appendfsync everysec; in redis.conf: appendfsync everysec",
        ),
        Ok(seen) => findings.pass(CHECK, format!("appendfsync is {} ({})", seen.value, seen.from)),
        Err(why) => findings.unseen(CHECK, why),
    }
}

fn eviction(evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.maxmemory_policy";
    let seen = |info: &str, setting: &str| match evidence.info(info) {
        Ok(value) => Ok((value.to_owned(), format!("INFO {info}"))),
        Err(why) => match evidence.setting(setting) {
            Ok(Seen { value, from }) => Ok((value, from)),
            Err(error) => Err(both(&why, &error)),
        },
    };
    let (policy, from) = match seen("maxmemory_policy", "maxmemory-policy") {
        Ok(found) => found,
        Err(why) => return findings.unseen(CHECK, why),
    };
    let limit = seen("maxmemory", "maxmemory").map_or_else(|_| "unknown".to_owned(), |(limit, _)| limit);
    let remedy = "redis-cli CONFIG SET maxmemory-policy noeviction; in redis.conf: maxmemory-policy noeviction";
    let evidence = format!("{policy} ({from}), maxmemory is {limit}");
    if policy == "noeviction" {
        findings.pass(CHECK, evidence);
    } else if limit == "0" {
        findings.warn(
            CHECK,
            format!("{evidence}: with a limit it would evict sessions"),
            remedy,
        );
    } else if policy.starts_with("allkeys-") {
        findings.fail(
            CHECK,
            format!("{evidence}: it may evict the log, its numbering, and sessions"),
            remedy,
        );
    } else {
        findings.fail(
            CHECK,
            format!("{evidence}: it may evict sessions, and an evicted session is an ended one"),
            remedy,
        );
    }
}

fn memory(context: &Context, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.memory";
    let number = |name: &str| match &evidence.info {
        Ok(info) => info.number(name).ok_or_else(|| format!("INFO has no {name}")),
        Err(error) => Err(error.clone()),
    };
    let (used, max, evicted) = match (number("used_memory"), number("maxmemory"), number("evicted_keys")) {
        (Ok(used), Ok(max), Ok(evicted)) => (used, max, evicted),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return findings.unseen(CHECK, why),
    };
    let need = context.limits.redis_bytes_min;
    let remedy = "lower log.bytes_max, log.entries_max, log.age_max_ms and recovery.window_ms, or give Redis more memory (maxmemory; \
                  of the managed one redis.memory_bytes_max)";
    let share = format!(
        "{} of {}",
        bytes(used),
        if max == 0 { "no limit".to_owned() } else { bytes(max) }
    );
    if evicted > 0 {
        findings.fail(
            CHECK,
            format!(
                "{} evicted since Redis was started, {share} used",
                count(evicted, "key")
            ),
            remedy,
        );
    } else if max == 0 {
        findings.warn(
            CHECK,
            format!("{share} used: what fills it takes the memory of the machine"),
            format!(
                "redis-cli CONFIG SET maxmemory {least}, and in redis.conf: maxmemory {least} (a managed one gets its limit when it is \
                 started)",
                least = need.saturating_mul(2)
            ),
        );
    } else if max < need {
        findings.warn(
            CHECK,
            format!(
                "{share} used: too little for log.bytes_max, with which Redis needs {}; then publishes and new sessions fail",
                bytes(need)
            ),
            remedy,
        );
    } else if used.saturating_mul(100) / max >= MEMORY_WARN_PERCENT {
        findings.warn(
            CHECK,
            format!("{share} used: then publishes and new sessions fail"),
            remedy,
        );
    } else {
        findings.pass(CHECK, format!("{share} used, no key evicted (INFO)"));
    }
}

/// The limit beyond which Redis cuts a subscriber off that does not read.
fn output_buffer(context: &Context, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.output_buffer";
    let seen = match evidence.setting("client-output-buffer-limit") {
        Ok(seen) => seen,
        Err(why) => return findings.unseen(CHECK, why),
    };
    let words: Vec<&str> = seen
        .value
        .split_whitespace()
        .skip_while(|word| *word != "pubsub")
        .collect();
    let hard = words.get(1).and_then(|word| parse_bytes(word));
    let Some(hard) = hard else {
        return findings.unseen(
            CHECK,
            format!("{:?} ({}) names no limit of pubsub", seen.value, seen.from),
        );
    };
    let need = u64::try_from(context.limits.entry_bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_mul(PUSHES);
    let shown = words.get(..4).unwrap_or(&words).join(" ");
    let remedy = format!(
        "redis-cli CONFIG SET client-output-buffer-limit 'pubsub {hard} {soft} 60', and the same in redis.conf",
        hard = need.max(32 << 20),
        soft = need.max(8 << 20)
    );
    if hard == 0 {
        let evidence = format!("{shown} ({}): a worker that hangs fills the memory of Redis", seen.from);
        findings.warn(CHECK, evidence, remedy);
    } else if hard < need {
        let evidence = format!(
            "{shown} ({}): less than {PUSHES} of the largest entries ({}); a worker that is behind is cut off",
            seen.from,
            bytes(need / PUSHES)
        );
        findings.warn(CHECK, evidence, remedy);
    } else {
        findings.pass(CHECK, format!("{shown} ({})", seen.from));
    }
}

/// `32mb`, `1gb`, `64k`, `1024`, as in redis.conf.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..)? {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn clients(context: &Context, redis: &Redis, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.maxclients";
    let said = evidence
        .info("maxclients")
        .map(|value| (value.to_owned(), "INFO".to_owned()));
    let seen = said.or_else(|why| match evidence.setting("maxclients") {
        Ok(Seen { value, from }) => Ok((value, from)),
        Err(error) => Err(both(&why, &error)),
    });
    let (max, from) = match seen {
        Ok(found) => found,
        Err(why) => return findings.unseen(CHECK, why),
    };
    let Ok(max) = max.parse::<u64>() else {
        return findings.unseen(CHECK, format!("{max:?} ({from}) is no number"));
    };
    let pool = u64::try_from(redis.options.pool_size).unwrap_or(u64::MAX);
    // A reload has two workers in a slot for a while.
    let need = (pool + OWN_CONNECTIONS) * (u64::from(context.workers) + 1) + OTHER_CONNECTIONS;
    if max < need {
        let evidence = format!("maxclients is {max} ({from}), this fleet alone may need {need}");
        findings.fail(
            CHECK,
            evidence,
            format!("in redis.conf: maxclients {}", need.max(10_000)),
        );
    } else {
        findings.pass(
            CHECK,
            format!("maxclients is {max} ({from}), this fleet needs {need} at most"),
        );
    }
}

fn latency(evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.latency";
    let latency = match &evidence.latency {
        Ok(latency) => latency,
        Err(why) => return findings.unseen(CHECK, why),
    };
    let medians = [("ping", latency.ping), ("get", Some(latency.get)), ("set", latency.set)];
    let measured = || medians.iter().filter_map(|(name, spread)| Some((name, (*spread)?.p50)));
    let worst = measured().map(|(_, p50)| p50).max().unwrap_or_default();
    let shown: Vec<String> = measured()
        .map(|(name, p50)| format!("{name} {} ms", millis(p50)))
        .collect();
    let shown = format!("{} (medians)", shown.join(", "));
    let remedy = "look for slow commands (SLOWLOG GET), a slow disk (INFO persistence: aof_delayed_fsync), THP, a busy \
                  machine, or a network between: Redis belongs near its workers";
    if worst > LATENCY_FAIL {
        findings.fail(CHECK, shown, remedy);
    } else if worst > LATENCY_WARN {
        findings.warn(CHECK, shown, remedy);
    } else {
        findings.pass(CHECK, shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_redis_are_read() {
        assert_eq!(parse_bytes("32mb"), Some(32 << 20));
        assert_eq!(parse_bytes("33554432"), Some(33_554_432));
        assert_eq!(parse_bytes("1K"), Some(1_000));
        assert_eq!(parse_bytes("0"), Some(0));
        assert_eq!(parse_bytes("much"), None);
    }
}
