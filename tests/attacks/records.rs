//! What clients make Redis remember of them: sessions without a namespace, names, rooms; and lines of the log.

use crate::attacker::{each, member};
use crate::harness::{Poller, Wire};
use crate::scene::{Scene, many};
use serde_json::json;

#[tokio::test]
async fn handshakes_alone_leave_redis_as_it_is() {
    const MOST: usize = 300;
    let count = many(1_500, 1_000_000);
    let scene = Scene::new(&format!("limits = {{ handshakes_max = {MOST} }}")).await;
    let server = &scene.server;
    let handshakes = each(count, async |_| {
        let reply = Poller::handshake(server.addr, "/socket.io/").await.expect("an answer");
        if reply.status != 200 {
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        }
        reply.status == 200
    });
    // The bystander that polls has one of the places, if they come first.
    let (begun, cost) = scene.attack("handshakes without CONNECT", handshakes).await;
    let begun = begun.into_iter().filter(|begun| *begun).count();
    assert!((MOST - 1..=MOST).contains(&begun), "{begun} began");
    assert!(cost.redis < MOST * 4096, "{cost:?}");
    let keys = server.redis().keys("socketio:session:*").await.len();
    assert!(keys < MOST + 20, "{keys} sessions");
}

#[tokio::test]
async fn names_and_rooms_do_not_fill_redis() {
    const TOGGLES: u64 = 400;
    let scene = Scene::durable("").await;
    let server = &scene.server;
    // Names that are far too long: too much for what has joined nothing, and for an identity.
    let name = "u".repeat(16_000);
    let auth = json!({ "user": name }).to_string();
    let named = each(200, async |_| {
        let mut wire = Wire::open(server).await;
        wire.send(&format!("40{auth}")).await;
        let answer = wire.data().await;
        assert!(answer.starts_with("44{"), "{answer}");
        wire
    });
    let (named, cost) = scene.attack("200 names of 16 KB", named).await;
    assert!(cost.redis < 2 << 20, "{cost:?}");
    drop(named);
    // One client joins and leaves a room, and waits for each ack.
    let mut wire = member(server).await;
    for room in 0..100 {
        let room = format!("{room:200}");
        assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
    }
    let file_before = server.redis().info("persistence", "aof_current_size").await;
    let toggles = async {
        for id in 0..TOGGLES {
            let event = if id % 2 == 0 { "join" } else { "leave" };
            assert_eq!(wire.call(id, &json!([event, "x"])).await, json!(["ok"]));
        }
    };
    let ((), cost) = scene
        .attack("400 joins and leaves beside 100 long names", toggles)
        .await;
    let file = server.redis().info("persistence", "aof_current_size").await - file_before;
    eprintln!("{} KiB of the append-only file", file as u64 >> 10);
    assert!(cost.redis < 2 << 20, "{cost:?}");
    // And without waiting.
    let toggles = async {
        for id in 0..TOGGLES {
            let event = if id % 2 == 0 { "join" } else { "leave" };
            wire.send(&format!("42{id}{}", json!([event, "x"]))).await;
        }
        for _ in 0..TOGGLES {
            wire.data().await;
        }
    };
    let ((), cost) = scene.attack("400 at once", toggles).await;
    assert!(cost.redis < 2 << 20, "{cost:?}");
}

/// As many rooms as a client may have: 32 namespaces with 128 each.
#[tokio::test]
async fn all_rooms_that_a_client_may_join_disturb_no_other() {
    const NAMESPACES: u64 = 32;
    const ROOMS: u64 = 128;
    let scene = Scene::new("socket = { namespaces = ['*'] }").await;
    let mut wire = Wire::open(&scene.server).await;
    for nsp in 0..NAMESPACES {
        wire.send(&format!("40/{nsp},")).await;
        wire.data().await;
    }
    let joins = async {
        for room in 0..ROOMS {
            for nsp in 0..NAMESPACES {
                wire.send(&format!("42/{nsp},{room}{}", json!(["join", format!("room {room}")])))
                    .await;
            }
        }
        for _ in 0..NAMESPACES * ROOMS {
            let ack = wire.data().await;
            assert!(ack.ends_with(r#"["ok"]"#), "{ack}");
        }
    };
    let ((), cost) = scene.attack("4096 joins at once", joins).await;
    assert!(cost.redis < 16 << 20, "{cost:?}");
    // One after the other: each time the record is written as a whole.
    let mut wire = Wire::open(&scene.server).await;
    for nsp in 0..NAMESPACES {
        wire.send(&format!("40/{nsp},")).await;
        wire.data().await;
    }
    let count = many(256, 4096) as u64;
    let joins = async {
        for number in 0..count {
            let room = format!("room {}", number / NAMESPACES);
            wire.send(&format!("42/{},1{}", number % NAMESPACES, json!(["join", room])))
                .await;
            let ack = wire.data().await;
            assert!(ack.ends_with(r#"["ok"]"#), "{ack}");
        }
    };
    let ((), cost) = scene.attack("joins one after the other", joins).await;
    assert!(cost.redis < 16 << 20, "{cost:?}");
}

/// What a client does wrong is written so many times a second.
#[tokio::test]
async fn what_a_client_does_wrong_does_not_fill_the_log() {
    const TRIES: usize = 500;
    const AT_ONCE: usize = 50;
    let scene = Scene::new("socket = { namespaces = ['*'] }").await;
    let server = &scene.server;
    let mut wire = member(server).await;
    let pid = format!("{}{}", "A".repeat(18), "B".repeat(18));
    let auth = json!({ "pid": pid, "offset": "1-1" });
    let lines = |log: &str| log.lines().count();
    let before = lines(&server.log());
    let tries = async {
        for _ in 0..TRIES / AT_ONCE {
            for _ in 0..AT_ONCE {
                wire.send(&format!("40/a,{auth}")).await;
                wire.send("41/a,").await;
            }
            for _ in 0..AT_ONCE {
                let answer = wire.data().await;
                assert!(answer.starts_with(r#"40/a,{"sid""#), "{answer}");
            }
        }
    };
    let began = std::time::Instant::now();
    let ((), _) = scene.attack("500 CONNECTs with a bad pid", tries).await;
    let written = lines(&server.log()) - before;
    eprintln!("{written} lines");
    // Ten of a kind and second, and what is written once a second.
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a number") + 1;
    assert!(written < 30 * seconds, "{written} lines in {seconds} s");
}
