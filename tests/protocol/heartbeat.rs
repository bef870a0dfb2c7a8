//! Heartbeats, with an interval of 300 ms and a timeout of 200 ms.

use crate::harness::{Frame, Plan, Poller, Server, Wire, ms, until};
use std::time::{Duration, Instant};

const INTERVAL: Duration = ms(300);
const TIMEOUT: Duration = ms(200);
/// Room for a loaded machine, above; timers are never early by more than this, below.
const LATE: Duration = ms(1500);
const EARLY: Duration = ms(20);

async fn server() -> Server {
    Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 200 }")
        .with(crate::ECHO)
        .start()
        .await
}

/// What lasted from `since` until now lasted about as long as `wanted`.
#[track_caller]
fn assert_lasted(since: Instant, wanted: Duration) {
    let lasted = since.elapsed();
    assert!(lasted + EARLY >= wanted, "too early: {lasted:?}, not {wanted:?}");
    assert!(lasted <= wanted + LATE, "too late: {lasted:?}, not {wanted:?}");
}

#[tokio::test]
async fn a_poll_gets_the_ping_and_the_pong_restarts_it() {
    let server = server().await;
    let mut since = Instant::now();
    let poller = Poller::open_echo(&server).await;
    for _ in 0..6 {
        assert_eq!(poller.poll().await, ["2"]);
        assert_lasted(since, INTERVAL);
        since = Instant::now();
        poller.say("3").await;
    }
}

#[tokio::test]
async fn a_polling_client_that_does_not_answer_is_closed() {
    let server = server().await;
    let since = Instant::now();
    let poller = Poller::open_echo(&server).await;
    assert_eq!(poller.poll().await, ["2"]);
    // This poll is answered by the close.
    let reply = poller.get().await;
    assert_lasted(since, INTERVAL + TIMEOUT);
    if reply.status == 200 {
        assert_eq!(reply.text(), "1");
        poller.assert_gone().await;
    } else {
        reply.assert_error(1, "Session ID unknown");
    }
}

#[tokio::test]
async fn a_polling_client_that_is_not_heard_of_is_forgotten() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 200 }")
        .with("recovery = { enabled = false }")
        .start()
        .await;
    let since = Instant::now();
    let pollers = [Poller::open(&server).await, Poller::open(&server).await];
    pollers[0].connect().await;
    let keys = async || server.redis().keys("socketio:session:*").await;
    assert_eq!(keys().await.len(), 2);
    until("both sessions have gone", async || {
        keys().await.is_empty().then_some(())
    })
    .await;
    assert_lasted(since, INTERVAL + TIMEOUT);
    for poller in pollers {
        poller.assert_gone().await;
    }
}

#[tokio::test]
async fn traffic_is_no_pong() {
    let server = server().await;
    let since = Instant::now();
    let mut wire = Wire::open_echo(&server).await;
    loop {
        if wire.try_send("4still talking").await.is_err() {
            break;
        }
        match wire.next().await {
            Frame::Text(_) => (),
            Frame::Close(_) | Frame::Gone => break,
            other @ Frame::Binary(_) => panic!("{other:?}"),
        }
        assert!(since.elapsed() < INTERVAL + TIMEOUT + LATE, "never closed");
    }
    assert_lasted(since, INTERVAL + TIMEOUT);
}

#[tokio::test]
async fn a_websocket_gets_the_ping_and_the_pong_restarts_it() {
    let server = server().await;
    let mut since = Instant::now();
    let mut wire = Wire::open_echo(&server).await;
    for _ in 0..6 {
        assert_eq!(wire.text().await, "2");
        assert_lasted(since, INTERVAL);
        since = Instant::now();
        wire.send("3").await;
    }
    assert_eq!(wire.text().await, "2");
    let pinged = Instant::now();
    wire.end().await;
    assert_lasted(pinged, TIMEOUT);
}

#[tokio::test]
async fn a_ping_from_the_client_closes() {
    let server = server().await;
    let mut wire = Wire::open_echo(&server).await;
    wire.send("2").await;
    wire.end().await;
    let poller = Poller::open_echo(&server).await;
    poller.post("2").await;
    until("it has gone", async || {
        let reply = poller.post("4x").await;
        (reply.status == 400).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pong_out_of_turn_is_harmless() {
    let server = server().await;
    let mut wire = Wire::open_echo(&server).await;
    for packet in ["3", "3", "4after"] {
        wire.send(packet).await;
    }
    assert_eq!(wire.data().await, "4after");
    let poller = Poller::open_echo(&server).await;
    poller.say("3\x1e4after").await;
    assert_eq!(poller.poll_until(|packet| packet == "4after").await, ["4after"]);
}

#[tokio::test]
async fn sessions_that_answer_live_on() {
    let server = server().await;
    let polling = async {
        let poller = Poller::open_echo(&server).await;
        for round in 0..10 {
            assert_eq!(poller.poll().await, ["2"], "round {round}");
            poller.say("3").await;
        }
        poller.say("4there").await;
        assert_eq!(poller.poll_until(|packet| packet == "4there").await, ["4there"]);
    };
    let websocket = async {
        let mut wire = Wire::open_echo(&server).await;
        for _ in 0..10 {
            assert_eq!(wire.text().await, "2");
            wire.send("3").await;
        }
        wire.send("4there").await;
        assert_eq!(wire.data().await, "4there");
    };
    tokio::join!(polling, websocket);
}
