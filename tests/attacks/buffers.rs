//! What clients make a worker keep: unfinished messages and bodies, gathered attachments, what they do not read.

use crate::attacker::{each, joined, member, not_reading, slow_connection};
use crate::harness::{Link, Poller, Request, Server, Wire, soon, text_frame, until};
use crate::scene::{Scene, many};
use serde_json::json;

/// The budget of these tests (bytes), and the parts of attackers that exceed it ten times.
const BUDGET: usize = 8 << 20;
const ATTACKERS: usize = 90;
const PART: usize = 900_000;
/// What attackers send that join nothing.
const SHORT_PART: usize = 16_000;
/// Clients that read nothing, and how many events of 90 KB they get: the kernel takes the first of them.
const NOT_READING: usize = 40;
const EVENTS: u64 = 60;
/// What the worker's memory may grow by: buffers double as they grow, and some memory is not given back at once.
const GROWTH_MAX: usize = 5 * BUDGET;

async fn scene() -> Scene {
    // An outbox alone may have more than the budget, which is what these tests are about.
    let toml = format!("limits = {{ buffers_bytes_max = {BUDGET}, outbox_bytes_max = 33554432 }}");
    Scene::new(&toml).await
}

/// A client that has half of its own message on the way while others attack.
struct Slow(Wire);

