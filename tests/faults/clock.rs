//! The clock of Redis is set, by an hour, to and fro (`docs/design/clocks.md`).

use crate::harness::{Plan, Poller, Request, Resp, Server, Wire, ask, ms, soon, within};
use serde_json::json;
use std::time::{Duration, Instant};

const HOUR: i64 = 3600;
const INTERVAL: Duration = ms(3000);
const TIMEOUT: Duration = ms(4000);
/// A worker that hears no canary for so long is not ready.
const OVERDUE: Duration = ms(3000);

async fn fleet() -> Server {
    let plan = Plan::new().clocked_redis().with(
        r#"
            workers = { count = 2 }
            engine = { ping_interval_ms = 3000, ping_timeout_ms = 4000 }
            log = { canary_interval_ms = 500, canary_overdue_ms = 3000 }
        "#,
    );
    plan.start().await
}

async fn joined_wires(server: &Server) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        wires.push(wire);
    }
    wires
}

/// No client would be sent away for longer than it takes to be overdue, twice.
async fn assert_ready_stays(server: &Server) {
    let begun = Instant::now();
    while begun.elapsed() < 2 * OVERDUE {
        for _ in 0..4 {
            let reply = soon("readiness", ask(server.addr, Request::get("/api/ready"))).await;
            let reply = reply.expect("an answer");
            assert_eq!(reply.status, 200, "{:?} after the jump: {reply:?}", begun.elapsed());
        }
        harness::pass(ms(100)).await;
    }
}

/// Heartbeats go on, for longer than a session without them lives.
async fn assert_wires_beat(wires: &mut [Wire]) {
    for _ in 0..3 {
        for wire in &mut *wires {
            let alive = within(INTERVAL + TIMEOUT, "a ping", wire.next_is_alive()).await;
            assert!(alive, "a WebSocket was closed");
        }
    }
}

/// The same by polling.
async fn assert_poller_beats(poller: &Poller) {
    for _ in 0..3 {
        within(INTERVAL + TIMEOUT, "a ping", poller.poll_until_ping()).await;
    }
}

/// A room delivers, each event comes once, and the ingest leader reads on.
async fn assert_delivers(server: &Server, wires: &mut [Wire], round: i64) {
    let before = Instant::now();
    let event = json!({ "method": "emit", "event": "door", "data": [round], "room": "room" }).to_string();
    // A leader that was replaced subscribes anew: what is published meanwhile is lost.
    let heard = |answer| matches!(answer, Resp::Int(1..));
    while !heard(server.redis().command(&["PUBLISH", "socketio", &event]).await) {
        assert!(before.elapsed() < ms(4000), "no ingest leader");
        harness::pass(ms(20)).await;
    }
    for wire in &mut *wires {
        let packet = wire.data().await;
        assert!(packet.starts_with(&format!(r#"42["door",{round}"#)), "{packet}");
    }
    let (publisher, members) = wires.split_first_mut().expect("wires");
    publisher
        .send(&format!(
            r#"42{id}["publish","room","round {round}"]"#,
            id = round.unsigned_abs()
        ))
        .await;
    let message = format!(r#"42["message","round {round}""#);
    let mut both = [publisher.data().await, publisher.data().await];
    both.sort();
    assert!(both[0].starts_with(&message), "{both:?}");
    for member in members {
        let packet = member.data().await;
        assert!(packet.starts_with(&message), "{packet}");
    }
}

async fn records(server: &Server) -> usize {
    server.redis().keys("socketio:session:*").await.len()
}

#[tokio::test]
async fn a_clock_that_is_set_back_costs_nothing() {
    let server = fleet().await;
    let mut wires = joined_wires(&server).await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
    server.redis().set_clock(-HOUR);
    tokio::join!(
        assert_ready_stays(&server),
        assert_wires_beat(&mut wires),
        assert_poller_beats(&poller)
    );
    assert_eq!(records(&server).await, 5);
    assert_delivers(&server, &mut wires, -HOUR).await;
    assert_eq!(poller.call(1, &json!(["echo", 2])).await, json!([2]));
    let lost = server
        .status()
        .await
        .workers
        .iter()
        .map(|worker| worker.restarts)
        .sum::<u64>();
    assert_eq!(lost, 0);
    // Its client gone, a session does not stay for an hour.
    drop(poller);
    drop(wires);
    server.redis().keys_when("all sessions end", "socketio:poll:*", 0).await;
}

/// Everything in Redis that expires has expired. What a worker holds it writes again; no worker holds a polling session
/// between two requests, and is lost: its client begins a new one.
#[tokio::test]
async fn a_clock_that_is_set_forward_takes_no_websocket() {
    let server = fleet().await;
    let mut wires = joined_wires(&server).await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_delivers(&server, &mut wires, 1).await;
    let kept = server.redis().command(&["XLEN", "socketio:log"]).await;
    server.redis().set_clock(HOUR);
    // What is stored is written anew at once.
    assert_eq!(wires[0].call(7, &json!(["join", "other"])).await, json!(["ok"]));
    poller.assert_gone().await;
    tokio::join!(assert_ready_stays(&server), assert_wires_beat(&mut wires));
    assert_eq!(records(&server).await, wires.len());
    assert_eq!(server.redis().command(&["XLEN", "socketio:log"]).await, kept);
    assert_delivers(&server, &mut wires, HOUR).await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
    assert!(server.log().contains("clock of redis set forward"));
    // Once more, back to what is right.
    server.redis().set_clock(0);
    tokio::join!(
        assert_ready_stays(&server),
        assert_wires_beat(&mut wires),
        assert_poller_beats(&poller)
    );
    assert_delivers(&server, &mut wires, 2).await;
}
