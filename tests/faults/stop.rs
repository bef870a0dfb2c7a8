//! The end: what clients see when the server is told to stop.

use crate::harness::{Link, Plan, Poller, Request, Server, Wire, ask, ms, pass, soon};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

const WEBSOCKETS: usize = 60;
const POLLS: usize = 20;
/// `workers.grace_ms` of these tests, and what the supervisor needs besides.
const GRACE: Duration = ms(10_000 + 2_000);

/// Clients of both kinds, each in the room and waiting.
struct Crowd {
    wires: Vec<Wire>,
    pollers: Vec<Poller>,
}

async fn crowd(server: &Server) -> Crowd {
    let (mut wires, mut pollers) = (Vec::new(), Vec::new());
    for _ in 0..WEBSOCKETS {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        wires.push(wire);
    }
    for _ in 0..POLLS {
        let poller = Poller::open(server).await;
        poller.connect().await;
        pollers.push(poller);
    }
    Crowd { wires, pollers }
}

/// Sends the signal, and asserts what everybody sees. Returns the sids that were polling.
async fn assert_drains(mut server: Server, stop: impl FnOnce(&Server)) -> (Server, Vec<Poller>) {
    let Crowd { wires, pollers } = crowd(&server).await;
    let parked: Vec<_> = pollers.iter().map(Poller::park).collect();
    server.holding((WEBSOCKETS + POLLS) as u64).await;
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut link = Link::open(server.addr).await.expect("connect");
        assert_eq!(
            link.ask(&Request::get("/api/ready")).await.expect("an answer").status,
            200
        );
        kept.push(link);
    }
    stop(&server);
    let stopped = Instant::now();
    let readiness = assert_not_ready(&server, kept, stopped);
    let polls = async {
        for parked in parked {
            let reply = soon("a parked poll", parked).await.expect("a task").expect("an answer");
            // The session continues on the next worker: no close packet.
            assert_eq!(reply.pair(), (200, "6"));
        }
    };
    let websockets = async {
        for mut wire in wires {
            // A DISCONNECT packet would be data here, and keep stock clients from coming back.
            assert_eq!(wire.end().await, Some(1012));
        }
    };
    tokio::join!(readiness, polls, websockets);
    let status = server.exit_within(GRACE).await;
    assert_eq!(status.code(), Some(0));
    (server, pollers)
}

/// Readiness says no as soon as the signal was seen, and never yes again.
async fn assert_not_ready(server: &Server, kept: Vec<Link>, stopped: Instant) {
    let request = Request::get("/api/ready");
    let mut said = 0;
    for mut link in kept {
        loop {
            match soon("readiness", link.ask(&request)).await {
                Ok(reply) if reply.status == 200 => {
                    assert!(stopped.elapsed() < ms(500), "still ready");
                    pass(ms(5)).await;
                }
                Ok(reply) => {
                    assert_eq!(reply.status, 503);
                    said += 1;
                    break;
                }
                // It was idle and is closed.
                Err(_) => break,
            }
        }
    }
    if let Ok(reply) = soon("readiness", ask(server.addr, request)).await {
        assert_eq!(reply.status, 503);
        said += 1;
    }
    assert!(said > 0, "no worker said that it is not ready");
}

#[tokio::test]
async fn term_drains() {
    let server = Plan::new().start().await;
    let (mut server, pollers) = assert_drains(server, |server| server.signal(Signal::SIGTERM)).await;
    // A deploy ends no polling session: the next server has them all.
    server.run();
    server.ready().await;
    for poller in pollers {
        assert_eq!(poller.call(0, &json!(["echo", "same sid"])).await, json!(["same sid"]));
    }
}

#[tokio::test]
async fn int_of_a_terminal_drains() {
    // A terminal signals the whole foreground process group, workers and Redis included.
    let server = Plan::new().own_group().start().await;
    assert_drains(server, |server| server.signal_group(Signal::SIGINT)).await;
}

