//! What does not get on: a disk, a client's window, a client that has much to read.

use crate::harness::{Plan, Poller, Request, Server, Wire, ask, ask_again, ms, pass, soon, until, within};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// Bytes of one message.
const MESSAGE: usize = 10_000;

/// A connection with a small window.
async fn narrow(server: &Server, window: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(window).expect("a small buffer");
    // The kernel of the server keeps some segments ready, which are large on a loopback.
    setsockopt(&socket, TcpMaxSeg, &1_400).expect("small segments");
    socket.connect(server.addr).await.expect("connect")
}

/// So many messages for the room.
async fn publish(server: &Server, count: usize) {
    let mut wire = Wire::open(server).await;
    wire.connect().await;
    for id in 0..count {
        let event = json!(["publish", "room", "x".repeat(MESSAGE)]);
        assert_eq!(wire.call(id as u64, &event).await, json!(["ok"]));
    }
}

/// A pipe where the check writes its file: opening it takes as long as it has no reader, as on a mount whose server
/// is away.
fn block(directory: &Path, worker: u32) -> std::path::PathBuf {
    let pipe = directory.join(format!(".anyworker-check-{worker}"));
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    pipe
}

async fn readiness(server: &Server) -> u16 {
    let reply = soon("readiness", ask(server.addr, Request::get("/api/ready"))).await;
    reply.expect("an answer").status
}

#[tokio::test]
async fn a_disk_that_hangs_fails_its_check_and_nothing_else() {
    let disk = tempfile::tempdir().expect("a directory");
    let checks = format!(
        "[checks.disk]\nwritable_path = '{}'\ntimeout_ms = 200",
        disk.path().display()
    );
    let mut server = Plan::new().with("workers = { count = 1 }").with(&checks).start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let worker = server.status().await.ready_pids()[0];
    let pipe = block(disk.path(), worker);
    for id in 0..20 {
        assert_eq!(readiness(&server).await, 503);
        assert_eq!(wire.call(id, &json!(["echo", id])).await, json!([id]));
    }
    let tasks = std::fs::read_dir(format!("/proc/{worker}/task")).expect("a process");
    assert!(tasks.count() < 8, "a thread for each check");
    // The disk is back.
    let reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .expect("open");
    ask_again(server.addr, Request::get("/api/ready"), |reply| reply.status == 200).await;
    drop(reader);
    // It is away again, and nothing waits for it during the drain.
    block(disk.path(), worker);
    assert_eq!(readiness(&server).await, 503);
    server.signal(Signal::SIGTERM);
    let status = server.exit_within(ms(3_000)).await;
    assert_eq!(status.code(), Some(0));
    assert!(!server.log().contains("killed at its deadline"), "{}", server.log());
}

/// It answers pings when it gets to them, but they are behind much else.
#[tokio::test]
async fn a_client_that_reads_slowly_what_it_missed_gets_all_of_it() {
    const MISSED: usize = 1_500;
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 1500 }\nrecovery = { offsets = 'always' }")
        .with("workers = { count = 1 }\nlogging = { level = 'info' }")
        .start()
        .await;
    let mut wire = Wire::open(&server).await;
    let first = wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    drop(wire);
    publish(&server, MISSED).await;
    let target = "/socket.io/?EIO=4&transport=websocket&recovery=1";
    let stream = narrow(&server, 65_536).await;
    let mut wire = Wire::dial_on(stream, server.addr, target, &[])
        .await
        .expect("a WebSocket");
    assert!(wire.text().await.starts_with('0'));
    wire.send(&format!("40{}", json!({ "pid": first["pid"] }))).await;
    let (mut heard, mut answer) = (0, Value::Null);
    while heard < MISSED {
        let text = wire.data().await;
        match text.strip_prefix("40") {
            Some(text) => answer = serde_json::from_str(text).expect("an answer"),
            None => heard += 1,
        }
        if heard % 50 == 0 {
            pass(ms(150)).await;
        }
    }
    assert_eq!(answer["pid"], first["pid"]);
    assert_eq!(wire.call(1, &json!(["echo", 1])).await, json!([1]));
}

/// A poll whose answer is not read.
#[tokio::test]
async fn a_client_that_takes_no_answer_is_not_held_for_ever() {
    /// The least that a client is given, and a little more.
    const LIMIT: Duration = ms(20_000);
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 1000, ping_timeout_ms = 1000 }")
        .with("workers = { count = 1 }\nlogging = { level = 'info' }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let talk = async {
        loop {
            poller.say("3").await;
            pass(ms(300)).await;
        }
    };
    tokio::select! {
        () = publish(&server, 1_500) => {}
        () = talk => {}
    }
    let mut stream = narrow(&server, 4_096).await;
    let request = Request::get(&poller.target()).bytes(server.addr);
    soon("send", stream.write_all(&request)).await.expect("send");
    let connections = async |count: u64| {
        let status = server.status().await;
        (status.workers[0].connections == count).then_some(())
    };
    until("the connection", async || connections(1).await).await;
    within(LIMIT, "the end of it", async {
        while connections(0).await.is_none() {
            pass(ms(50)).await;
        }
    })
    .await;
    drop(stream);
}
