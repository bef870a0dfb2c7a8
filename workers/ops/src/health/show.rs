//! A report for people: as text, in the form of the guide, and as a picture for the live view.

use super::collect::{ByTransport, LatencyMs, Report, Section, SpreadMs};
use super::verdict::Verdict;
use crate::output::{Script, count, rule, span};
use crate::screen::{Line, Picture, Style};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

/// Workers of other times that are listed; the others are added up.
const WORKERS_SHOWN: usize = 32;
/// Samples in the live view.
const HISTORY_MAX: usize = 60;
/// From the left to the values of the live view.
const LABEL_WIDTH: usize = 13;

/// The report as text.
pub(super) fn text(report: &Report, script: Script) -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&rule());
    line(&script.sign("🏥", "anyworker Health Report"));
    line(&script.sign("📅", &format!("Timestamp: {}", report.timestamp)));
    if let Some(url) = &report.redis_url {
        line(&script.sign("🔗", &format!("Redis: {url}")));
    }
    line(&rule());
    for (sign, title, fields) in sections(report) {
        if fields.is_empty() {
            continue;
        }
        line("");
        line(&script.sign(sign, title));
        for field in fields {
            line(&format!("   {field}"));
        }
    }
    line("");
    line(&rule());
    let good = report.verdict == Verdict::Healthy;
    line(&format!("{} Status: {}", script.mark(good), report.verdict.text()));
    for reason in &report.reasons {
        line(&format!("   {reason}"));
    }
    line(&rule());
    text
}

type Block = (&'static str, &'static str, Vec<String>);

fn sections(report: &Report) -> Vec<Block> {
    vec![
        ("📊", "Basic Information:", fields(&report.basic)),
        ("🔌", "Connection Statistics:", fields(&report.connections)),
        ("💾", "Memory Statistics:", fields(&report.memory)),
        ("👥", "Socket.IO Session Statistics:", sessions(report)),
        ("⚡", "Performance Statistics:", fields(&report.performance)),
        ("⏱️ ", "Latency Measurements:", latency(report)),
        ("📜", "Log:", log(report)),
        ("🛠️ ", "Workers:", workers(report)),
        ("🔒", "Could not see:", report.could_not_see.clone()),
    ]
}

fn fields(section: &Section) -> Vec<String> {
    let shown = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    section
        .0
        .iter()
        .map(|(name, value)| format!("{name}: {}", shown(value)))
        .collect()
}

fn sessions(report: &Report) -> Vec<String> {
    let Some(sessions) = &report.sessions else {
        return Vec::new();
    };
    let mut lines = vec![
        format!("Total Sessions: {}", sessions.total),
        format!("polling: {}, websocket: {}", sessions.polling, sessions.websocket),
    ];
    for (worker, held) in sessions.by_worker.iter().take(WORKERS_SHOWN) {
        let ByTransport { polling, websocket, .. } = held;
        lines.push(format!("worker {worker}: {polling} polling, {websocket} websocket"));
    }
    let more = sessions.by_worker.len().saturating_sub(WORKERS_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} workers more"));
    }
    lines
}

fn latency(report: &Report) -> Vec<String> {
    let measured = report.latency_ms.iter().flat_map(LatencyMs::measured);
    let line = |(name, SpreadMs { p50, p99 })| format!("{name}_ms: {p50:.2} (p50), {p99:.2} (p99)");
    measured.map(line).collect()
}

fn log(report: &Report) -> Vec<String> {
    let Some(log) = &report.log else { return Vec::new() };
    let mut lines = vec![
        format!("head: {}", log.head),
        format!("length: {} entries in {} batches", log.entries, log.batches),
    ];
    if let Some(age) = log.canary_age_ms {
        lines.push(format!("canary: {} ago", span(Duration::from_millis(age))));
    }
    if let Some(reach) = log.reach_ms {
        lines.push(format!("reaches back: {}", span(Duration::from_millis(reach))));
    }
    if let Some(tailers) = log.tailers {
        lines.push(format!("subscribed workers: {tailers}"));
    }
    lines
}

fn workers(report: &Report) -> Vec<String> {
    let Some(supervisor) = &report.supervisor else {
        return Vec::new();
    };
    let up = span(Duration::from_secs(supervisor.uptime_s));
    let mut lines = vec![
        format!("supervisor: pid {}, {}, up {up}", supervisor.pid, supervisor.state),
        table_head(),
    ];
    lines.extend(rows(report).into_iter().map(|(_, row)| row));
    lines
}

fn table_head() -> String {
    format!(
        "{:>4} {:>8} {:<9} {:>11} {:>8} {:>8} {:>8}",
        "slot", "pid", "state", "connections", "sessions", "restarts", "behind"
    )
}

/// Rows of workers, and whether they serve.
fn rows(report: &Report) -> Vec<(bool, String)> {
    let row = |worker: &super::collect::Worker| {
        let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (pid, behind) = (or_dash(worker.pid.map(u64::from)), or_dash(worker.behind));
        let text = format!(
            "{:>4} {pid:>8} {:<9} {:>11} {:>8} {:>8} {behind:>8}",
            worker.slot, worker.state, worker.connections, worker.sessions, worker.restarts
        );
        (worker.state == "ready", text)
    };
    report.workers.iter().map(row).collect()
}

/// Commands per second of the latest reports.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<u64>);

impl History {
    pub(super) fn add(&mut self, report: &Report) {
        let ops = report.performance.0.get("instantaneous_ops_per_sec");
        if let Some(ops) = ops.and_then(serde_json::Value::as_u64) {
            self.0.push_back(ops);
        }
        if self.0.len() > HISTORY_MAX {
            self.0.pop_front();
        }
    }

