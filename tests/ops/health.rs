//! The health report: what is in it, what its exit code says, and the live view.

use crate::harness::{Plan, Poller, Server, Terminal, Wire, soon, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

async fn health(server: &Server) -> (i32, Value) {
    let output = server.cli("health", &["--json"]).await;
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| panic!("{fault} in {output:?}"));
    (output.status.code().unwrap(), json)
}

#[tokio::test]
async fn the_report_counts_500_sessions_on_4_workers() {
    let server = Plan::new().start().await;
    let (mut pollers, mut wires) = (Vec::new(), Vec::new());
    for _ in 0..250 {
        let poller = Poller::open(&server).await;
        poller.connect().await;
        pollers.push(poller);
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        wires.push(wire);
    }
    for number in 0..20 {
        wires[0].call(2 + number, &json!(["publish", "news", number])).await;
    }
    let (code, report) = health(&server).await;
    assert_eq!((code, report["verdict"].as_str()), (0, Some("HEALTHY")), "{report:#}");
    let sessions = &report["sessions"];
    assert_eq!(
        (sessions["total"].as_u64(), sessions["polling"].as_u64()),
        (Some(500), Some(250)),
        "{sessions:#}"
    );
    let by_worker = sessions["by_worker"].as_object().unwrap();
    let held = |name: &str| by_worker.values().map(|held| held[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        (by_worker.len(), held("polling"), held("websocket")),
        (4, 250, 250),
        "{sessions:#}"
    );
    let log = &report["log"];
    assert!(log["entries"].as_u64().unwrap() >= 20 && log["tailers"] == 4, "{log:#}");
    assert!(log["head"].as_str().unwrap().ends_with("-20"), "{log:#}");
    let workers = report["workers"].as_array().unwrap();
    assert!(
        workers.len() == 4 && workers.iter().all(|worker| worker["behind"] == 0),
        "{workers:#?}"
    );
    assert!(report["latency_ms"]["ping"]["p99"].as_f64().unwrap() > 0.0);
    assert!(report["basic"]["redis_version"].is_string() && report["memory"]["used_memory_human"].is_string());
    others_work_too(&server).await;
    // The canary is older than nothing and younger than it may be.
    until("a canary", async || {
        health(&server).await.1["log"]["canary_age_ms"]
            .as_u64()
            .filter(|age| *age < 5_000)
    })
    .await;

    // As text, everything that the guide's reader looks for.
    let text = String::from_utf8(server.cli("health", &[]).await.stdout).unwrap();
    for part in [
        "Basic Information:\n   redis_version: ",
        "Connection Statistics:\n   connected_clients: ",
        "Memory Statistics:\n   used_memory_human: ",
        "Socket.IO Session Statistics:\n   Total Sessions: 500\n   polling: 250, websocket: 250\n",
        "Performance Statistics:\n   instantaneous_ops_per_sec: ",
        "Latency Measurements:\n   ping_ms: ",
        "[ok] Status: HEALTHY\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

/// The other commands on this fleet: what they do is not counted.
async fn others_work_too(server: &Server) {
    let (output, (_, during)) = tokio::join!(server.cli("selftest", &[]), health(server));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    // The session of the walk is one, for as long as it lasts.
    assert!(
        matches!(during["sessions"]["total"].as_u64(), Some(500 | 501)),
        "{during:#}"
    );
    let doctor = server.cli("doctor", &["--json"]).await;
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(doctor["summary"]["pass"].as_u64() >= Some(20), "{doctor:#}");
    assert_eq!(health(server).await.1["sessions"]["total"], 500);
}

#[tokio::test]
async fn the_exit_code_is_the_verdict() {
    let mut server = Plan::new().start().await;
    assert_eq!(health(&server).await.0, 0);
    // A worker that does not answer.
    let pids = server.status().await.ready_pids();
    harness::signal(pids[1], Signal::SIGSTOP);
    let report = until("a degraded fleet", async || {
        let (code, report) = health(&server).await;
        (code == 1).then_some(report)
    })
    .await;
    assert_eq!(report["verdict"], "DEGRADED");
    assert!(report["reasons"][0].as_str().unwrap().contains("slot 1"), "{report:#}");
    harness::signal(pids[1], Signal::SIGCONT);
    until("a healthy fleet", async || (health(&server).await.0 == 0).then_some(())).await;
    // No Redis.
    server.redis_mut().kill();
    let (code, report) = health(&server).await;
    assert_eq!((code, report["verdict"].as_str()), (2, Some("UNHEALTHY")), "{report:#}");
    assert!(
        report["reasons"].to_string().contains("Redis cannot be used"),
        "{report:#}"
    );
    server.redis_mut().again().await;
    until("health again", async || (health(&server).await.0 == 0).then_some(())).await;
    // No fleet.
    server.signal(Signal::SIGQUIT);
    server.exit_within(harness::PATIENCE).await;
    let (code, report) = health(&server).await;
    assert_eq!(code, 2, "{report:#}");
    assert!(
        report["reasons"].to_string().contains("no supervisor answers at"),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_worker_that_is_behind_is_seen() {
    let server = Plan::new().start().await;
    let pids = server.status().await.ready_pids();
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let holder = server.holder().await;
    let late = pids.iter().position(|pid| *pid != holder).unwrap();
    harness::signal(pids[late], Signal::SIGSTOP);
    for number in 0..10 {
        wire.call(2 + number, &json!(["publish", "news", number])).await;
    }
    let behind = |report: &Value, slot: usize| report["workers"][slot]["behind"].as_u64();
    let report = until("ten entries behind", async || {
        let (_, report) = health(&server).await;
        (behind(&report, late) == Some(10)).then_some(report)
    })
    .await;
    let held = pids.iter().position(|pid| *pid == holder).unwrap();
    assert_eq!(behind(&report, held), Some(0), "{report:#}");
    harness::signal(pids[late], Signal::SIGCONT);
    until("it has caught up", async || {
        (behind(&health(&server).await.1, late) == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_terminal_reports_follow_each_other() {
    let server = Plan::new().start().await;
    let mut command = tokio::process::Command::from(server.command("health"));
    command
        .args(["--watch", "--json", "--every", "0.2"])
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut times = Vec::new();
    for _ in 0..3 {
        let line = soon("a report", lines.next_line()).await.unwrap().expect("a report");
        let report: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(report["verdict"], "HEALTHY");
        times.push(report["timestamp"].as_str().unwrap().to_owned());
    }
    assert!(times.is_sorted());
    harness::signal(child.id().unwrap(), Signal::SIGTERM);
    let status = soon("the end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_live_view_follows_the_fleet_and_gives_the_terminal_back() {
    let mut server = Plan::new().start().await;
    let watch = |server: &Server| {
        let mut command = server.command("health");
        command
            .args(["--watch", "--every", "0.3"])
            .env("TERM", "xterm")
            .env("LANG", "C.UTF-8");
        Terminal::run(command, 40, 120)
    };
    let mut terminal = watch(&server);
    let text = terminal.shows("the report", |text| text.contains("HEALTHY")).await;
    for part in ["standalone", "Memory", "commands/s", "Latency", "0 total", "behind"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    terminal
        .shows("the session", |text| text.contains("1 total   0 polling   1 websocket"))
        .await;
    server.redis_mut().kill();
    terminal
        .shows("the end of Redis", |text| {
            text.contains("UNHEALTHY") && text.contains("Redis cannot be used")
        })
        .await;
    server.redis_mut().again().await;
    terminal
        .shows("health", |text| {
            text.lines().next().is_some_and(|line| line.contains(" HEALTHY"))
        })
        .await;
    terminal.resize(10, 60);
    let fits = |text: &str| text.lines().count() <= 10 && text.contains("q quits") && text.contains("HEALTHY");
    terminal.shows("a small picture", fits).await;
    terminal.types("q");
    assert_eq!(terminal.ends().await.code(), Some(0));
    terminal.assert_restored();
    // Ctrl-C does the same; the code is that of the latest verdict.
    let mut terminal = watch(&server);
    terminal.shows("the report", |text| text.contains("HEALTHY")).await;
    server.redis_mut().kill();
    terminal
        .shows("the end of Redis", |text| text.contains("UNHEALTHY"))
        .await;
    terminal.types("\u{3}");
    assert_eq!(terminal.ends().await.code(), Some(2));
    terminal.assert_restored();
}

/// A check of the configuration that fails keeps every worker from being ready; the report says which.
#[tokio::test]
async fn a_check_that_fails_is_named() {
    let plan = Plan::new().with("workers.count = 1");
    let server = plan.with("checks.database.tcp = \"127.0.0.1:1\"").launch().await;
    until("the check's name", async || {
        let (code, report) = health(&server).await;
        let reasons = report["reasons"].to_string();
        // The only worker.
        (code == 2 && reasons.contains("check database fails in slot 0")).then_some(())
    })
    .await;
}
