//! An event of 33 MB is refused from every source, and no other client notices.

use crate::harness::{Frame, Plan, Poller, Request, Resp, Server, Wire, ask, ms, pass, until};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Duration, Instant};

const HUGE: usize = 33_000_000;
const SECRET: &str = "a secret that is long enough";

/// The longest that anybody else may wait for an answer meanwhile, with unoptimised code on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

fn huge() -> String {
    "x".repeat(HUGE)
}

/// Other clients, on every worker, that ask all the time; how long the slowest answer took.
async fn others(server: &Server, there: &Cell<bool>, done: &Cell<bool>) -> Duration {
    let mut wires = Vec::new();
    for _ in 0..12 {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "others"])).await, json!(["ok"]));
        wires.push(wire);
    }
    let (mut slowest, mut round) = (Duration::ZERO, 0);
    there.set(true);
    while !done.get() {
        round += 1;
        for wire in &mut wires {
            let began = Instant::now();
            assert_eq!(wire.call(round, &json!(["echo", round])).await, json!([round]));
            slowest = slowest.max(began.elapsed());
        }
        pass(ms(5)).await;
    }
    slowest
}

/// Does `harm` while others go on; no worker dies, no client is closed or waits for long.
async fn no_other_client_notices(harm: impl AsyncFnOnce(&Server)) {
    let server = Plan::new()
        .with(&format!("emit = {{ secret = '{SECRET}' }}"))
        .start()
        .await;
    let before = server.status().await.ready_pids();
    let (there, done) = (Cell::new(false), Cell::new(false));
    let harming = async {
        until("the others", async || there.get().then_some(())).await;
        harm(&server).await;
        done.set(true);
    };
    let (slowest, ()) = tokio::join!(others(&server, &there, &done), harming);
    eprintln!("slowest answer to others: {slowest:?}");
    assert!(slowest < PATIENCE, "{slowest:?}");
    assert_eq!(server.status().await.ready_pids(), before);
    assert!(!server.log().contains("log connection lost"), "the log was disturbed");
}

#[tokio::test]
async fn over_websocket() {
    no_other_client_notices(async |server| {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        let event = json!(["publish", "others", huge()]);
        // It may be closed before all of it is sent.
        drop(wire.try_send(&format!("421{event}")).await);
        match wire.drain().await {
            Frame::Close(code) => assert_eq!(code, Some(1009)),
            end @ (Frame::Gone | Frame::Binary(_) | Frame::Text(_)) => panic!("no reason: {end:?}"),
        }
        server.logged("message too large").await;
    })
    .await;
}

#[tokio::test]
async fn over_polling() {
    no_other_client_notices(async |server| {
        let poller = Poller::open(server).await;
        poller.connect().await;
        let event = json!(["publish", "others", huge()]);
        let reply = poller.post(format!("421{event}")).await;
        assert_eq!(reply.status, 413, "{reply:?}");
        // The session goes on.
        assert_eq!(poller.call(2, &json!(["echo", 1])).await, json!([1]));
    })
    .await;
}

#[tokio::test]
async fn by_http() {
    no_other_client_notices(async |server| {
        let event = json!({ "event": "message", "data": huge(), "room": "others" }).to_string();
        let request = Request::post("/api/emit", event).header("Authorization", &format!("Bearer {SECRET}"));
        let reply = ask(server.addr, request).await.expect("an answer");
        assert_eq!(reply.status, 413);
        assert!(reply.text().contains("larger than"), "{reply:?}");
    })
    .await;
}

/// Through Redis there is no answer: the log of the worker that leads the ingest says it, and what comes next passes.
async fn through_redis(words: &[&str], reason: &str) {
    no_other_client_notices(async |server| {
        server.logged("external ingest lease acquired").await;
        server.redis().command(words).await;
        server.logged(reason).await;
        let mut member = Wire::open(server).await;
        member.connect().await;
        assert_eq!(member.call(0, &json!(["join", "after"])).await, json!(["ok"]));
        // A channel keeps nothing while its subscription is being made again.
        let heard = Cell::new(false);
        let listening = async {
            let packet = member.data().await;
            let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
            assert_eq!(event[1], "good");
            heard.set(true);
        };
        let good = json!({ "method": "emit", "event": "door", "data": ["good"], "room": "after" }).to_string();
        let sending = async {
            while !heard.get() {
                server.redis().command(&["PUBLISH", "socketio", &good]).await;
                pass(ms(100)).await;
            }
        };
        tokio::join!(listening, sending);
        until("the streams are read", async || {
            (server.redis().command(&["XLEN", "socketio:ingest"]).await == Resp::Int(0)).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn by_our_stream() {
    let event = json!({ "event": "message", "data": huge(), "room": "others" }).to_string();
    through_redis(
        &["XADD", "socketio:ingest", "*", "event", &event],
        "larger than log.entry_bytes_max",
    )
    .await;
}

#[tokio::test]
async fn by_the_stream_of_nodes_emitter() {
    let data = json!({
        "packet": { "type": 2, "data": ["message", huge()], "nsp": "/" },
        "opts": { "rooms": ["others"], "flags": {}, "except": [] },
    });
    let (data, fields) = (data.to_string(), ["uid", "emitter", "nsp", "/", "type", "3", "data"]);
    let words = [&["XADD", "socket.io", "*"][..], &fields, &[&data]].concat();
    through_redis(&words, "larger than log.entry_bytes_max").await;
}

#[tokio::test]
async fn by_pythons_channel() {
    let event = json!({ "method": "emit", "event": "message", "data": [huge()], "room": "others" }).to_string();
    through_redis(
        &["PUBLISH", "socketio", &event],
        "larger than client-output-buffer-limit allows",
    )
    .await;
}

#[tokio::test]
async fn by_the_channel_of_nodes_emitter() {
    // What is in it does not matter: it is never read.
    through_redis(
        &["PUBLISH", "socket.io#/#", &huge()],
        "larger than client-output-buffer-limit allows",
    )
    .await;
}
