//! HTTP connections between two requests move from worker to worker: what a client or a proxy keeps
//! open stays open, and no request meets a connection that closes.

use crate::harness::{Link, Plan, Poller, Reply, Request, Server, ms, pass, within};
use nix::sys::signal::Signal;
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::net::TcpSocket;

const CONNECTIONS: usize = 24;
const LIVE: &str = "/api/live";

/// Connections that were used.
async fn kept_open(server: &Server) -> Vec<Link> {
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut link = Link::open(server.addr).await.expect("a connection");
        let reply = link.ask(&Request::get(LIVE)).await.expect("an answer");
        assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")));
        all.push(link);
    }
    all
}

#[tokio::test]
async fn connections_stay_open_through_reloads() {
    let mut server = Plan::new().start().await;
    let mut all = kept_open(&server).await;
    // One that has said nothing yet, and half a request.
    let mut silent = Link::open(server.addr).await.expect("a connection");
    let request = Request::get(LIVE).bytes(server.addr);
    let (head, tail) = request.split_at(request.len() / 2);
    let mut half = Link::open(server.addr).await.expect("a connection");
    half.send(head).await.expect("sent");
    server
        .status_when("all connections are known", |status| {
            status.workers.iter().map(|worker| worker.connections).sum::<u64>() >= CONNECTIONS as u64 + 2
        })
        .await;
    for _ in 0..3 {
        let before = server.status().await.ready_pids();
        let output = server.cli("reload", &["--wait"]).await;
        assert!(output.status.success(), "{output:?}");
        let after = server.status().await.ready_pids();
        assert!(before.iter().all(|pid| !after.contains(pid)), "new workers");
        for link in &mut all {
            let reply = link.ask(&Request::get(LIVE)).await.expect("an answer");
            assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")));
        }
    }
    half.send(tail).await.expect("sent");
    for reply in [half.reply(false).await, silent.ask(&Request::get(LIVE)).await] {
        assert_eq!(reply.expect("an answer").status, 200);
    }
    // A connection that has its answer delays nothing.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_within(ms(4_000)).await.code(), Some(0));
}

/// What a client is promised it gets, and some time more: its request may be on its way. Half a request is another matter.
#[tokio::test]
async fn a_connection_stays_open_for_longer_than_its_client_is_told() {
    let server = Plan::new()
        .with("http = { header_timeout_ms = 300, keepalive_timeout_ms = 6000 }")
        .start()
        .await;
    let mut link = Link::open(server.addr).await.expect("a connection");
    let poller = Poller::open(&server).await;
    let requests = [
        Request::get(LIVE),
        Request::post(&poller.target(), "40"),
        Request::get(LIVE),
    ];
    for request in &requests {
        let reply = link.ask(request).await.expect("an answer");
        assert_eq!((reply.status, reply.header("keep-alive")), (200, Some("timeout=1")));
        pass(ms(1_200)).await;
    }
    let request = Request::get(LIVE).header("Connection", "close");
    let reply = Link::open(server.addr).await.expect("a connection").ask(&request).await;
    assert_eq!(reply.expect("an answer").header("keep-alive"), None);
    let idle = Instant::now();
    let rest = within(ms(9_000), "its end", link.rest()).await;
    assert!(rest.is_empty() && idle.elapsed() > ms(4_000), "{:?}", idle.elapsed());
    let mut half = Link::open(server.addr).await.expect("a connection");
    half.ask(&Request::get(LIVE)).await.expect("an answer");
    half.send(b"GET /api").await.expect("sent");
    let rest = within(ms(3_000), "its end", half.rest()).await;
    assert!(rest.is_empty());
}

/// Only what was answered, and answered in full, moves.
#[tokio::test]
async fn an_answer_that_is_not_taken_yet_arrives() {
    const PIECE: usize = 900_000;
    const PIECES: usize = 12;
    let server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let text = "x".repeat(PIECE);
    for id in 1..=PIECES {
        poller.say(format!(r#"42{id}["publish","room","{text}"]"#)).await;
    }
    let mut link = narrow(server.addr).await.expect("a connection");
    link.send(&Request::get(&poller.target()).bytes(server.addr))
        .await
        .expect("sent");
    link.begun().await.expect("the beginning of an answer");
    server.signal(Signal::SIGHUP);
    server.logged("idle HTTP connections handed over").await;
    let reply = link.reply(false).await.expect("an answer");
    // All of what it announced, that is.
    assert!(
        reply.text().matches(&text).count() > PIECES / 2,
        "more than sockets hold"
    );
    server.logged("reload completed").await;
}

/// A client whose window is small.
async fn narrow(addr: SocketAddr) -> io::Result<Link> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 * 1024)?;
    Link::over(socket.connect(addr).await?, addr)
}

/// Whichever process dies, no request is lost, unless the one that died was serving it.
#[tokio::test]
async fn a_worker_killed_in_the_middle_closes_at_most_what_it_owned() {
    for place in ["give.sent", "take.received", "take.rebuilt", "take.owned", "take.live"] {
        let mut server = Plan::new()
            .with("workers = { count = 1 }\nreload = { soak_ms = 0 }")
            .prepare()
            .await;
        let once = server.directory().join("once");
        server.set_env("TEST_HANDOVER_FAULT", &format!("{place}:kill:{}", once.display()));
        server.run();
        server.ready().await;
        let mut all = kept_open(&server).await;
        server.signal(Signal::SIGHUP);
        server.logged("fault of a test").await;
        let mut closed = 0;
        for link in &mut all {
            match link.ask(&Request::get(LIVE)).await {
                Ok(Reply { status, .. }) => assert_eq!(status, 200, "{place}"),
                Err(_) => closed += 1,
            }
        }
        eprintln!("{place}: {closed} of {CONNECTIONS} closed");
        match place {
            "take.received" | "take.rebuilt" => assert_eq!(closed, 0, "{place}: they were the old worker's"),
            _ => {}
        }
        server
            .status_when("it serves", |status| {
                status.supervisor.state == "serving" && status.ready_pids().len() == 1
            })
            .await;
        pass(ms(100)).await;
        kept_open(&server).await;
    }
}
