//! How `status` looks.

use super::protocol::{HandoverStatus, ReloadStatus, Status, WorkerStatus};
use crate::sys::redis::RedisStatus;
use ops::screen::{Line, Picture, Style};
use ops::text::age;
use std::time::Duration;

/// A worker whose event loop is later than this is worth a look (microseconds).
const LAG_WARN_US: u64 = 50_000;
/// A worker that uses more of its one CPU is worth a look (hundredths).
const CPU_WARN_PERCENT: f64 = 90.0;

/// For files and pipes, and for `status` without `--watch`.
pub(super) fn text(status: &Status) -> String {
    picture(status)
        .lines()
        .map(|line| line.text().trim_end().to_owned() + "\n")
        .collect()
}

/// For a terminal.
pub(super) fn picture(status: &Status) -> Picture {
    let supervisor = &status.supervisor;
    let uptime = age(Duration::from_secs(supervisor.uptime_s));
    let state = Line::new(Style::Title, format!("anyworker {}", supervisor.version))
        .and(
            Style::Plain,
            format!("  pid {}  generation {}  ", supervisor.pid, supervisor.generation),
        )
        .and(fleet_style(&supervisor.state), supervisor.state.clone())
        .and(Style::Plain, format!("  for {uptime}"));
    let heading = columns([
        "slot",
        "pid",
        "gen",
        "state",
        "connections",
        "sessions",
        "cpu %",
        "rss MiB",
        "lag ms",
        "restarts",
    ]);
    let mut foot = vec![Line::default()];
    foot.extend(supervisor.redis.as_ref().and_then(redis));
    foot.extend(supervisor.reload.as_ref().map(reload));
    foot.extend(supervisor.last_handover.as_ref().map(handover));
    let last = supervisor.last_reload.as_ref();
    foot.extend(last.map(|last| Line::new(Style::Plain, format!("last reload: {last}"))));
    if supervisor.log_lines_dropped > 0 {
        let dropped = format!(
            "log: {} lines dropped, they could not be written",
            supervisor.log_lines_dropped
        );
        foot.push(Line::new(Style::Bad, dropped));
    }
    if foot.len() == 1 {
        foot.clear();
    }
    Picture {
        head: vec![
            state,
            Line::default(),
            Line::new(Style::Title, format!("{heading}  last exit")),
        ],
        body: status
            .workers
            .iter()
            .map(worker)
            .chain(total(&status.workers))
            .collect(),
        foot,
    }
}

/// Nothing, while all is well.
fn redis(redis: &RedisStatus) -> Option<Line> {
    let style = match redis.state.as_str() {
        "running" if redis.last_exit.is_none() => return None,
        "running" => Style::Plain,
        _ => Style::Bad,
    };
    let mut text = format!("managed Redis: {}", redis.state);
    if let Some(pid) = redis.pid {
        text += &format!(" (pid {pid})");
    }
    if let Some(last) = &redis.last_exit {
        text += &format!(", restarts {}, last exit: {last}", redis.restarts);
    }
    Some(Line::new(style, text))
}

fn worker(worker: &WorkerStatus) -> Line {
    let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let state = if worker.handing_over {
        "handover"
    } else {
        worker.state.as_str()
    };
    let row = columns([
        &worker.slot.to_string(),
        &pid,
        &worker.generation.to_string(),
        state,
        &worker.connections.to_string(),
        &worker.sessions.to_string(),
        &or_dash(worker.cpu_percent),
        &or_dash(worker.rss_bytes.map(mebibytes)),
        &or_dash(worker.lag_us.map(millis)),
        &worker.restarts.to_string(),
    ]);
    let last_exit = worker.last_exit.as_deref().unwrap_or("-");
    let line = Line::new(worker_style(worker), row).and(Style::Plain, format!("  {last_exit}"));
    if worker.state != "unready" {
        return line;
    }
    line.and(Style::Bad, format!("  not ready: {}", worker.failing.join(", ")))
}

/// Of several workers.
fn total(workers: &[WorkerStatus]) -> Option<Line> {
    (workers.len() > 1).then(|| {
        let sum = |of: fn(&WorkerStatus) -> u64| workers.iter().map(of).sum::<u64>();
        let cpu: f64 = workers
            .iter()
            .filter_map(|worker| worker.cpu_percent)
            .fold(0.0, |sum, cpu| sum + cpu);
        let row = columns([
            "all",
            "",
            "",
            "",
            &sum(|worker| worker.connections).to_string(),
            &sum(|worker| worker.sessions).to_string(),
            &format!("{cpu:.1}"),
            &or_dash(Some(mebibytes(sum(|worker| worker.rss_bytes.unwrap_or_default())))),
            &or_dash(workers.iter().filter_map(|worker| worker.lag_us).max().map(millis)),
            "",
        ]);
        Line::new(Style::Dim, row)
    })
}

fn columns(cells: [&str; 10]) -> String {
    let [
        slot,
        pid,
        generation,
        state,
        connections,
        sessions,
        cpu,
        rss,
        lag,
        restarts,
    ] = cells;
    format!(
        "{slot:>4} {pid:>8} {generation:>4} {state:<9} {connections:>11} {sessions:>8} {cpu:>6} {rss:>8} {lag:>7} \
         {restarts:>8}"
    )
}

fn reload(reload: &ReloadStatus) -> Line {
    let ReloadStatus { to, stage, done, slots } = reload;
    let (style, stage) = match stage.as_str() {
        "canary" => (Style::Warn, "the first new worker proves itself"),
        "back" => (Style::Bad, "it failed: what ran before comes back"),
        _ => (Style::Warn, "replacing"),
    };
    Line::new(
        style,
        format!("reload to generation {to}: {done} of {slots} slots; {stage}"),
    )
}

fn handover(handover: &HandoverStatus) -> Line {
    let stayed: u64 = handover.stayed.values().sum();
    let mut reasons: Vec<String> = handover
        .stayed
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let reasons = match reasons.len() {
        0 => String::new(),
        _ => format!(" ({})", std::mem::take(&mut reasons).join(", ")),
    };
    let style = if stayed == 0 { Style::Plain } else { Style::Warn };
    Line::new(
        style,
        format!(
            "last handover: {} moved, {stayed} stayed{reasons}; still for {:.1} ms (median), {:.1} ms (longest)",
            handover.moved,
            millis(handover.freeze_p50_us),
            millis(handover.freeze_max_us),
        ),
    )
}

fn fleet_style(state: &str) -> Style {
    match state {
        "serving" => Style::Good,
        "degraded" => Style::Bad,
        _ => Style::Warn,
    }
}

fn worker_style(worker: &WorkerStatus) -> Style {
    let busy = worker.cpu_percent.is_some_and(|cpu| cpu >= CPU_WARN_PERCENT)
        || worker.lag_us.is_some_and(|lag| lag >= LAG_WARN_US);
    match worker.state.as_str() {
        "ready" if busy => Style::Warn,
        "ready" => Style::Good,
        "booting" | "draining" | "stopping" | "unready" => Style::Warn,
        _ => Style::Bad,
    }
}

fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn millis(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1_000.0
}

/// Exact up to 2^52 bytes; it is for people.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
