//! What clients publish, and how fast.

use crate::attacker::member;
use crate::harness::{Poller, Wire};
use crate::scene::Scene;
use serde_json::{Value, json};
use std::time::Instant;

/// `log.bytes_max` of these tests. Redis keeps items of several entries, its own buffers, and what is being published.
const LOG_BYTES_MAX: usize = 16 << 20;
const REDIS_BYTES_MAX: usize = 4 * LOG_BYTES_MAX;

/// Sends many events that publish, and waits for their acks while sending.
async fn publish_all(wire: &mut Wire, count: u64, at_once: u64, room: &str, payload: &str) {
    let mut acked = 0;
    for id in 0..count {
        wire.send(&format!("42{id}{}", json!(["publish", room, payload]))).await;
        if id - acked >= at_once {
            wire.data().await;
            acked += 1;
        }
    }
    while acked < count {
        wire.data().await;
        acked += 1;
    }
}

#[tokio::test]
async fn large_events_do_not_fill_redis() {
    let toml = format!("log = {{ bytes_max = {LOG_BYTES_MAX} }}");
    let scene = Scene::new(&toml).await;
    let mut wire = member(&scene.server).await;
    let payload = "x".repeat(900_000);
    let flood = publish_all(&mut wire, 30, 4, "others", &payload);
    let ((), cost) = scene.attack("27 MB of events of 900 KB", flood).await;
    assert!(cost.redis < REDIS_BYTES_MAX, "{cost:?}");
}

/// Recovery counts what concerns a session, not what others publish.
#[tokio::test]
async fn small_events_do_not_take_recovery_from_others() {
    /// More than `recovery.entries_max`.
    const EVENTS: u64 = 12_000;
    const AWAY: usize = 10;
    let scene = Scene::new("recovery = { offsets = 'always' }").await;
    let server = &scene.server;
    let mut away = Vec::new();
    for number in 0..AWAY {
        let mut wire = Wire::open(server).await;
        let answer = wire.connect().await;
        let room = format!("room {number}");
        assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
        wire.send(&format!("42{}", json!(["publish", room, "first"]))).await;
        let event: Value = serde_json::from_str(&wire.data().await[2..]).expect("JSON");
        away.push((answer, event[2].clone()));
    }
    let mut wire = member(server).await;
    let flood = publish_all(&mut wire, EVENTS, 1_000, "others", "x");
    let ((), _) = scene.attack("12 000 small events", flood).await;
    for (former, offset) in &away {
        let mut wire = Wire::open(server).await;
        let auth = json!({ "pid": former["pid"], "offset": offset });
        wire.send(&format!("40{auth}")).await;
        let answer: Value = serde_json::from_str(&wire.data().await[2..]).expect("JSON");
        assert_eq!(answer["sid"], former["sid"], "a new session");
    }
}

/// A client that sends too fast is read later, and loses nothing.
#[tokio::test]
async fn a_client_that_sends_too_fast_is_held_back() {
    let scene = Scene::new("limits = { events_per_second = 1000, bytes_per_second = 1000000 }").await;
    let server = &scene.server;
    let mut wire = member(server).await;
    // The first 2000 are a burst.
    let events = async {
        let began = Instant::now();
        publish_all(&mut wire, 4_000, 4_000, "others", "x").await;
        began.elapsed()
    };
    let (took, _) = scene.attack("4000 events at once", events).await;
    assert!(took.as_millis() >= 1_990, "{took:?}");
    server
        .metric_when("gw_limits_reached_total", "limit=\"rate\"", |n| n > 0.0)
        .await;
    // The same in bytes: two megabytes are a burst.
    let mut wire = member(server).await;
    let payload = "x".repeat(500_000);
    let bytes = async {
        let began = Instant::now();
        publish_all(&mut wire, 8, 8, "others", &payload).await;
        began.elapsed()
    };
    let (took, _) = scene.attack("4 MB at once", bytes).await;
    assert!(took.as_millis() >= 1_500, "{took:?}");
    // A POST waits for its own time.
    let poller = Poller::open(server).await;
    poller.connect().await;
    let packets = vec![r#"42["echo",1]"#; 900].join("\u{1e}");
    let post = async {
        let began = Instant::now();
        poller.say(packets).await;
        began.elapsed()
    };
    let (took, _) = scene.attack("900 events in one POST", post).await;
    assert!(took.as_millis() >= 900, "{took:?}");
}
