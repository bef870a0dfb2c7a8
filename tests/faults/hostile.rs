//! Clients that mean harm, or are broken.

use crate::harness::{Frame, Link, Plan, Poller, Request, Server, Status, Wire, ms, pass, soon, until, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};

/// Random byte streams of each kind.
const STREAMS: u64 = 20;

/// No worker died, and a client is served.
async fn assert_unharmed(server: &Server, before: &Status) {
    let after = server.status().await;
    assert_eq!(after.ready_pids(), before.ready_pids(), "{after:?}");
    let poller = Poller::open(server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn random_bytes_harm_no_other_client() {
    let server = Plan::new().start().await;
    let before = server.status().await;
    for seed in 0..STREAMS {
        eprintln!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut noise = |count: usize| (0..count).map(|_| rng.u8(..)).collect::<Vec<u8>>();
        // As a request.
        let mut link = Link::open(server.addr).await.expect("connect");
        drop(link.send(&noise(3000)).await);
        drop(link.send(b"\r\n\r\n").await);
        soon("the end", link.rest()).await;
        // As a body.
        let poller = Poller::open(&server).await;
        poller.connect().await;
        assert!(poller.post(noise(500)).await.status < 500, "seed {seed}");
        // As the text of a packet, and as bytes where frames are due.
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        let text = String::from_utf8_lossy(&noise(200)).into_owned();
        wire.send(&format!("42{text}")).await;
        drop(soon("the end", wire.drain()).await);
        let mut wire = Wire::open(&server).await;
        wire.send_raw(&noise(400)).await;
        // It may look like the head of a long frame, for which the server rightly waits.
        wire.shut().await;
        soon("the end", wire.drain()).await;
    }
    assert_unharmed(&server, &before).await;
}

#[tokio::test]
async fn half_a_request_is_not_waited_for_long() {
    let server = Plan::new()
        .with("http = { header_timeout_ms = 400, body_timeout_ms = 400 }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let body = Request::new("POST", &poller.target()).header("Content-Length", "10");
    let body = [body.bytes(server.addr), b"42".to_vec()].concat();
    for half in [b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHos".to_vec(), b"G".to_vec(), body] {
        let mut link = Link::open(server.addr).await.expect("connect");
        link.send(&half).await.expect("send");
        let answer = within(ms(3000), "it is cut", link.rest()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
}

#[tokio::test]
async fn slow_senders_do_not_keep_others_waiting() {
    let server = Plan::new().with("http = { header_timeout_ms = 1000 }").start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let addr = server.addr;
        slow.push(tokio::spawn(async move {
            let mut link = Link::open(addr).await.expect("connect");
            let began = Instant::now();
            let drip = async {
                drop(link.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n").await);
                while link.send(b"x: y\r\n").await.is_ok() {
                    pass(ms(100)).await;
                }
            };
            within(ms(6000), "a slow sender is cut", drip).await;
            began.elapsed()
        }));
    }
    // Meanwhile others are served as ever.
    for _ in 0..20 {
        let poller = within(ms(2000), "a session", Poller::open(&server)).await;
        within(ms(2000), "CONNECT", poller.connect()).await;
    }
    for slow in slow {
        let lasted = slow.await.expect("a slow sender");
        assert!(lasted >= ms(900), "cut after {lasted:?}, before its time");
    }
}

/// A WebSocket that receives as little as the system allows.
async fn not_reading(server: &Server) -> Wire {
    let (wire, _) = not_reading_at(server, "/socket.io/?EIO=4&transport=websocket").await;
    wire
}

/// The same, with the answer to its CONNECT.
async fn not_reading_at(server: &Server, target: &str) -> (Wire, Value) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream: TcpStream = soon("connect", socket.connect(server.addr)).await.expect("connect");
    let mut wire = Wire::dial_on(stream, server.addr, target, &[])
        .await
        .expect("a WebSocket");
    assert!(wire.text().await.starts_with("0{"));
    let answer = wire.connect().await;
    (wire, answer)
}

/// Resident memory of all workers (bytes).
fn resident(status: &Status) -> usize {
    let pages = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        text.split(' ')
            .nth(1)
            .and_then(|word| word.parse::<usize>().ok())
            .unwrap_or_default()
    };
    status.ready_pids().iter().map(pages).sum::<usize>() * 4096
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_the_room_continues() {
    const MESSAGES: usize = 400;
    let server = Plan::new()
        .with("limits = { outbox_bytes_max = 262144 }\nlog = { ring_bytes_max = 1048576 }")
        .start()
        .await;
    let before = server.status().await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut wire = not_reading(&server).await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        idle.push(wire);
    }
    let mut reader = Wire::open(&server).await;
    reader.connect().await;
    assert_eq!(reader.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut publisher = Wire::open(&server).await;
    publisher.connect().await;
    let memory = resident(&before);
    let payload = "x".repeat(50_000);
    let publishing = async {
        for id in 0..MESSAGES {
            assert_eq!(
                publisher.call(id as u64, &json!(["publish", "room", payload])).await,
                json!(["ok"])
            );
        }
    };
    let reading = async {
        for _ in 0..MESSAGES {
            assert!(reader.data().await.starts_with(r#"42["message","xxx"#));
        }
    };
    within(Duration::from_secs(60), "all messages", async {
        tokio::join!(publishing, reading)
    })
    .await;
    // 20 MB went to each of them; the server kept its share of it only.
    server
        .status_when("the ones that do not read are closed", |status| status.sessions() == 2)
        .await;
    let grown = resident(&before).saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes more");
    drop(idle);
    assert_unharmed(&server, &before).await;
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_cannot_fill_the_memory() {
    let server = Plan::new().with("limits = { outbox_bytes_max = 262144 }").start().await;
    let before = server.status().await;
    let memory = resident(&before);
    let mut wire = not_reading(&server).await;
    let packet = format!(r#"421["echo","{}"]"#, "x".repeat(50_000));
    // Either the server stops reading, so that this blocks, or it closes.
    let flood = async {
        for _ in 0..2000 {
            if wire.try_send(&packet).await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(ms(5000), flood).await.is_err() {
        eprintln!("the server stopped reading");
    }
    let grown = resident(&before).saturating_sub(memory);
    assert!(grown < 60 << 20, "{grown} bytes more");
    drop(wire);
    assert_unharmed(&server, &before).await;
}

#[tokio::test]
async fn a_poll_of_a_vanished_client_does_not_grow_for_ever() {
    let server = Plan::new().start().await;
    let before = server.status().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    // Acks pile up unread; beyond the limit they are refused or the session is closed.
    let body = format!(r#"421["echo","{}"]"#, "x".repeat(100_000));
    let mut taken = 0;
    for _ in 0..400 {
        if poller.post(body.clone()).await.status != 200 {
            break;
        }
        taken += 1;
    }
    assert!(taken < 400, "40 MB of unread acks were kept");
    assert_unharmed(&server, &before).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_are_served_later() {
    let server = Plan::new()
        .with("workers = { count = 1 }\nlimits = { connections_max = 20 }")
        .start()
        .await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(Wire::open(&server).await);
    }
    // Queued by the kernel, not refused.
    let mut waiting = Link::open(server.addr).await.expect("connect");
    waiting
        .send(&Request::get("/api/live").bytes(server.addr))
        .await
        .expect("send");
    assert!(
        tokio::time::timeout(ms(300), waiting.reply(false)).await.is_err(),
        "served beyond the limit"
    );
    drop(kept);
    let reply = soon("an answer at last", waiting.reply(false))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn connections_without_a_request_make_room() {
    let server = Plan::new()
        .with("workers = { count = 1 }\nlimits = { connections_max = 20 }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let mut poll = Link::open(server.addr).await.expect("connect");
    poll.send(&Request::get(&poller.target()).bytes(server.addr))
        .await
        .expect("send");
    let mut idle = Vec::new();
    for _ in 0..19 {
        let mut link = Link::open(server.addr).await.expect("connect");
        assert_eq!(
            link.ask(&Request::get("/api/live")).await.expect("an answer").status,
            200
        );
        idle.push(link);
    }
    let mut waiting = Link::open(server.addr).await.expect("connect");
    let reply = within(ms(3_000), "an answer", waiting.ask(&Request::get("/api/live"))).await;
    assert_eq!(reply.expect("an answer").status, 200);
    // A client that waits for an answer gets it.
    poller.say(r#"420["echo",1]"#).await;
    let reply = soon("an answer", poll.reply(false)).await.expect("an answer");
    assert_eq!(reply.text(), "430[1]");
}

#[tokio::test]
async fn sessions_of_vanished_clients_go() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 500, ping_timeout_ms = 500 }")
        .with("recovery = { enabled = false }")
        .start()
        .await;
    for _ in 0..5 {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        drop(wire);
        let poller = Poller::open(&server).await;
        poller.connect().await;
    }
    // One that stays connected and says nothing.
    let mut silent = Wire::open(&server).await;
    silent.connect().await;
    until("all sessions have gone", async || {
        server.redis().keys("socketio:*session*").await.is_empty().then_some(())
    })
    .await;
    server.holding(0).await;
    assert!(matches!(silent.drain().await, Frame::Close(_) | Frame::Gone));
}

/// What found no room is not skipped: a small message after it would carry the client's offset over it.
#[tokio::test]
async fn a_client_that_reads_too_late_comes_back_and_misses_nothing() {
    const MESSAGES: u64 = 400;
    let server = Plan::new()
        .with("limits = { outbox_bytes_max = 262144 }\nlog = { ring_bytes_max = 1048576 }")
        .start()
        .await;
    let (mut late, first) = not_reading_at(&server, "/socket.io/?EIO=4&transport=websocket&recovery=1").await;
    assert_eq!(late.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut publisher = Wire::open(&server).await;
    publisher.connect().await;
    let padding = "x".repeat(100_000);
    for number in 0..MESSAGES {
        let padding = if number % 2 == 0 { &padding } else { "" };
        let event = json!(["publish", "room", [number, padding]]);
        assert_eq!(publisher.call(number, &event).await, json!(["ok"]));
    }
    server
        .status_when("it is closed for its slowness", |status| status.sessions() == 1)
        .await;
    let (mut seen, mut offset) = (Vec::new(), None);
    let mut note = |packet: &str| {
        if let Some(event) = packet.strip_prefix("42") {
            let event: Value = serde_json::from_str(event).expect("JSON");
            seen.push(event[1][0].as_u64().expect("a number"));
            offset = Some(event[2].clone());
        }
    };
    while let Frame::Text(packet) = late.next().await {
        note(&packet);
    }
    let mut wire = Wire::open(&server).await;
    let auth = json!({ "pid": first["pid"], "offset": offset });
    wire.send(&format!("40{auth}")).await;
    loop {
        let packet = wire.data().await;
        if let Some(event) = packet.strip_prefix("42") {
            let event: Value = serde_json::from_str(event).expect("JSON");
            seen.push(event[1][0].as_u64().expect("a number"));
            if seen.last() == Some(&(MESSAGES - 1)) {
                break;
            }
        }
    }
    assert_eq!(seen, (0..MESSAGES).collect::<Vec<_>>());
}

/// A session without a namespace goes first: alone it never closes another connection.
#[tokio::test]
async fn volatile_events_are_dropped_before_a_slow_client_is() {
    let server = Plan::new().with("limits = { outbox_bytes_max = 262144 }").start().await;
    let mut slow = not_reading(&server).await;
    assert_eq!(slow.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut fast = Wire::open(&server).await;
    fast.connect().await;
    assert_eq!(fast.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let send = async |n: u32, volatile: bool, data: &str| {
        let event = json!({ "event": "e", "args": [n, data], "room": "room", "volatile": volatile }).to_string();
        server
            .redis()
            .command(&["XADD", "socketio:ingest", "*", "event", &event])
            .await;
    };
    let padding = "x".repeat(20_000);
    for n in 0..400 {
        send(n, true, &padding).await;
        // The other one keeps up, and gets all of it.
        assert!(fast.data().await.starts_with(&format!(r#"42["e",{n},"#)));
    }
    send(400, false, "").await;
    assert!(fast.data().await.starts_with(r#"42["e",400,"#));
    let (mut last, mut came) = (0, 0);
    while last != 400 {
        let event: Value = serde_json::from_str(&slow.data().await[2..]).expect("JSON");
        let n = event[1].as_u64().expect("a number");
        assert!(came == 0 || n > last, "{n} after {last}");
        (last, came) = (n, came + 1);
    }
    eprintln!("{came} of 401 came");
    assert!(came < 401, "nothing was dropped");
}
