//! The fleet again and again: on a terminal, and into a pipe.

use crate::harness::{PATIENCE, Plan, Server, Terminal, Wire, signal, soon, until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

fn watching(server: &Server) -> Terminal {
    let mut command = server.command("status");
    command.args(["--watch", "--every", "0.2"]).env("TERM", "xterm");
    Terminal::run(command, 24, 110)
}

#[tokio::test]
async fn the_terminal_shows_what_happens() {
    let server = Plan::new().with("reload = { soak_ms = 1000 }").start().await;
    let mut terminal = watching(&server);
    let pids = server.status().await.ready_pids();
    let all_there = |text: &str| pids.iter().all(|pid| text.contains(&format!(" {pid} ")));
    let text = terminal.shows("every worker", all_there).await;
    assert!(text.contains("serving") && text.contains("q quits"), "{text}");
    // A session more, a worker less.
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let has_one = |text: &str| {
        text.lines()
            .any(|line| line.starts_with(" all") && line.split_whitespace().nth(2) == Some("1"))
    };
    terminal.shows("the session", has_one).await;
    signal(pids[3], Signal::SIGKILL);
    terminal.shows("how it ended", |text| text.contains("SIGKILL")).await;
    // The reload, while it runs and when it has.
    server.cli("reload", &[]).await;
    terminal.shows("the canary", |text| text.contains("0 of 4 slots")).await;
    terminal
        .shows("the end", |text| text.contains("generation 2 serves"))
        .await;
    // It follows the size of the window: what must stay is still there.
    terminal.resize(8, 60);
    let text = terminal
        .shows("a small picture", |text| {
            text.lines().count() <= 8 && text.contains("q quits")
        })
        .await;
    assert!(text.starts_with("anyworker"), "{text}");
    terminal.types("q");
    assert_eq!(terminal.ends().await.code(), Some(0));
    terminal.assert_restored();
}

#[tokio::test]
async fn nothing_flickers() {
    let server = Plan::new().start().await;
    let mut terminal = watching(&server);
    terminal.shows("the fleet", |text| text.contains("serving")).await;
    let first = terminal.written().len();
    let uptime = |text: &str| text.lines().next().map(str::to_owned);
    let before = uptime(&terminal.text());
    terminal.shows("the next second", |text| uptime(text) != before).await;
    // Only lines that changed, shown in one step: never a cleared screen, never what did not change.
    let later = terminal.written()[first..].to_owned();
    assert!(
        !later.contains("\u{1b}[2J") && !later.contains("connections"),
        "{later:?}"
    );
    let steps = later.matches("\u{1b}[?2026h").count();
    assert!(
        steps > 0 && steps == later.matches("\u{1b}[?2026l").count(),
        "{later:?}"
    );
    terminal.types("\u{3}");
    assert_eq!(terminal.ends().await.code(), Some(0));
    terminal.assert_restored();
}

#[tokio::test]
async fn a_signal_leaves_no_mess() {
    let mut server = Plan::new().start().await;
    let mut terminal = watching(&server);
    terminal.shows("the fleet", |text| text.contains("serving")).await;
    // Without a supervisor it says so, and goes on.
    server.signal(Signal::SIGQUIT);
    server.exit_within(PATIENCE).await;
    terminal
        .shows("its absence", |text| text.contains("no supervisor answers"))
        .await;
    server.run();
    server.ready().await;
    terminal
        .shows("its return", |text| {
            text.contains("serving") && !text.contains("no supervisor")
        })
        .await;
    signal(terminal.pid(), Signal::SIGTERM);
    assert_eq!(terminal.ends().await.code(), Some(0));
    terminal.assert_restored();
}

#[tokio::test]
async fn a_pipe_gets_lines_until_it_is_closed() {
    let server = Plan::new().start().await;
    for json in [true, false] {
        let mut command = tokio::process::Command::from(server.command("status"));
        command.args(["--watch", "--every", "0.1"]);
        if json {
            command.arg("--json");
        }
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(soon("a line", lines.next_line()).await.unwrap().unwrap());
        }
        assert!(!seen.iter().any(|line| line.contains('\u{1b}')), "{seen:?}");
        if json {
            let status: Value = serde_json::from_str(&seen[19]).unwrap();
            assert_eq!(status["workers"].as_array().unwrap().len(), 4);
            assert!(status["workers"][0]["rss_bytes"].as_u64().unwrap() > 1_000_000);
            assert!(status["workers"][0]["cpu_percent"].is_number(), "{status}");
        } else {
            let of_fleet = seen
                .iter()
                .filter(|line| line.starts_with("fleet state=serving "))
                .count();
            let of_workers = seen.iter().filter(|line| line.starts_with("worker slot=")).count();
            assert_eq!((of_fleet, of_workers), (4, 16), "{seen:?}");
        }
        drop(lines);
        assert_eq!(soon("its end", child.wait()).await.unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn a_pipe_hears_of_a_server_that_is_gone() {
    let mut server = Plan::new().start().await;
    server.signal(Signal::SIGQUIT);
    until("its end", async || server.exited()).await;
    for (json, expected) in [
        (false, "fleet state=down reason=\"no supervisor"),
        (true, "{\"error\":\"no supervisor"),
    ] {
        let mut command = tokio::process::Command::from(server.command("status"));
        command.args(["--watch", "--every", "0.1"]);
        if json {
            command.arg("--json");
        }
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
        assert!(line.starts_with(expected), "{line}");
        drop(lines);
        assert_eq!(soon("its end", child.wait()).await.unwrap().code(), Some(69));
    }
}
