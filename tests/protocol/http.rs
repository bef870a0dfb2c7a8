//! HTTP as it is spoken around the endpoints: health, limits, and what is no HTTP at all.

use crate::harness::{Link, Plan, Poller, Reply, Request, Server, ask, soon, until};
use serde_json::{Value, json};

async fn get(server: &Server, target: &str) -> Reply {
    soon("an answer", ask(server.addr, Request::get(target)))
        .await
        .expect("an answer")
}

#[tokio::test]
async fn health_is_told() {
    let server = Plan::new().start().await;
    assert_eq!(get(&server, "/api/live").await.status, 200);
    let reply = get(&server, "/api/ready").await;
    assert_eq!(reply.status, 200);
    let body = reply.json();
    assert_eq!(body["status"], "ready");
    assert_eq!(body["checks"]["redis"], true);
    assert!(body["security_validated"].is_boolean(), "{body}");
    assert_eq!(body["multi_worker_support"], true);
    // Ready: so it is not overdue.
    assert!(body["canary_age_ms"].as_u64().is_some_and(|age| age < 15_000), "{body}");
}

#[tokio::test]
async fn further_checks_count() {
    let plan = |port: u16| {
        format!(
            "[checks.database]\ntcp = '127.0.0.1:{port}'\ntimeout_ms = 1000\n\
             [checks.ollama]\nhttp = 'http://127.0.0.1:{port}/api/tags'\ntimeout_ms = 1000\n\
             [checks.storage]\nwritable_path = '/tmp'\n"
        )
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let backend = tokio::spawn(backend(listener));
    let server = Plan::new().with(&plan(port)).start().await;
    let checks = get(&server, "/api/ready").await.json()["checks"].clone();
    for name in ["database", "ollama", "storage", "redis"] {
        assert_eq!(checks[name], true, "{checks}");
    }
    backend.abort();
    let reply = until("readiness notices", async || {
        let reply = get(&server, "/api/ready").await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    let body: Value = reply.json();
    assert_ne!(body["status"], "ready");
    assert_eq!(body["checks"]["database"], json!(false));
    assert_eq!(body["checks"]["ollama"], json!(false));
    assert_eq!(body["checks"]["redis"], json!(true));
    assert_eq!(get(&server, "/api/live").await.status, 200);
}

/// Answers everything with 200.
async fn backend(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = [0; 1024];
            // Who only connects sends nothing.
            if stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
                stream.write_all(answer).await.expect("answer");
            }
        });
    }
}

#[tokio::test]
async fn connections_are_kept_or_closed_as_asked() {
    let server = Plan::new().start().await;
    let mut link = Link::open(server.addr).await.expect("connect");
    for _ in 0..5 {
        assert_eq!(
            link.ask(&Request::get("/api/live")).await.expect("an answer").status,
            200
        );
    }
    let last = Request::get("/api/live").header("Connection", "close");
    assert_eq!(link.ask(&last).await.expect("an answer").status, 200);
    soon("the end", link.closed()).await;
}

#[tokio::test]
async fn requests_may_follow_each_other_without_waiting() {
    let server = Plan::new().start().await;
    let mut link = Link::open(server.addr).await.expect("connect");
    let one = Request::get("/socket.io/?EIO=4&transport=polling").bytes(server.addr);
    link.send(&one.repeat(5)).await.expect("send");
    for _ in 0..5 {
        let reply = soon("an answer", link.reply(false)).await.expect("an answer");
        Poller::opened(server.addr, "/socket.io/", &reply);
    }
}

/// The bytes get an answer of 400 or above, or none, and the connection is closed.
async fn assert_refused(server: &Server, what: &str, bytes: &[u8]) {
    let mut link = Link::open(server.addr).await.expect("connect");
    // The server may close before it has read all.
    drop(link.send(bytes).await);
    let answer = soon(what, link.rest()).await;
    let text = String::from_utf8_lossy(&answer);
    let status = text.strip_prefix("HTTP/1.1 ").map_or("none", |rest| &rest[..3]);
    assert!(status == "none" || status.starts_with('4'), "{what}: {text}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_no_other_client_notices() {
    let server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let target = poller.target();
    let cases: &[(&str, Vec<u8>)] = &[
        ("random bytes", (0..=255).cycle().skip(128).take(600).collect()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("no HTTP", b"HELO there\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (
            "a head over the limit",
            [
                b"GET / HTTP/1.1\r\nX: ".to_vec(),
                vec![b'x'; 40_000],
                b"\r\n\r\n".to_vec(),
            ]
            .concat(),
        ),
        (
            "a target over the limit",
            [b"GET /".to_vec(), vec![b'x'; 70_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        ),
        (
            "two lengths",
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n4x")
                .into_bytes(),
        ),
        (
            "a length that is none",
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n4x").into_bytes(),
        ),
        (
            "chunks that are none",
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n4x\r\n").into_bytes(),
        ),
    ];
    for (what, bytes) in cases.iter().take(7) {
        assert_refused(&server, what, bytes).await;
    }
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
    // These name a session, and may close it, but no other one.
    let other = Poller::open(&server).await;
    other.connect().await;
    for (what, bytes) in cases.iter().skip(7) {
        assert_refused(&server, what, bytes).await;
    }
    assert_eq!(other.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let server = Plan::new().start().await;
    let mut link = Link::open(server.addr).await.expect("connect");
    let reply = link.ask(&Request::new("HEAD", "/api/live")).await.expect("an answer");
    assert_eq!(reply.status, 200);
    assert_eq!(
        link.ask(&Request::get("/api/live")).await.expect("an answer").status,
        200
    );
}
