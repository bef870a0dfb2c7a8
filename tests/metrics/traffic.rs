//! What clients do is counted, once, whatever worker it meets.

use crate::harness::{Plan, Poller, Request, Server, Wire, ask, soon};
use crate::page::Page;
use serde_json::{Value, json};

async fn publish(wire: &mut Wire, id: u64, payload: &str) {
    assert_eq!(wire.call(id, &json!(["publish", "room", payload])).await, json!(["ok"]));
}

/// What the traffic below comes to.
const EXPECTED: [(&str, &[&str], f64); 20] = [
    ("gw_sessions", &["state=\"websocket\""], 3.0),
    ("gw_connections", &["transport=\"websocket\""], 3.0),
    ("gw_connections_max", &[], 2_000.0),
    ("gw_handshakes_total", &["websocket", "ok"], 4.0),
    ("gw_handshakes_total", &["polling", "ok"], 2.0),
    ("gw_upgrades_total", &["result=\"ok\""], 1.0),
    ("gw_upgrades_total", &["refused"], 1.0),
    // join, join, 5 publishes, the unknown one.
    ("gw_events_in_total", &[], 8.0),
    ("gw_unknown_events_total", &[], 1.0),
    ("gw_events_out_total", &["websocket"], 5.0),
    ("gw_resume_total", &["result=\"recovered\""], 1.0),
    ("gw_resume_total", &["reason=\"unknown\""], 1.0),
    ("gw_recovered_events_sum", &[], 2.0),
    ("gw_recovered_events_count", &[], 1.0),
    ("gw_recovered_events_bucket", &["le=\"1.0\""], 0.0),
    ("gw_recovered_events_bucket", &["le=\"3.0\""], 1.0),
    ("gw_redis_errors_total", &[], 0.0),
    ("gw_redis_reconnects_total", &[], 0.0),
    ("gw_disconnects_total", &["reason=\"transport_"], 1.0),
    ("gw_slow_consumer_total", &[], 0.0),
];

/// A WebSocket that began by polling.
async fn climb(server: &Server) -> Wire {
    let climber = Poller::open(server).await;
    climber.connect().await;
    let dialled = Wire::dial(server.addr, &climber.upgrade_target(), &[]).await;
    let mut climbed = dialled.expect("an upgrade");
    climbed.send("2probe").await;
    assert_eq!(climbed.text().await, "3probe");
    climbed.send("5").await;
    let answer = climbed.call(2, &json!(["unheard of"])).await;
    assert_eq!(answer, json!([{"error": "unknown event \"unheard of\""}]));
    climbed
}

/// Comes with a private id: the connection, up to the answer, and how many events came before.
async fn come_back(server: &Server, pid: &str, offset: &Value) -> (Wire, usize) {
    let mut wire = Wire::open(server).await;
    wire.send(&format!("40{}", json!({ "pid": pid, "offset": offset })))
        .await;
    let mut missed = 0;
    while !wire.data().await.starts_with("40") {
        missed += 1;
    }
    (wire, missed)
}

