//! More clients come than there are descriptors: what is not for clients goes on.

use crate::harness::{Plan, Poller, Request, Server, Wire, ask, ms, pass, soon, until};
use serde_json::json;
use tokio::net::TcpStream;

/// Files that each process may open; the reserve is 242 with the default pool.
const FILES: u32 = 600;
const TAKEN: u64 = 358;
/// Clients that say nothing, and wait.
const FLOOD: usize = 450;

async fn flooded() -> (Server, Vec<Wire>, Vec<TcpStream>) {
    let plan = Plan::new().files(FILES).with(
        r#"
            workers = { count = 1, grace_ms = 2000 }
            http = { header_timeout_ms = 600000 }
            redis = { response_timeout_ms = 500, connect_timeout_ms = 500 }
        "#,
    );
    let server = plan.start().await;
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        wires.push(wire);
    }
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        flood.push(
            soon("connect", TcpStream::connect(server.addr))
                .await
                .expect("a place in the queue"),
        );
    }
    server
        .status_when("it takes as many as it may", |status| {
            status.workers[0].connections >= TAKEN
        })
        .await;
    (server, wires, flood)
}

async fn assert_room_works(wires: &mut [Wire], id: u64) {
    let (publisher, members) = wires.split_first_mut().expect("wires");
    publisher.send(&format!(r#"42{id}["publish","room",{id}]"#)).await;
    let mut both = [publisher.data().await, publisher.data().await];
    both.sort();
    assert!(both[0].starts_with(&format!(r#"42["message",{id}"#)), "{both:?}");
    assert_eq!(both[1], format!(r#"43{id}["ok"]"#));
    for member in members {
        let packet = member.data().await;
        assert!(packet.starts_with(&format!(r#"42["message",{id}"#)), "{packet}");
    }
}

async fn metric(server: &Server, name: &str) -> f64 {
    let reply = soon("metrics", ask(server.admin, Request::get("/metrics")))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = reply.text().to_owned();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
    let value = line
        .and_then(|line| line.rsplit(' ').next())
        .unwrap_or_else(|| panic!("no {name} in {text}"));
    value.parse().expect("a number")
}

#[tokio::test]
async fn clients_do_not_take_the_last_descriptor() {
    let (mut server, mut wires, flood) = flooded().await;
    assert!((metric(&server, "gw_connections_max").await - 358.0).abs() < 0.5);
    server.logged("too few descriptors for limits.connections_max").await;
    assert!(server.log().contains("accepted=358"), "{}", server.log());
    assert_room_works(&mut wires, 1).await;
    // All connections to Redis are made anew, those of ingest too.
    server.redis_mut().kill();
    pass(ms(300)).await;
    server.redis_mut().again().await;
    let redis = server.redis();
    until("the log reachable again", async || {
        let heard = redis.command(&["PUBSUB", "CHANNELS", "socketio*"]).await;
        format!("{heard:?}").contains("socketio:log@0").then_some(())
    })
    .await;
    until("redis is used again", async || {
        let log = server.log();
        let back = log.matches("log reachable again").count();
        (back > 0).then_some(())
    })
    .await;
    assert_room_works(&mut wires, 2).await;
    assert!(!server.log().contains("Too many open files"), "{}", server.log());
    // What has a session moves to the next worker, however full that is.
    let output = server.cli("reload", &["--wait"]).await;
    assert!(output.status.success(), "{output:?}");
    assert_room_works(&mut wires, 3).await;
    let status = server.status().await;
    let handover = status.supervisor.last_handover.expect("a handover");
    assert!(handover.moved >= 3, "{handover:?}");
    assert!((metric(&server, "gw_connections_max").await - 358.0).abs() < 0.5);
    // When the crowd leaves, others come in.
    drop(flood);
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
}
