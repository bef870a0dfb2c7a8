//! What passes through the fleet, as `anyworker tail` shows it.

use crate::harness::{Plan, Server, Wire, ms, soon, until};
use crate::many::wire;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A tail that runs.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    /// Follows from now on: it has seen a first event of a publisher of its own.
    async fn start(server: &Server, args: &[&str], probe: &mut Probe) -> Self {
        let mut command = Command::from(server.command("tail"));
        command.args(args).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("start anyworker");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut tail = Self { child, lines };
        let mut nth = 0;
        loop {
            nth += 1;
            probe.publish(&format!("probe {nth}")).await;
            if let Ok(line) = tokio::time::timeout(ms(300), tail.line()).await
                && line.contains("probe")
            {
                break;
            }
        }
        // What else there was of these.
        while let Ok(line) = tokio::time::timeout(ms(200), tail.line()).await {
            assert!(line.contains("probe") || !line.contains("message"), "{line}");
        }
        tail
    }

    async fn line(&mut self) -> String {
        self.lines
            .next_line()
            .await
            .expect("a line")
            .expect("a line, not the end")
    }

    /// The next line that is not about the life of a session.
    async fn event(&mut self) -> String {
        loop {
            let line = soon("an event", self.line()).await;
            let is_probe = line.contains("\"probe ") || line.contains("\\\"probe ");
            if !is_probe && (line.contains("message") || line.contains("order_")) {
                return line;
            }
        }
    }

    /// The next line in which all of this stands.
    async fn sees(&mut self, parts: &[&str]) -> String {
        loop {
            let line = soon(&format!("{parts:?}"), self.line()).await;
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }
}

/// A client that publishes to an empty room.
struct Probe {
    wire: Wire,
    id: u64,
    room: &'static str,
}

impl Probe {
    async fn new(server: &Server, room: &'static str) -> Self {
        let (wire, _) = wire(server, "probe", room).await;
        let mut probe = Self { wire, id: 1, room };
        let left = probe.call(&json!(["leave", room])).await;
        assert_eq!(left, json!(["ok"]));
        probe
    }

    async fn call(&mut self, event: &Value) -> Value {
        self.id += 1;
        self.wire.call(self.id, event).await
    }

    async fn publish(&mut self, payload: &str) {
        assert_eq!(self.call(&json!(["publish", self.room, payload])).await, json!(["ok"]));
    }
}

#[tokio::test]
async fn events_and_lives_are_followed() {
    let server = Plan::new().start().await;
    let mut news = Probe::new(&server, "news").await;
    let mut other = Probe::new(&server, "other").await;
    let mut all = Tail::start(&server, &[], &mut news).await;
    let mut of_room = Tail::start(&server, &["--room", "news", "--json"], &mut news).await;
    let mut named = Tail::start(&server, &["--event", "message", "--full"], &mut news).await;
    let long = "x\u{1b}[2J".repeat(100);
    other.publish("for others").await;
    news.publish(&long).await;
    // Everything, shortened, and nothing that a terminal would act on.
    assert!(all.event().await.contains(r#"rooms=other event=message "for others""#));
    let line = all.event().await;
    assert!(
        line.contains("rooms=news") && line.contains("bytes)") && line.len() < 400,
        "{line}"
    );
    assert!(!line.contains('\u{1b}'), "{line:?}");
    // One room, as JSON.
    let line: Value = serde_json::from_str(&of_room.event().await).unwrap();
    assert_eq!(line["rooms"], json!(["news"]));
    assert_eq!(line["event"], "message");
    // Whole.
    assert!(named.event().await.contains("for others"));
    assert!(named.event().await.len() > 700);
    // Sessions: clients that come, join and go; ids are secrets.
    let (mut guest, id) = wire(&server, "guest", "news").await;
    let line = all.sees(&["connected", "who=guest", &id]).await;
    assert!(line.contains('\u{2026}'), "{line}");
    let line: Value = serde_json::from_str(&of_room.sees(&["joined"]).await).unwrap();
    assert_eq!(line["fields"]["room"], "news");
    guest.send("1").await;
    all.sees(&["closed", "client left"]).await;
    // An order from outside.
    server
        .cli("sessions", &["kick", "--", &wire(&server, "rogue", "news").await.1])
        .await;
    all.sees(&["order_disconnect", "true"]).await;
}

#[tokio::test]
async fn one_session_is_followed() {
    let server = Plan::new().start().await;
    let (mut member, id) = wire(&server, "member", "club").await;
    let mut club = Probe::new(&server, "club").await;
    let mut other = Probe::new(&server, "other").await;
    let mut tail = Tail::start(&server, &["--sid", &id], &mut club).await;
    other.publish("not for the member").await;
    club.publish("for the member").await;
    assert!(tail.event().await.contains("for the member"));
    // It joins another room, and gets what comes there.
    assert!(soon("the probes", member.data()).await.contains("probe"));
    member.send(r#"429["join","other"]"#).await;
    tail.sees(&["joined", "room=other"]).await;
    other.publish("now for the member too").await;
    assert!(tail.event().await.contains("now for the member too"));
    let unknown = server.cli("tail", &["--sid", "unknownunknownunknow"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[tokio::test]
async fn it_ends_without_a_reader_and_survives_redis() {
    let mut server = Plan::new().durable_redis().start().await;
    let mut probe = Probe::new(&server, "news").await;
    let mut tail = Tail::start(&server, &[], &mut probe).await;
    server.redis_mut().kill();
    server.redis_mut().again().await;
    until("the log reachable again", async || {
        server.log().contains("log reachable again").then_some(())
    })
    .await;
    probe.publish("after the restart").await;
    tail.sees(&["after the restart"]).await;
    // A pipe that is closed, without anything to write into it.
    let Tail { mut child, lines } = tail;
    drop(lines);
    let ended = soon("its end", child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    // Ctrl-C.
    let mut tail = Tail::start(&server, &["--only", "events"], &mut probe).await;
    harness::signal(tail.child.id().unwrap(), Signal::SIGINT);
    soon("its end", tail.child.wait()).await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_is_told_what_was_left_out() {
    let server = Plan::new().start().await;
    let mut probe = Probe::new(&server, "news").await;
    let mut tail = Tail::start(&server, &["--json"], &mut probe).await;
    // Nothing is read of it meanwhile: its pipe is full, and it waits.
    let payload = "y".repeat(100);
    for nth in 0..20_000 {
        probe
            .wire
            .send(&format!(r#"42["publish","news","{nth} {payload}"]"#))
            .await;
    }
    probe.publish("the end of it").await;
    let (mut events, mut missed) = (0, 0);
    loop {
        let line: Value = serde_json::from_str(&soon("a line", tail.line()).await).unwrap();
        match line["what"].as_str().unwrap() {
            "event" if line["payload"].as_str().unwrap().contains("the last one") => break,
            "event" => events += 1,
            "missed" => {
                missed += line["entries"].as_u64().unwrap();
                probe.publish("the last one").await;
            }
            _ => {}
        }
    }
    eprintln!("{events} shown, {missed} left out");
    assert_eq!(events + missed, 20_001);
}
