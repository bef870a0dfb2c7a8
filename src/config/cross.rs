//! What must fit together: faults of two values that are each allowed.

use super::Workers;
use super::values::Values;
use boot::{AppKind, Events, Log, Origins, Recovery, Settings};

/// Resident memory of a worker that has just started, and some more: it would be replaced for ever.
const RSS_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Compares what must fit together.
pub(super) fn cross_check(values: &mut Values, settings: &Settings, workers: &Workers) {
    if settings.http.credentials && settings.http.origins == Origins::Any {
        let what = "true although http.origins is \"*\": any page could act for a user";
        values.fault("http.credentials", what, "list the origins, or set it to false");
    }
    if let Origins::Only(origins) = &settings.http.origins
        && settings.http.credentials
        && origins.iter().any(|origin| origin == boot::origin::NULL)
    {
        let what = "true although http.origins lists \"null\": any page can send that, from a sandboxed frame";
        values.fault("http.credentials", what, "remove \"null\", or set it to false");
    }
    let path = &settings.engine.path;
    if let Some(echo) = &settings.diagnostics.engine_echo
        && !path.is_empty()
        && (echo.starts_with(path) || path.starts_with(echo))
    {
        let what = format!("{echo:?} collides with engine.path {path:?}");
        let remedy = "choose paths of which none begins with the other";
        values.fault("diagnostics.engine_echo", what, remedy);
    }
    if let Some(redis) = &settings.redis
        && redis.connect_timeout >= workers.boot_timeout
    {
        let what = format!(
            "{} is not shorter than workers.boot_timeout_ms",
            redis.connect_timeout.as_millis()
        );
        values.fault(
            "redis.connect_timeout_ms",
            what,
            "lower it, or raise workers.boot_timeout_ms",
        );
    }
    application(values, settings);
    life(values, workers);
    if !settings.emit.stream.is_empty() && settings.emit.stream == settings.emit.node_stream {
        let what = "the same as emit.node_stream: what is taken from emit.stream is deleted";
        values.fault(
            "emit.stream",
            what,
            "give them different names, or make one of them \"\"",
        );
    }
    ingest(values, settings);
    log(values, &settings.log, &settings.recovery);
    rates(values, settings);
    events(values, &settings.app.events);
}

/// Processes of an application are reached through Redis.
fn application(values: &mut Values, settings: &Settings) {
    if settings.app.kind == AppKind::External && settings.redis.is_none() {
        let what = "\"external\" without a Redis, through which its processes are reached";
        values.fault(
            "app.kind",
            what,
            "set redis.enabled = true; with redis.managed = true anyworker starts one",
        );
    }
}

/// A stream that is read for events must be none of our own keys: what is taken from `emit.stream` is deleted.
fn ingest(values: &mut Values, settings: &Settings) {
    let Some(redis) = &settings.redis else { return };
    let streams = [
        ("emit.stream", &settings.emit.stream),
        ("emit.node_stream", &settings.emit.node_stream),
    ];
    for (key, name) in streams {
        let rest = name.strip_prefix(&redis.prefix).and_then(|rest| rest.strip_prefix(':'));
        if rest.is_some_and(|rest| rest != "ingest") {
            let what = format!("{name:?} is below redis.prefix, where anyworker keeps its own data");
            let remedy = format!(
                "use \"{}:ingest\", or a name that does not begin with the prefix",
                redis.prefix
            );
            values.fault(key, what, remedy);
        }
    }
}

fn life(values: &mut Values, workers: &Workers) {
    let Workers {
        grace,
        pre_drain,
        max_age,
        boot_timeout,
        max_rss_bytes,
        ..
    } = workers;
    if (1..RSS_BYTES_MIN).contains(max_rss_bytes) {
        let what = format!("{max_rss_bytes} is less than a worker has without any client");
        let remedy = format!("use at least {RSS_BYTES_MIN}, or 0 for no limit");
        values.fault("workers.max_rss_bytes", what, remedy);
    }
    if !pre_drain.is_zero() && pre_drain >= grace {
        let what = format!("{} is not shorter than workers.grace_ms", pre_drain.as_millis());
        values.fault("workers.pre_drain_ms", what, "lower it, or raise workers.grace_ms");
    }
    let least = *boot_timeout + *grace;
    if !max_age.is_zero() && *max_age < least {
        let what = format!(
            "{} is shorter than workers.boot_timeout_ms and workers.grace_ms together, {}",
            max_age.as_millis(),
            least.as_millis()
        );
        values.fault("workers.max_age_ms", what, "raise it, or use 0 for no limit");
    }
}

fn log(values: &mut Values, log: &Log, recovery: &Recovery) {
    if log.canary_overdue <= log.canary_interval {
        let overdue = log.canary_overdue.as_millis();
        let what = format!("{overdue} is not longer than log.canary_interval_ms");
        values.fault("log.canary_overdue_ms", what, "use at least twice the interval");
    }
    let rooms = [
        ("log.ring_bytes_max", log.ring_bytes_max),
        ("log.queue_bytes_max", log.queue_bytes_max),
    ];
    let kept = usize::try_from(log.bytes_max).unwrap_or(usize::MAX);
    for (key, bytes) in rooms.into_iter().chain([("log.bytes_max", kept)]) {
        if bytes < log.entry_bytes_max {
            let entry = log.entry_bytes_max;
            let what = format!("{bytes} cannot hold one entry of log.entry_bytes_max {entry}");
            values.fault(key, what, "raise it, or lower log.entry_bytes_max");
        }
    }
    if recovery.enabled && recovery.window > log.age_max {
        let window = recovery.window.as_millis();
        let what = format!("{window} is longer than log.age_max_ms: entries would be gone");
        values.fault("recovery.window_ms", what, "lower it, or raise log.age_max_ms");
    }
}

/// Seconds that one message, or the packets of one POST, may take at the rates of `[limits]`: a POST holds its lease for 60.
const MESSAGE_SECONDS_MAX: u64 = 10;
/// Packets that one POST may have.
const POST_PACKETS_MAX: u64 = 4_096;

/// A rate lets what is allowed at once pass in a time that no client takes for an outage.
fn rates(values: &mut Values, settings: &Settings) {
    let payload = settings.engine.max_payload_bytes as u64;
    for (key, rate, at_once) in [
        (
            "limits.events_per_second",
            settings.limits.events_per_second,
            POST_PACKETS_MAX,
        ),
        ("limits.bytes_per_second", settings.limits.bytes_per_second, payload),
    ] {
        let least = at_once.div_ceil(MESSAGE_SECONDS_MAX);
        if (1..least).contains(&rate) {
            let what = format!("{rate}: what one message may have would take longer than {MESSAGE_SECONDS_MAX} s");
            values.fault(key, what, format!("use at least {least}, or 0 for no limit"));
        }
    }
}

/// The events that clients send must differ; what members receive may be called like one of them.
fn events(values: &mut Values, events: &Events) {
    let names = [
        ("join", &events.join),
        ("leave", &events.leave),
        ("publish", &events.publish),
        ("echo", &events.echo),
    ];
    for (nth, (name, event)) in names.iter().enumerate() {
        let earlier = names
            .iter()
            .take(nth)
            .find(|(_, other)| other == event && !event.is_empty());
        if let Some((earlier, _)) = earlier {
            let what = format!("{event:?} is app.events.{earlier} already");
            values.fault(&format!("app.events.{name}"), what, "choose another name");
        }
    }
}