impl Slow {
    async fn new(server: &Server) -> Self {
        let mut wire = member(server).await;
        wire.send_raw(&text_frame(100_000, r#"427["echo",""#)).await;
        wire.send_raw(&vec![b'x'; 50_000]).await;
        Self(wire)
    }

    async fn finishes(mut self) {
        let rest = 100_000 - 50_000 - r#"427["echo",""#.len() - r#""]"#.len();
        self.0.send_raw(&vec![b'x'; rest]).await;
        self.0.send_raw(br#""]"#).await;
        let ack = self.0.data().await;
        assert!(ack.starts_with(r#"437["xxx"#), "{}", &ack[..20]);
    }
}

/// Some attackers were closed for the budget, and the others keep no more than that.
async fn assert_bounded(server: &Server, grown: usize) {
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
    server
        .metric_when("gw_limits_reached_total", "limit=\"buffers\"", |n| n > 0.0)
        .await;
    let held = server.metric("gw_buffers_bytes{", "").await;
    assert!(held <= BUDGET as f64, "{held} bytes are held");
}

#[tokio::test]
async fn messages_that_are_never_finished_stay_within_the_budget() {
    let scene = scene().await;
    let server = &scene.server;
    let slow = Slow::new(server).await;
    // Before CONNECT.
    let unsettled = each(many(600, 19_500), async |number| {
        let mut wire = not_reading(server.addr, number).await;
        wire.send_raw(&text_frame(16_384, "40")).await;
        wire.send_raw(&vec![b'x'; SHORT_PART]).await;
        wire
    });
    let (unsettled, cost) = scene.attack("half frames before CONNECT", unsettled).await;
    assert_bounded(server, cost.worker).await;
    drop(unsettled);
    // After it.
    let members = each(ATTACKERS, async |_| {
        let mut wire = member(server).await;
        wire.send_raw(&text_frame(999_000, "42")).await;
        wire.send_raw(&vec![b'x'; PART]).await;
        wire
    });
    let (mut members, cost) = scene.attack("half frames", members).await;
    assert_bounded(server, cost.worker).await;
    server
        .metric_when("gw_disconnects_total", "reason=\"over_budget\"", |n| n > 0.0)
        .await;
    let mut codes = Vec::new();
    for wire in members.drain(..20) {
        codes.push(first_end(wire).await);
    }
    assert!(codes.contains(&Some(1013)), "{codes:?}");
    drop(members);
    // Attachments of which the last one never comes.
    let gathering = each(ATTACKERS, async |_| {
        let mut wire = member(server).await;
        wire.send(r#"452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#)
            .await;
        wire.send_binary(&vec![0; PART]).await;
        wire
    });
    let (gathering, cost) = scene.attack("attachments without the last", gathering).await;
    assert_bounded(server, cost.worker).await;
    drop(gathering);
    slow.finishes().await;
}

/// The code that a connection ended with, if it has.
async fn first_end(mut wire: Wire) -> Option<u16> {
    let ended = tokio::time::timeout(harness::ms(200), wire.end()).await;
    ended.ok().flatten()
}

#[tokio::test]
async fn bodies_that_are_never_finished_stay_within_the_budget() {
    let scene = scene().await;
    let server = &scene.server;
    let slow = Slow::new(server).await;
    let halves = each(ATTACKERS, async |_| {
        let poller = Poller::open(server).await;
        poller.connect().await;
        let head = Request::new("POST", &poller.target()).header("Content-Length", "999000");
        let mut link = Link::open(server.addr).await.expect("connect");
        link.send(&head.bytes(server.addr)).await.expect("send");
        // It may have been refused already.
        drop(link.send(&vec![b'x'; PART]).await);
        (poller, link)
    });
    let (mut halves, cost) = scene.attack("half bodies", halves).await;
    assert_bounded(server, cost.worker).await;
    // One that was refused is told so once its rest has come, and its session is over.
    let (poller, mut link) = halves.swap_remove(0);
    drop(link.send(&vec![b'x'; 999_000 - PART]).await);
    let reply = soon("the answer", link.reply(false)).await.expect("an answer");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    poller.assert_gone().await;
    slow.finishes().await;
}

#[tokio::test]
async fn what_is_never_read_stays_within_the_budget() {
    let scene = scene().await;
    let server = &scene.server;
    let slow = Slow::new(server).await;
    let mut members = each(NOT_READING, async |number| {
        let mut wire = not_reading(server.addr, number).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        wire
    })
    .await;
    let mut publisher = member(server).await;
    let mut reader = joined(server, "room").await;
    let payload = "x".repeat(90_000);
    let events = async {
        for id in 0..EVENTS {
            let ack = publisher.call(id, &json!(["publish", "room", payload])).await;
            assert_eq!(ack, json!(["ok"]));
            assert!(reader.data().await.starts_with(r#"42["message","xxx"#));
        }
    };
    let ((), cost) = scene.attack("events that are not read", events).await;
    assert_bounded(server, cost.worker).await;
    server
        .metric_when("gw_disconnects_total", "reason=\"over_budget\"", |n| n > 0.0)
        .await;
    members.clear();
    // The same by polling: the poll is answered, and its answer is not read.
    let polls = each(NOT_READING, async |number| {
        let poller = Poller::open(server).await;
        poller.connect().await;
        assert_eq!(poller.call(0, &json!(["join", "polls"])).await, json!(["ok"]));
        let stream = slow_connection(server.addr, number).await;
        let mut link = Link::over(stream, server.addr).expect("a connection");
        let poll = Request::get(&poller.target());
        link.send(&poll.bytes(server.addr)).await.expect("send");
        link
    })
    .await;
    let parked = |n: f64| n >= NOT_READING as f64;
    server.metric_when("gw_sessions{", "state=\"parked\"", parked).await;
    let payload = "x".repeat(PART);
    let event = async {
        let ack = publisher.call(0, &json!(["publish", "polls", payload])).await;
        assert_eq!(ack, json!(["ok"]));
        // The bystanders are watched while the answers wait.
        until("answers", async || {
            (server.metric("gw_sessions{", "state=\"parked\"").await < NOT_READING as f64).then_some(())
        })
        .await;
    };
    let ((), cost) = scene.attack("answers that are not read", event).await;
    assert!(cost.worker < GROWTH_MAX, "{cost:?}");
    drop(polls);
    slow.finishes().await;
}

/// Clients send one large message each, and stay: what it took is free again.
#[tokio::test]
async fn a_large_message_costs_no_memory_afterwards() {
    let clients = many(80, 500);
    let scene = Scene::new("").await;
    let server = &scene.server;
    let text = "x".repeat(PART);
    let message = format!("42{}", json!(["unknown", text]));
    let message = &message;
    let over_websockets = each(clients, async |_| {
        let mut wire = member(server).await;
        wire.send(message).await;
        assert_eq!(wire.call(0, &json!(["echo", 1])).await, json!([1]), "it was taken");
        wire
    });
    let before = scene.worker_memory();
    let (mut wires, _) = scene.attack("large messages", over_websockets).await;
    let kept = scene.worker_memory().saturating_sub(before);
    eprintln!("{} KiB are kept for {clients} clients", kept >> 10);
    assert!(kept < clients * PART / 4, "{kept} bytes are kept");
    // All of them are still served.
    for wire in &mut wires {
        assert_eq!(wire.call(1, &json!(["echo", 1])).await, json!([1]));
    }
    server.metric_when("gw_buffers_bytes{", "", |n| n == 0.0).await;
}
