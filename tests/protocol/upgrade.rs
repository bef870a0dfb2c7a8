//! From polling to WebSocket: the probe, the swap, and everything that can go wrong in between.

use crate::harness::{Frame, Plan, Poller, Server, Wire, ms, pass, soon, until};
use serde_json::json;

/// A polling session that has joined `/`.
async fn joined(server: &Server) -> Poller {
    let poller = Poller::open(server).await;
    poller.connect().await;
    poller
}

/// A WebSocket for a session, probed.
async fn probed(poller: &Poller) -> Wire {
    let mut wire = Wire::dial(poller.addr, &poller.upgrade_target(), &[])
        .await
        .expect("a WebSocket");
    wire.send("2probe").await;
    assert_eq!(wire.text().await, "3probe");
    wire
}

/// A session carried over to WebSocket.
async fn upgraded(server: &Server) -> (Poller, Wire) {
    let poller = joined(server).await;
    let mut wire = probed(&poller).await;
    wire.send("5").await;
    assert_eq!(wire.call(0, &json!(["echo", "over"])).await, json!(["over"]));
    (poller, wire)
}

#[tokio::test]
async fn the_whole_dance() {
    let server = Plan::new().start().await;
    let poller = joined(&server).await;
    let parked = poller.park();
    server.holding(1).await;
    let mut wire = probed(&poller).await;
    // The pending poll is answered with a noop, one, and nothing else.
    let reply = soon("the parked poll", parked)
        .await
        .expect("a task")
        .expect("an answer");
    assert_eq!(reply.pair(), (200, "6"));
    // Polling still takes packets; their answer waits.
    poller.say(r#"420["echo","during upgrade"]"#).await;
    wire.send("5").await;
    assert_eq!(wire.data().await, r#"430["during upgrade"]"#);
    poller.get().await.assert_error(3, "Bad request");
    poller.post("4x").await.assert_error(3, "Bad request");
    assert_eq!(wire.call(1, &json!(["echo", "after"])).await, json!(["after"]));
}

#[tokio::test]
async fn what_is_queued_leaves_by_a_poll_or_after_the_swap() {
    let server = Plan::new().start().await;
    let poller = joined(&server).await;
    let mut wire = probed(&poller).await;
    poller.say(r#"420["echo","by poll"]"#).await;
    let packets = poller.poll_until(|packet| packet.starts_with("430")).await;
    assert_eq!(packets.last().map(String::as_str), Some(r#"430["by poll"]"#));
    let mut expected = Vec::new();
    for id in 1..30 {
        poller.say(format!(r#"42{id}["echo",{id}]"#)).await;
        expected.push(format!("43{id}[{id}]"));
    }
    wire.send("5").await;
    for packet in expected {
        assert_eq!(wire.data().await, packet);
    }
}

#[tokio::test]
async fn many_sessions_upgrade_at_once() {
    let server = Plan::new().start().await;
    let one = async |number: usize| {
        let poller = joined(&server).await;
        let parked = poller.park();
        let mut wire = probed(&poller).await;
        let reply = soon("the parked poll", parked)
            .await
            .expect("a task")
            .expect("an answer");
        assert_eq!(reply.pair(), (200, "6"));
        poller.say(format!(r#"420["echo",{number}]"#)).await;
        wire.send("5").await;
        assert_eq!(wire.data().await, format!("430[{number}]"));
        assert_eq!(wire.call(1, &json!(["echo", number])).await, json!([number]));
    };
    futures_util::future::join_all((0..40).map(one)).await;
}

#[tokio::test]
async fn a_probe_that_is_none_leaves_polling_alone() {
    let server = Plan::new().start().await;
    for first in ["4x", "2", "2probing", "1", "garbage", r#"420["echo",1]"#] {
        let poller = joined(&server).await;
        let mut wire = Wire::dial(server.addr, &poller.upgrade_target(), &[])
            .await
            .expect("a WebSocket");
        wire.send(first).await;
        wire.end().await;
        assert_eq!(poller.call(7, &json!(["echo", first])).await, json!([first]));
    }
}

#[tokio::test]
async fn a_probe_that_breaks_off_leaves_polling_alone() {
    let server = Plan::new().start().await;
    for _ in 0..4 {
        let poller = joined(&server).await;
        drop(probed(&poller).await);
        assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
        // And the next try may succeed, as soon as the first one is forgotten.
        let mut wire = until("another probe", async || {
            let mut wire = Wire::dial(server.addr, &poller.upgrade_target(), &[]).await.ok()?;
            wire.try_send("2probe").await.ok()?;
            (wire.next().await == Frame::Text("3probe".to_owned())).then_some(wire)
        })
        .await;
        wire.send("5").await;
        assert_eq!(wire.call(1, &json!(["echo", 2])).await, json!([2]));
    }
}

#[tokio::test]
async fn a_probe_without_upgrade_is_closed_in_time() {
    let server = Plan::new().with("engine = { upgrade_timeout_ms = 300 }").start().await;
    let poller = joined(&server).await;
    let mut silent = Wire::dial(server.addr, &poller.upgrade_target(), &[])
        .await
        .expect("a WebSocket");
    silent.end().await;
    let mut wire = probed(&poller).await;
    wire.end().await;
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
    // An upgrade in time stays, whatever timer ran.
    let mut wire = probed(&poller).await;
    wire.send("5").await;
    assert_eq!(wire.call(1, &json!(["echo", 2])).await, json!([2]));
    pass(ms(500)).await;
    assert_eq!(wire.call(2, &json!(["echo", 3])).await, json!([3]));
}

/// A WebSocket that must not come to anything: refused, or accepted and then closed.
async fn assert_not_taken(server: &Server, target: &str) {
    let Ok(mut wire) = Wire::dial(server.addr, target, &[]).await else {
        return;
    };
    // It may be closed already.
    if wire.try_send("2probe").await.is_ok() {
        wire.end().await;
    }
}

#[tokio::test]
async fn an_upgraded_session_keeps_its_websocket() {
    let server = Plan::new().start().await;
    for _ in 0..6 {
        let (poller, mut wire) = upgraded(&server).await;
        assert_not_taken(&server, &poller.upgrade_target()).await;
        assert_eq!(wire.call(1, &json!(["echo", "still"])).await, json!(["still"]));
    }
}

#[tokio::test]
async fn a_second_probe_does_not_disturb_the_first() {
    let server = Plan::new().start().await;
    for _ in 0..6 {
        let poller = joined(&server).await;
        let mut wire = probed(&poller).await;
        assert_not_taken(&server, &poller.upgrade_target()).await;
        wire.send("5").await;
        assert_eq!(wire.call(0, &json!(["echo", "first"])).await, json!(["first"]));
    }
}

#[tokio::test]
async fn a_session_that_began_as_websocket_is_not_polled() {
    let server = Plan::new().start().await;
    let mut wire = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket", &[])
        .await
        .expect("a WebSocket");
    let open = wire.text().await;
    let open: serde_json::Value = serde_json::from_str(&open[1..]).expect("an open packet");
    let sid = open["sid"].as_str().expect("a sid").to_owned();
    let mut poller = Poller::open(&server).await;
    poller.sid = sid;
    // The session is stored with its first namespace, or after a second without one.
    wire.connect().await;
    poller.get().await.assert_error(3, "Bad request");
    poller.post("40").await.assert_error(3, "Bad request");
    assert_eq!(wire.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn when_the_websocket_ends_the_session_ends() {
    let server = Plan::new().start().await;
    let (poller, wire) = upgraded(&server).await;
    drop(wire);
    until("the session has gone", async || {
        let reply = poller.get().await;
        (reply.pair() == (400, r#"{"code":1,"message":"Session ID unknown"}"#)).then_some(())
    })
    .await;
}
