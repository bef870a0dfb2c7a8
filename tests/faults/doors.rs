//! Events from outside while workers die: one worker reads the doors, another one takes over.

use crate::harness::{Frame, Plan, Resp, Server, Wire, signal, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A member of the room on each of so many connections.
async fn members(server: &Server, count: usize) -> Vec<Wire> {
    let mut members = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        members.push(wire);
    }
    members
}

/// Slot and pid of the worker that reads the doors.
async fn leader(server: &Server) -> (u16, u32) {
    until("a worker that reads the doors", async || {
        let Resp::Text(name) = server.redis().command(&["GET", "socketio:ingest:leader"]).await else {
            return None;
        };
        let slot = name.rsplit_once('-')?.1.split_once('.')?.0.parse().ok()?;
        let status = server.status().await;
        let worker = status.workers.iter().find(|worker| worker.slot == slot)?;
        Some((slot, worker.pid?))
    })
    .await
}

async fn first_argument(wire: &mut Wire) -> Value {
    let packet = wire.data().await;
    let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
    event[1].clone()
}

#[tokio::test]
async fn another_worker_reads_the_doors_when_one_is_killed() {
    let server = Plan::new().start().await;
    let mut members = members(&server, 8).await;
    let (slot, pid) = leader(&server).await;
    let item = |n: usize| json!({ "event": "door", "data": n, "room": "room" }).to_string();
    // What is in the stream waits for the next leader: nothing is lost, and nothing comes twice.
    let mut killed = None;
    for n in 0..200 {
        let event = item(n);
        server
            .redis()
            .command(&["XADD", "socketio:ingest", "*", "event", &event])
            .await;
        if n == 100 {
            signal(pid, Signal::SIGKILL);
            killed = Some(Instant::now());
        }
    }
    let mut complete = 0;
    let (_, next) = until("another worker that reads the doors", async || {
        let found = leader(&server).await;
        (found.1 != pid).then_some(found)
    })
    .await;
    let took = killed.expect("killed").elapsed();
    assert!(
        took < Duration::from_secs(2),
        "{took:?} until {next} took over from slot {slot}"
    );
    for member in &mut members {
        let mut seen = Vec::new();
        // Members whose worker was the one that died are gone.
        while seen.len() < 200 {
            match member.next().await {
                Frame::Text(text) if text == "2" => member.send("3").await,
                Frame::Text(text) => {
                    let event: Value = serde_json::from_str(&text[2..]).expect("JSON");
                    seen.push(event[1].clone());
                }
                Frame::Binary(_) | Frame::Close(_) | Frame::Gone => break,
            }
        }
        if seen.len() == 200 {
            assert_eq!(seen, (0..200).map(Value::from).collect::<Vec<_>>());
            complete += 1;
        }
    }
    assert!(complete > 0, "every member was on the worker that died");
    assert_eq!(server.redis().command(&["XLEN", "socketio:ingest"]).await, Resp::Int(0));
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_the_next_one_passes() {
    let server = Plan::new().start().await;
    let mut members = members(&server, 4).await;
    leader(&server).await;
    let huge = json!({ "event": "door", "data": "x".repeat(33_000_000), "room": "room" }).to_string();
    for bad in [r#"{"event":"connect"}"#, "nonsense", &huge] {
        server
            .redis()
            .command(&["XADD", "socketio:ingest", "*", "event", bad])
            .await;
    }
    server
        .redis()
        .command(&["XADD", "socketio:ingest", "*", "other", "field"])
        .await;
    server.redis().command(&["PUBLISH", "socket.io#/#", "noise"]).await;
    server.logged("MessagePack").await;
    // Redis itself cuts off subscribers that have more than 32 MB to come: the doors are opened again.
    let python_huge = json!({ "method": "emit", "event": "door", "data": ["x".repeat(33_000_000)], "room": "room" });
    server
        .redis()
        .command(&["PUBLISH", "socketio", &python_huge.to_string()])
        .await;
    let good = r#"{"event":"door","data":"good","room":"room"}"#;
    server
        .redis()
        .command(&["XADD", "socketio:ingest", "*", "event", good])
        .await;
    for member in &mut members {
        assert_eq!(first_argument(member).await, "good");
    }
    for reason in ["reserved", "an entry of 33", "no field `event`"] {
        server.logged(reason).await;
    }
    until("an empty stream", async || {
        (server.redis().command(&["XLEN", "socketio:ingest"]).await == Resp::Int(0)).then_some(())
    })
    .await;
}