#[tokio::test]
async fn term_of_a_service_manager_drains() {
    // So do `timeout`, and service managers that know no better.
    let server = Plan::new().own_group().start().await;
    assert_drains(server, |server| server.signal_group(Signal::SIGTERM)).await;
}

#[tokio::test]
async fn stop_of_the_command_line_drains() {
    let mut server = Plan::new().start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let output = server.cli("stop", &[]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(wire.end().await, Some(1012));
    assert_eq!(server.exit_within(GRACE).await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_does_not_react_is_cut_at_the_end_of_the_grace() {
    let mut server = Plan::new().with("workers = { grace_ms = 1000 }").start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    // Reads nothing, so it answers no close frame either; a request that is half there.
    let mut half = Link::open(server.addr).await.expect("connect");
    half.send(b"POST /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\n")
        .await
        .expect("send");
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_within(ms(4000)).await.code(), Some(0));
    assert!(began.elapsed() < ms(3500));
    drop(wire);
}

#[tokio::test]
async fn a_connection_to_a_stopping_fleet_is_told_so() {
    let mut server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    // A request that is half there keeps its worker; the others have nothing to wait for, and leave at once.
    let mut half = Link::open(server.addr).await.expect("connect");
    half.send(b"POST /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\n")
        .await
        .expect("send");
    server
        .status_when("the request is seen", |status| {
            status.workers.iter().any(|worker| worker.connections == 1)
        })
        .await;
    server.signal(Signal::SIGTERM);
    server
        .status_when("one worker is left", |status| {
            status.workers.iter().filter(|worker| worker.pid.is_some()).count() == 1
        })
        .await;
    let asked = async |target: &str| {
        soon("an answer", ask(server.addr, Request::get(target)))
            .await
            .expect("an answer")
    };
    assert_eq!(asked("/api/ready").await.status, 503);
    let session = asked("/socket.io/?EIO=4&transport=polling").await;
    assert_eq!((session.status, session.header("connection")), (503, Some("close")));
    assert!(session.text().contains("the server is stopping"), "{session:?}");
    let websocket = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket", &[]).await;
    assert_eq!(websocket.expect_err("a session").status, 503);
    // A session that is there continues on the next worker.
    assert_eq!(poller.get().await.pair(), (200, "6"));
    drop(half);
    assert_eq!(server.exit_within(GRACE).await.code(), Some(0));
}

#[tokio::test]
async fn a_managed_redis_goes_along() {
    let mut server = Plan::new()
        .without_redis()
        .with("redis = { managed = true }")
        .start()
        .await;
    let socket = server.directory().join("run/redis.sock");
    let redis = harness::Redis::at(&socket);
    assert!(redis.try_command(&["PING"]).await.is_ok());
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", "r"])).await, json!(["ok"]));
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(wire.end().await, Some(1012));
    assert_eq!(server.exit_within(GRACE).await.code(), Some(0));
    assert!(began.elapsed() < ms(5000), "slow: {:?}", began.elapsed());
    assert!(redis.try_command(&["PING"]).await.is_err(), "Redis is still there");
}

#[tokio::test]
async fn before_the_drain_everybody_is_served_and_readiness_says_no() {
    let mut server = Plan::new().with("workers = { pre_drain_ms = 1500 }").start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    server.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    let readiness = || soon("readiness", ask(server.addr, Request::get("/api/ready")));
    while readiness().await.expect("an answer").status == 200 {
        assert!(stopped.elapsed() < ms(1_000), "still ready");
        pass(ms(5)).await;
    }
    // Not ready, yet a client that is sent here still gets in.
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert!(stopped.elapsed() < ms(1_400), "too slow to say anything");
    assert_eq!(wire.end().await, Some(1012));
    assert!(stopped.elapsed() >= ms(1_500), "drained before its time");
    assert_eq!(server.exit_within(GRACE).await.code(), Some(0));
}
