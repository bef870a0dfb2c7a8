//! What an operator sees and does: keys in Redis, kicks, running without Redis.

use crate::harness::{Plan, Poller, Request, Resp, Server, Wire, ask, ms, soon, until, within};
use serde_json::{Value, json};

async fn count(server: &Server) -> usize {
    server.redis().keys("socketio:session:*").await.len()
}

#[tokio::test]
async fn there_is_one_key_for_each_session() {
    let server = Plan::new().with("recovery = { enabled = false }").start().await;
    assert_eq!(count(&server).await, 0);
    let (mut pollers, mut wires) = (Vec::new(), Vec::new());
    for number in 1..=8 {
        let poller = Poller::open(&server).await;
        assert_eq!(count(&server).await, 2 * number - 1);
        poller.connect().await;
        assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        pollers.push(poller);
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        wires.push(wire);
        assert_eq!(count(&server).await, 2 * number);
    }
    for key in server.redis().keys("socketio:session:*").await {
        let Resp::Int(ttl) = server.redis().command(&["TTL", &key]).await else {
            panic!("TTL of {key}");
        };
        assert!(ttl > 0, "{key} lives for ever");
        let Resp::Text(text) = server.redis().command(&["GET", &key]).await else {
            panic!("GET of {key}");
        };
        let record: Value = serde_json::from_str(&text).expect("JSON");
        assert!(record.is_object() && text.contains("room"), "{text}");
    }
    for (poller, mut wire) in pollers.into_iter().zip(wires) {
        poller.leave().await;
        wire.send("1").await;
    }
    until("no key is left", async || (count(&server).await == 0).then_some(())).await;
}

#[tokio::test]
async fn deleting_the_key_ends_the_session() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 1000, ping_timeout_ms = 1000 }")
        .start()
        .await;
    let mut bystander = Wire::open(&server).await;
    bystander.connect().await;
    let kept = server.redis().keys("socketio:session:*").await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let parked = poller.park();
    server.holding(3).await;
    for key in server.redis().keys("socketio:session:*").await {
        if !kept.contains(&key) {
            assert_eq!(server.redis().command(&["DEL", &key]).await, Resp::Int(1));
        }
    }
    // At the next heartbeat at the latest, cleanly.
    within(ms(4000), "the WebSocket ends", async {
        while wire.next_is_alive().await {}
    })
    .await;
    let reply = within(ms(4000), "the poll ends", parked)
        .await
        .expect("a task")
        .expect("an answer");
    assert!(matches!(reply.pair(), (200, "1" | "2") | (400, _)), "{reply:?}");
    poller.assert_gone().await;
    poller.post("3").await.assert_error(1, "Session ID unknown");
    assert_eq!(bystander.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn one_worker_works_without_redis() {
    let server = Plan::new()
        .without_redis()
        .env("REDIS_ENABLED", "false")
        .with("workers = { count = 1 }")
        .start()
        .await;
    let reply = soon("readiness", ask(server.addr, Request::get("/api/ready")))
        .await
        .expect("an answer");
    assert_eq!(reply.json()["multi_worker_support"], false);
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    for id in 0..2 {
        assert_eq!(wire.call(id, &json!(["join", "room"])).await, json!(["ok"]));
    }
    assert_eq!(
        poller.call(0, &json!(["publish", "room", "hello"])).await,
        json!(["ok"])
    );
    assert!(wire.data().await.starts_with(r#"42["message","hello""#));
    let mut upgraded = Wire::dial(server.addr, &poller.upgrade_target(), &[])
        .await
        .expect("a WebSocket");
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    upgraded.send("5").await;
    assert_eq!(upgraded.call(1, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn several_workers_do_not_work_without_redis() {
    let mut server = Plan::new().without_redis().env("REDIS_ENABLED", "false").launch().await;
    assert_eq!(server.exit_within(ms(5000)).await.code(), Some(78));
    assert!(server.log().contains("workers.count"), "{}", server.log());
}

#[tokio::test]
async fn every_fault_of_a_configuration_is_told() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = -1, path = 5 }\nlisten = { address = 'nowhere' }\nnonsense = { a = 1 }")
        .prepare()
        .await;
    for command in ["check", "run"] {
        let output = server.cli(command, &[]).await;
        assert_eq!(output.status.code(), Some(78), "{command}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        for key in ["engine.ping_interval_ms", "engine.path", "listen.address", "nonsense"] {
            assert!(said.contains(key), "{command}: {key} is not named: {said}");
        }
    }
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let server = Plan::new()
        .without_redis()
        .with("redis = { url = 'redis://:YourVeryStrong!Redis@Password#2024@127.0.0.1:6379' }")
        .prepare()
        .await;
    let output = server.cli("check", &[]).await;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("127.0.0.1:6379"), "{said}");
    assert!(!said.contains("Strong"), "{said}");
}
