//! Redis goes away and comes back.

use crate::harness::{
    Plan, Poller, Redis, Reply, Request, Server, Wire, ask, ask_again, ms, node, pass, soon, until, within,
};
use crate::traffic::{Traffic, assert_alive, assert_unbroken};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;

const READY: &str = "/api/ready";

async fn wires(server: &Server, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        wires.push(wire);
    }
    wires
}

/// Every worker says the same: so many fresh connections meet each of them.
async fn all_say(server: &Server, status: u16) {
    until("all workers agree", async || {
        let asked = (0..24).map(|_| ask(server.addr, Request::get(READY)));
        let replies = soon("readiness", futures_util::future::join_all(asked)).await;
        let agreed = replies
            .iter()
            .all(|reply| reply.as_ref().expect("an answer").status == status);
        agreed.then_some(())
    })
    .await;
}

async fn assert_no_new_sessions(server: &Server) {
    let reply = soon("handshake", Poller::handshake(server.addr, "/socket.io/"))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 503, "{reply:?}");
    let after: u64 = reply
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    let refusal = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket", &[]).await;
    assert_eq!(refusal.expect_err("refused").status, 503);
}

/// WebSockets answer without Redis, and deliver to each other again as soon as it is back.
async fn assert_wires_answer(wires: &mut [Wire], id: u64) {
    for wire in wires {
        assert_eq!(wire.call(id, &json!(["echo", id])).await, json!([id]));
    }
}

