//! Clients that come back at once after much was published, which concerns none of them.

use crate::harness::{Wire, within};
use crate::scene::Scene;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// Sessions that come back, and what lies in the log since they left: 30 MB, far more than a ring holds.
const SESSIONS: usize = 200;
const ENTRIES: usize = 300;
const ENTRY_BYTES: usize = 100_000;
/// What Redis may have above what it had: answers to those that read it.
const REDIS_BYTES_MAX: usize = 64 << 20;
/// The same for the worker: what it collects (32 MiB), a part of the log that is read, and what is not written yet.
const WORKER_BYTES_MAX: usize = 128 << 20;

/// All of them have what they missed by then, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket&recovery=true";

/// A session of a room of its own, as its client remembers it.
struct Session {
    pid: Value,
    sid: Value,
    offset: Value,
    room: String,
}

async fn session(addr: SocketAddr, number: usize) -> Session {
    let room = format!("room {number}");
    let mut wire = Wire::dial(addr, SOCKET, &[]).await.expect("a WebSocket");
    assert!(wire.text().await.starts_with("0{"));
    let answer = wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
    wire.send(&format!("42{}", json!(["publish", room, "first"]))).await;
    let event = wire.data().await;
    let event: Value = serde_json::from_str(event.strip_prefix("42").expect("an event")).expect("JSON");
    Session {
        pid: answer["pid"].clone(),
        sid: answer["sid"].clone(),
        offset: event[2].clone(),
        room,
    }
}

/// One try, with what stock clients wait for a CONNECT.
async fn comes_back(addr: SocketAddr, session: &Session) -> Wire {
    let mut wire = Wire::dial(addr, SOCKET, &[]).await.expect("a WebSocket");
    wire.patience = PATIENCE;
    assert!(wire.text().await.starts_with("0{"));
    let auth = json!({ "pid": session.pid, "offset": session.offset });
    wire.send(&format!("40{auth}")).await;
    let (mut recovered, mut missed) = (false, false);
    while !(recovered && missed) {
        let packet = wire.data().await;
        match packet.strip_prefix("40") {
            Some(answer) => {
                let answer: Value = serde_json::from_str(answer).expect("JSON");
                assert_eq!(answer["sid"], session.sid, "a new session");
                recovered = true;
            }
            None => {
                assert!(packet.starts_with(r#"42["message","second""#), "{packet}");
                missed = true;
            }
        }
    }
    wire
}

#[tokio::test]
async fn two_hundred_clients_that_come_back_at_once_disturb_no_other() {
    let scene = Scene::new("recovery = { offsets = 'always' }").await;
    let addr = scene.server.addr;
    let sessions = join_all((0..SESSIONS).map(|number| session(addr, number))).await;
    let mut publisher = Wire::open(&scene.server).await;
    publisher.connect().await;
    for session in &sessions {
        let ack = publisher.call(0, &json!(["publish", session.room, "second"])).await;
        assert_eq!(ack, json!(["ok"]));
    }
    let other = "x".repeat(ENTRY_BYTES);
    for _ in 0..ENTRIES {
        let ack = publisher.call(0, &json!(["publish", "others", other])).await;
        assert_eq!(ack, json!(["ok"]));
    }
    let storm = join_all(sessions.iter().map(|session| comes_back(addr, session)));
    let (wires, cost) = scene
        .attack("200 come back after 30 MB", within(PATIENCE, "all", storm))
        .await;
    assert_eq!(wires.len(), SESSIONS);
    assert!(cost.redis < REDIS_BYTES_MAX, "{cost:?}");
    assert!(cost.worker < WORKER_BYTES_MAX, "{cost:?}");
}
