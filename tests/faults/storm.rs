//! Many clients come back at once, after much was published.

use crate::harness::{Plan, Server, Wire};
use crate::recovery::come_back;
use futures_util::future::join_all;
use serde_json::{Value, json};

const MEMBERS: usize = 60;
/// Of messages that concern none of them.
const OTHERS: usize = 80;
const OTHER_BYTES: usize = 100_000;

/// A member of a room of its own: its private id, its sid, and the offset of its last message.
async fn member(server: &Server, room: &str) -> (Value, Value, Value) {
    let mut wire = Wire::open(server).await;
    let answer = wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
    wire.send(&format!("421{}", json!(["publish", room, "first"]))).await;
    loop {
        let packet = wire.data().await;
        if let Some(event) = packet.strip_prefix("42") {
            let event: Value = serde_json::from_str(event).expect("JSON");
            return (answer["pid"].clone(), answer["sid"].clone(), event[2].clone());
        }
    }
}

/// The log is not read by each of them: before, 200 sessions and 30 MB made Redis hold 4 GB of answers, and every first
/// resume was refused.
#[tokio::test]
async fn clients_that_come_back_together_read_the_log_together() {
    let server = Plan::new()
        .with("workers = { count = 2 }\nrecovery = { offsets = 'always', entries_max = 20 }\nlog = { ring_bytes_max = 1_000_000 }")
        .start()
        .await;
    let rooms: Vec<String> = (0..MEMBERS).map(|n| format!("room {n}")).collect();
    let members = join_all(rooms.iter().map(|room| member(&server, room))).await;
    let mut publisher = Wire::open(&server).await;
    publisher.connect().await;
    for room in &rooms {
        let ack = publisher.call(0, &json!(["publish", room, "second"])).await;
        assert_eq!(ack, json!(["ok"]));
    }
    let other = "x".repeat(OTHER_BYTES);
    for _ in 0..OTHERS {
        assert_eq!(
            publisher.call(0, &json!(["publish", "others", other])).await,
            json!(["ok"])
        );
    }
    let before = server.redis().info("memory", "used_memory").await;
    let came_back = join_all(members.iter().map(async |(pid, sid, offset)| {
        let (_wire, missed, answer) = come_back(&server, pid, Some(offset)).await;
        assert_eq!(missed, ["second"]);
        assert_eq!(&answer["sid"], sid, "recovered at the first try");
    }));
    came_back.await;
    let log = (OTHERS * OTHER_BYTES) as f64;
    let peak = server.redis().info("memory", "used_memory_peak").await;
    assert!(peak < before + log, "{before} before, {peak} at most");
    // Each worker reads it for those that have come by then, and once more for those that come while it reads.
    let name = "gw_log_reread_bytes_total ";
    server.metric_when(name, "", |bytes| bytes >= log).await;
    let reread = server.metric(name, "").await;
    assert!(reread < 8.0 * log, "{reread} bytes read for a log of {log}");
}

/// What a session has missed is far more than is collected at a time: it comes in parts, in order, whole.
#[tokio::test]
async fn much_that_was_missed_comes_in_parts() {
    const MISSED: usize = 300;
    let server = Plan::new()
        .with("recovery = { offsets = 'always' }\nlog = { ring_bytes_max = 1_000_000 }\nlimits = { outbox_bytes_max = 400_000 }")
        .start()
        .await;
    let (pid, sid, offset) = member(&server, "room").await;
    let mut publisher = Wire::open(&server).await;
    publisher.connect().await;
    for number in 0..MISSED {
        let data = format!("{number} {}", "x".repeat(20_000));
        assert_eq!(
            publisher.call(0, &json!(["publish", "room", data])).await,
            json!(["ok"])
        );
    }
    let mut wire = Wire::open(&server).await;
    wire.send(&format!("40{}", json!({ "pid": pid, "offset": offset })))
        .await;
    let answer = wire.data().await;
    let answer: Value = serde_json::from_str(answer.strip_prefix("40").expect("the answer goes first")).expect("JSON");
    assert_eq!(answer["sid"], sid);
    for number in 0..MISSED {
        let packet = wire.data().await;
        assert!(
            packet.starts_with(&format!("42[\"message\",\"{number} x")),
            "{number}: {}",
            &packet[..40]
        );
    }
    assert_eq!(
        publisher.call(0, &json!(["publish", "room", "live"])).await,
        json!(["ok"])
    );
    assert!(wire.data().await.starts_with(r#"42["message","live""#));
}