async fn assert_room_works(wires: &mut [Wire], id: u64) {
    let (publisher, members) = wires.split_first_mut().expect("wires");
    publisher
        .send(&format!(r#"42{id}["publish","room","back {id}"]"#))
        .await;
    let mut both = [publisher.data().await, publisher.data().await];
    both.sort();
    let message = format!(r#"42["message","back {id}""#);
    assert!(both[0].starts_with(&message), "{both:?}");
    assert_eq!(both[1], format!(r#"43{id}["ok"]"#));
    for member in members {
        let packet = member.data().await;
        assert!(packet.starts_with(&message), "{packet}");
    }
}

#[tokio::test]
async fn redis_dies_and_comes_back_empty() {
    let mut server = Plan::new()
        .with("redis = { response_timeout_ms = 500, connect_timeout_ms = 500 }")
        .start()
        .await;
    let mut wires = wires(&server, 12).await;
    for round in 1..=2 {
        server.redis_mut().kill();
        all_say(&server, 503).await;
        let reply = soon("readiness", ask(server.addr, Request::get(READY)))
            .await
            .expect("an answer");
        assert_eq!(reply.json()["checks"]["redis"], false);
        let live = soon("liveness", ask(server.addr, Request::get("/api/live"))).await;
        assert_eq!(live.expect("an answer").status, 200);
        assert_no_new_sessions(&server).await;
        assert_wires_answer(&mut wires, round * 10).await;
        server.redis_mut().again().await;
        all_say(&server, 200).await;
        // No client was closed, none has to do anything.
        assert_wires_answer(&mut wires, round * 10 + 1).await;
        assert_room_works(&mut wires, round * 10 + 2).await;
        let poller = Poller::open(&server).await;
        poller.connect().await;
        assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
    }
    assert_eq!(
        server
            .status()
            .await
            .workers
            .iter()
            .map(|worker| worker.restarts)
            .sum::<u64>(),
        0
    );
}

#[tokio::test]
async fn redis_freezes_and_thaws() {
    let server = Plan::new()
        .with("redis = { response_timeout_ms = 500, connect_timeout_ms = 500 }")
        .start()
        .await;
    let mut wires = wires(&server, 8).await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    server.redis().signal(Signal::SIGSTOP);
    all_say(&server, 503).await;
    assert_no_new_sessions(&server).await;
    assert_wires_answer(&mut wires, 1).await;
    // A polling session's request waits: Redis may have it, and answers it when it goes on.
    let thaw = async {
        all_say(&server, 503).await;
        server.redis().signal(Signal::SIGCONT);
    };
    let (waited, ()) = tokio::join!(poller.post(r#"421["echo",1]"#), thaw);
    assert_eq!(waited.pair(), (200, "ok"), "{waited:?}");
    all_say(&server, 200).await;
    assert_wires_answer(&mut wires, 2).await;
    assert_room_works(&mut wires, 3).await;
    let packets = poller.poll_until(|packet| packet.starts_with("42[")).await;
    assert!(
        packets
            .iter()
            .any(|packet| packet.starts_with(r#"42["message","back 3""#)),
        "{packets:?}"
    );
    // The same session, the same sid.
    poller.say(r#"422["echo",2]"#).await;
    poller.poll_until(|packet| packet == "432[2]").await;
}

#[tokio::test]
async fn what_was_published_without_redis_is_delivered_or_refused() {
    let mut server = Plan::new()
        .with("redis = { response_timeout_ms = 500, connect_timeout_ms = 500 }")
        .with("log = { publish_timeout_ms = 2000 }")
        .start()
        .await;
    let mut wires = wires(&server, 4).await;
    server.redis_mut().kill();
    all_say(&server, 503).await;
    // It may wait for Redis, but not for ever, and the sender is told.
    let ack = wires[0].call(1, &json!(["publish", "room", "lost"])).await;
    assert!(ack[0].is_object(), "{ack}");
    server.redis_mut().again().await;
    all_say(&server, 200).await;
    assert_room_works(&mut wires, 2).await;
}

#[tokio::test]
async fn a_slow_redis_costs_time_and_nothing_else() {
    let server = Plan::new().start().await;
    let traffic = Traffic::start(&server, 60, 6).await;
    for _ in 0..3 {
        server.redis().command(&["CLIENT", "PAUSE", "700", "ALL"]).await;
        pass(ms(1000)).await;
    }
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &[]);
}

#[tokio::test]
async fn cut_connections_to_redis_cost_nothing() {
    let server = Plan::new().start().await;
    let mut wires = wires(&server, 8).await;
    let traffic = Traffic::start(&server, 40, 7).await;
    for round in 1..=4 {
        server
            .redis()
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        server.redis().command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        all_say(&server, 200).await;
        assert_wires_answer(&mut wires, round * 2).await;
        assert_room_works(&mut wires, round * 2 + 1).await;
    }
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &[]);
}

#[tokio::test]
async fn redis_may_come_later() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("redis.sock");
    let url = format!("unix://:sEcreT@{}", socket.display());
    let mut server = Plan::new()
        .without_redis()
        .with(&format!("redis = {{ url = '{url}' }}"))
        .launch()
        .await;
    server.logged("redis.sock").await;
    assert!(!server.log().contains("sEcreT"), "{}", server.log());
    assert_eq!(server.exited(), None);
    let _redis = Redis::locked(dir.path(), "sEcreT").await;
    ask_ready(&server).await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert!(!server.log().contains("sEcreT"), "{}", server.log());
}

#[tokio::test]
async fn health_is_told_while_redis_is_missing_at_the_start() {
    let server = Plan::new()
        .without_redis()
        .with("redis = { url = 'unix:///nowhere/redis.sock' }")
        .launch()
        .await;
    server.logged("/nowhere/redis.sock").await;
    let live = within(ms(5000), "liveness", ask(server.addr, Request::get("/api/live"))).await;
    assert_eq!(live.expect("an answer").status, 200);
    let ready = within(ms(5000), "readiness", ask(server.addr, Request::get(READY))).await;
    assert_eq!(ready.expect("an answer").status, 503);
}

/// Start-up retries may be seconds apart, and the address does not answer at first.
async fn ask_ready(server: &Server) -> Reply {
    let limit = Duration::from_secs(40);
    within(limit, "ready", async {
        loop {
            if let Ok(reply) = ask(server.addr, Request::get(READY)).await
                && reply.status == 200
            {
                return reply;
            }
            pass(ms(50)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_noticed() {
    let server = Plan::new().start().await;
    let mut wires = wires(&server, 6).await;
    server.redis().command(&["FLUSHALL"]).await;
    ask_again(server.addr, Request::get(READY), |reply| reply.status == 200).await;
    assert_wires_answer(&mut wires, 1).await;
    until("the room works again", async || {
        let ack = wires[0].call(2, &json!(["publish", "elsewhere", 1])).await;
        (ack == json!(["ok"])).then_some(())
    })
    .await;
    // Either they were closed, as kicked, or the room works: silence would be the fault.
    assert_room_works(&mut wires, 3).await;
}

/// A Redis as many guides set it up: small, and throwing away whatever it likes.
#[tokio::test]
async fn a_redis_that_evicts_is_reported_and_clients_start_anew() {
    let mut server = Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 2000 }\nlog = { publish_timeout_ms = 2000 }")
        .prepare()
        .await;
    for (name, value) in [("maxmemory", "6mb"), ("maxmemory-policy", "allkeys-lru")] {
        server.redis().command(&["CONFIG", "SET", name, value]).await;
    }
    server.run();
    server.ready().await;
    server.logged("redis may evict sessions and the log").await;
    let before = server.status().await.ready_pids();
    let (found, content) = node("evicted.mjs").arg("--url", &server.url()).run().await;
    assert!(content, "{found}");
    server.logged("redis was full and evicted keys").await;
    server.logged("session not recovered: the client gets a new one").await;
    assert_eq!(server.status().await.ready_pids(), before);
    // A worker that comes later counts what goes then, not once more what went before.
    server.redis().command(&["CONFIG", "SET", "maxmemory", "200mb"]).await;
    let said = |server: &Server, what: &str| server.log().matches(what).count();
    pass(ms(1_500)).await;
    let (full, small) = (
        "redis was full and evicted keys",
        "redis may evict sessions and the log",
    );
    let (times, told) = (said(&server, full), said(&server, small));
    let output = server.cli("reload", &["--wait"]).await;
    assert!(output.status.success(), "{output:?}");
    until("the new worker has looked", async || {
        (said(&server, small) > told).then_some(())
    })
    .await;
    pass(ms(1_000)).await;
    assert_eq!(said(&server, full), times);
}

/// Whatever is sent while Redis is away: each publish is answered, and what waits is bounded.
#[tokio::test]
async fn a_flood_without_redis_is_refused_and_costs_no_memory() {
    const PUBLISHES: u64 = 1500;
    let mut server = Plan::new()
        .durable_redis()
        .with("redis = { response_timeout_ms = 500, connect_timeout_ms = 500 }")
        .with(
            "log = { publish_timeout_ms = 30000, queue_bytes_max = 4194304 }\nlimits = { outbox_bytes_max = 16777216 }",
        )
        .start()
        .await;
    let mut wires = wires(&server, 4).await;
    let before = resident(&server).await;
    server.redis_mut().kill();
    let padding = "x".repeat(60_000);
    for id in 0..PUBLISHES {
        let event = json!(["publish", "room", [id, padding]]);
        wires[0].send(&format!("42{id}{event}")).await;
    }
    // What there is no room for is refused at once, what there is waits.
    let (mut waiting, mut refused, mut acked) = (Vec::new(), 0, 0);
    while refused < 1000 {
        let ack = wires[0].data().await;
        assert!(ack.contains("waiting for redis"), "{ack}");
        refused += 1;
    }
    let grown = resident(&server).await.saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more");
    pass(ms(1000)).await;
    server.redis_mut().again().await;
    // Those that waited, and no other, arrive now, in order.
    while refused + acked < PUBLISHES {
        let packet = wires[0].data().await;
        if let Some(ack) = packet.strip_prefix("43") {
            if ack.contains("waiting for redis") {
                refused += 1;
            } else {
                assert!(ack.ends_with(r#"["ok"]"#), "{ack}");
                acked += 1;
            }
        } else {
            waiting.push(packet);
        }
    }
    eprintln!("{acked} waited, {refused} were refused, the workers grew by {grown} bytes");
    assert!(acked > 10, "{acked}");
    while (waiting.len() as u64) < acked {
        waiting.push(wires[0].data().await);
    }
    for (number, packet) in waiting.iter().enumerate() {
        assert!(
            packet.starts_with(&format!(r#"42["message",[{number},"#)),
            "{}",
            &packet[..60]
        );
    }
    for member in &mut wires[1..] {
        for number in 0..acked {
            let packet = member.data().await;
            assert!(
                packet.starts_with(&format!(r#"42["message",[{number},"#)),
                "{}",
                &packet[..60]
            );
        }
    }
}

/// Resident bytes of all workers together.
async fn resident(server: &Server) -> u64 {
    let pages = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        text.split(' ')
            .nth(1)
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or_default()
    };
    server.status().await.ready_pids().iter().map(pages).sum::<u64>() * 4096
}