#[tokio::test]
async fn each_transport_is_counted() {
    let plan = Plan::new().with("recovery = { offsets = 'always' }\nlimits = { connections_max = 500 }");
    let server = plan.start().await;
    let mut publisher = Wire::open(&server).await;
    publisher.connect().await;
    let mut member = Wire::open(&server).await;
    let joined = member.connect().await;
    assert_eq!(member.call(1, &json!(["join", "room"])).await, json!(["ok"]));
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(1, &json!(["join", "room"])).await, json!(["ok"]));
    let _climbed = climb(&server).await;
    // Three events: for the WebSocket and for the poller.
    for id in 1..=3 {
        publish(&mut publisher, id, "heard").await;
    }
    let mut offset = Value::Null;
    for _ in 0..3 {
        let event = member.data().await;
        let event: Value = serde_json::from_str(event.strip_prefix("42").expect("an event")).unwrap();
        offset = event[2].clone();
    }
    let mut heard = 0;
    while heard < 3 {
        heard += poller
            .poll()
            .await
            .iter()
            .filter(|packet| packet.contains("heard"))
            .count();
    }
    // The member is cut off, misses two, and comes back for them; a stranger comes back to nothing.
    drop(member);
    publish(&mut publisher, 4, "missed").await;
    publish(&mut publisher, 5, "missed").await;
    let pid = joined["pid"].as_str().unwrap();
    let (_back, missed) = come_back(&server, pid, &offset).await;
    assert_eq!(missed, 2);
    let unknown: String = pid.chars().rev().collect();
    let (mut stranger, missed) = come_back(&server, &unknown, &offset).await;
    assert_eq!(missed, 0);
    stranger.send("1").await;
    assert_eq!(stranger.end().await, None);
    refused(&server).await;
    let page = Page::with(&server, &EXPECTED).await;
    // What is not known to the digit: each worker has read each entry, pollers go from worker to worker.
    // An entry may have told that the session was taken over.
    assert!(
        [5.0, 6.0].contains(&page.sum("gw_publish_total", &["appended"])),
        "{}",
        page.text
    );
    assert!(page.sum("gw_publish_seconds_count", &[]) >= 5.0);
    assert!(page.sum("gw_events_out_total", &["polling"]) >= 3.0);
    assert!(page.sum("gw_foreign_requests_total", &[]) >= 1.0, "{}", page.text);
    assert!(page.sum("gw_redis_op_seconds_count", &["requests"]) > 20.0);
    assert!(page.sum("gw_http_requests_total", &["code=\"101\""]) >= 5.0);
    assert_eq!(page.sum("gw_redis_up", &[]), 4.0);
    let told = Page::when(&server, "all have read the log", |page| {
        page.sum("gw_log_entries_total", &[]) >= 20.0
    })
    .await;
    assert!(told.sum("gw_log_position", &["worker=\"0\""]) >= 5.0);
}

/// Handshakes and an upgrade that are refused.
async fn refused(server: &Server) {
    for target in [
        "/socket.io/?EIO=3&transport=polling",
        "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA",
    ] {
        let reply = soon("an answer", ask(server.addr, Request::get(target))).await.unwrap();
        assert_eq!(reply.status, 400);
    }
    let upgrade = "/socket.io/?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA";
    assert!(Wire::dial(server.addr, upgrade, &[]).await.is_err());
}

#[tokio::test]
async fn an_outage_of_redis_is_on_the_page() {
    let mut server = Plan::new()
        .with("log = { publish_timeout_ms = 500 }\nworkers = { count = 2 }")
        .start()
        .await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    server.redis_mut().kill();
    let failed = wire.call(1, &json!(["publish", "room", "x"])).await;
    assert!(failed[0]["error"].is_string(), "{failed}");
    let page = Page::when(&server, "Redis is away", |page| {
        page.sum("gw_redis_up", &[]) == 0.0 && page.sum("gw_publish_total", &["timeout"]) == 1.0
    })
    .await;
    assert!(page.sum("gw_redis_errors_total", &["unavailable"]) >= 1.0);
    server.redis_mut().again().await;
    let back = Page::when(&server, "Redis is back", |page| page.sum("gw_redis_up", &[]) == 2.0).await;
    assert!(back.sum("gw_redis_reconnects_total", &[]) >= 2.0, "{}", back.text);
    back.assert_not_behind(&page);
}

#[tokio::test]
async fn a_move_is_on_the_page() {
    let server = Plan::new().start().await;
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        wires.push(wire);
    }
    let before = Page::when(&server, "20 WebSockets", |page| {
        page.sum("gw_sessions", &["websocket"]) == 20.0
    })
    .await;
    assert!(server.cli("reload", &["--wait"]).await.status.success());
    let after = Page::when(&server, "20 moves", |page| {
        page.sum("gw_handover_moved_total", &[]) == 20.0 && page.sum("gw_handover_taken_total", &[]) == 20.0
    })
    .await;
    after.assert_not_behind(&before);
    assert_eq!(after.sum("gw_handover_freeze_seconds_count", &[]), 20.0);
    assert_eq!(after.sum("gw_handover_stayed_total", &[]), 0.0);
    assert_eq!(after.sum("gw_disconnects_total", &[]), 0.0, "nothing has ended");
    Page::when(&server, "20 WebSockets", |page| {
        page.sum("gw_sessions", &["websocket"]) == 20.0
    })
    .await;
}