    /// A bar for each sample, the highest is the largest.
    fn bars(&self, script: Script) -> String {
        let signs: Vec<char> = match script {
            Script::Unicode => "▁▂▃▄▅▆▇█".chars().collect(),
            Script::Plain => "_.-:=+*#".chars().collect(),
        };
        let most = self.0.iter().copied().max().unwrap_or_default().max(1);
        let bar = |ops: &u64| {
            let level = usize::try_from(ops.saturating_mul(7) / most).unwrap_or_default();
            signs.get(level).copied().unwrap_or(' ')
        };
        self.0.iter().map(bar).collect()
    }
}

/// The report for the live view.
pub(super) fn picture(report: &Report, history: &History, script: Script, every: Duration) -> Picture {
    let style = match report.verdict {
        Verdict::Healthy => Style::Good,
        Verdict::Degraded => Style::Warn,
        Verdict::Unhealthy => Style::Bad,
    };
    let head = Line::new(Style::Title, script.sign("🏥", "anyworker health  "))
        .and(style, report.verdict.text())
        .and(Style::Dim, format!("  {}", report.timestamp));
    let mut head = vec![head];
    head.extend(
        report
            .reasons
            .iter()
            .map(|reason| Line::new(style, format!("  {reason}"))),
    );
    head.push(Line::default());
    Picture {
        head,
        body: body(report, history, script),
        foot: vec![
            Line::default(),
            Line::new(
                Style::Dim,
                format!("every {}   q quits   up and down move the view", span(every)),
            ),
        ],
    }
}

fn body(report: &Report, history: &History, script: Script) -> Vec<Line> {
    let labelled =
        |label: &str, text: String| Line::new(Style::Title, format!("{label:<LABEL_WIDTH$}")).and(Style::Plain, text);
    let mut lines = Vec::new();
    let mut add = |label: &str, text: String| {
        if !text.is_empty() {
            lines.push(labelled(label, text));
        }
    };
    for (label, text) in summaries(report) {
        add(label, text);
    }
    add("", history.bars(script));
    if let Some(latency) = &report.latency_ms {
        let mut text = String::new();
        for (name, spread) in latency.measured() {
            // Writing to a string cannot fail.
            write!(text, "{name} {:.2} / {:.2} ms   ", spread.p50, spread.p99).ok();
        }
        add("Latency", text + "(p50 / p99)");
    }
    if let Some(log) = &report.log {
        add(
            "Log",
            format!("{} entries in {} batches, head {}", log.entries, log.batches, log.head),
        );
        let ago = |age: Option<u64>| age.map_or_else(|| "never".to_owned(), |age| span(Duration::from_millis(age)));
        let tailers = log
            .tailers
            .map(|tailers| format!(", {} subscribed", count(tailers, "worker")));
        let (canary, reach) = (ago(log.canary_age_ms), ago(log.reach_ms));
        add(
            "",
            format!(
                "canary {canary} ago, reaches back {reach}{}",
                tailers.unwrap_or_default()
            ),
        );
    }
    if let Some(sessions) = &report.sessions {
        let text = format!(
            "{} total   {} polling   {} websocket",
            sessions.total, sessions.polling, sessions.websocket
        );
        add("Sessions", text);
        for (worker, held) in sessions.by_worker.iter().take(WORKERS_SHOWN) {
            add(
                "",
                format!("{worker:<16} {} polling   {} websocket", held.polling, held.websocket),
            );
        }
    }
    for unseen in &report.could_not_see {
        add("Not seen", unseen.clone());
    }
    if !report.workers.is_empty() {
        lines.push(labelled("Workers", table_head()));
    }
    for (good, row) in rows(report) {
        let style = if good { Style::Plain } else { Style::Warn };
        lines.push(Line::new(style, format!("{:LABEL_WIDTH$}{row}", "")));
    }
    lines
}

/// Which Redis it is, and what `INFO` says, a line for each part; empty without it.
fn summaries(report: &Report) -> Vec<(&'static str, String)> {
    let shown = |section: &Section, name: &str, tail: &str| {
        let value = section.0.get(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(format!("{text}{tail}"))
    };
    let line = |section: &Section, parts: &[(&str, &str)]| {
        let parts: Vec<String> = parts
            .iter()
            .filter_map(|(name, tail)| shown(section, name, tail))
            .collect();
        parts.join("   ")
    };
    let up = report
        .basic
        .0
        .get("uptime_in_seconds")
        .and_then(serde_json::Value::as_u64);
    let up = up.map(|seconds| format!("   up {}", span(Duration::from_secs(seconds))));
    let basic = line(
        &report.basic,
        &[("redis_version", ""), ("redis_mode", ""), ("role", "")],
    );
    vec![
        ("Redis", report.redis_url.clone().unwrap_or_default()),
        ("", basic + &up.unwrap_or_default()),
        (
            "Connections",
            line(
                &report.connections,
                &[
                    ("connected_clients", " clients"),
                    ("maxclients", " allowed"),
                    ("total_connections_received", " received"),
                    ("rejected_connections", " rejected"),
                ],
            ),
        ),
        (
            "Memory",
            line(
                &report.memory,
                &[
                    ("used_memory_human", " used"),
                    ("used_memory_peak_human", " peak"),
                    ("maxmemory_human", " allowed (0: all)"),
                    ("maxmemory_policy", ""),
                    ("evicted_keys", " evicted"),
                ],
            ),
        ),
        (
            "Performance",
            line(
                &report.performance,
                &[
                    ("instantaneous_ops_per_sec", " commands/s"),
                    ("instantaneous_input_kbps", " KB/s in"),
                    ("instantaneous_output_kbps", " KB/s out"),
                ],
            ),
        ),
    ]
}
