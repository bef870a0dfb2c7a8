//! The handshake: what it says, how it refuses, cookies, CORS and origins.

use crate::harness::{Plan, Poller, Reply, Request, Resp, Server, Wire, ask, soon};
use std::collections::BTreeSet;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

async fn get(server: &Server, target: &str) -> Reply {
    request(server, Request::get(target)).await
}

async fn request(server: &Server, request: Request) -> Reply {
    soon("an answer", ask(server.addr, request)).await.expect("an answer")
}

#[tokio::test]
async fn says_what_the_settings_are() {
    let server = Plan::new().start().await;
    let mut sids = BTreeSet::new();
    for _ in 0..16 {
        let reply = get(&server, &format!("{POLLING}&t=abc")).await;
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("set-cookie"), None);
        assert_eq!(reply.header("access-control-allow-origin"), None);
        let sid = Poller::opened(server.addr, "/socket.io/", &reply).sid;
        assert_eq!(
            reply.text(),
            format!(
                r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
            )
        );
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(sid.len() >= 20 && sid.bytes().all(plain), "{sid}");
        assert!(sids.insert(sid), "the same sid twice");
    }
    let mut wire = Wire::dial(server.addr, WEBSOCKET, &[]).await.expect("a WebSocket");
    let open = wire.text().await;
    assert!(open.contains(r#""upgrades":[],"pingInterval":25000"#), "{open}");
    assert_eq!(wire.response.headers().get("sec-websocket-extensions"), None);
}

#[tokio::test]
async fn says_other_settings_exactly() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 200, max_payload_bytes = 12345, allow_upgrades = false }")
        .start()
        .await;
    let open = Poller::open(&server).await.open;
    assert_eq!(open["pingInterval"], 300);
    assert_eq!(open["pingTimeout"], 200);
    assert_eq!(open["maxPayload"], 12345);
    assert_eq!(open["upgrades"], serde_json::json!([]));
}

#[tokio::test]
async fn refuses_with_the_right_code() {
    let server = Plan::new().start().await;
    let cases: &[(&str, &str, u8, &str)] = &[
        ("GET", "?EIO=4", 0, "Transport unknown"),
        ("GET", "?EIO=4&transport=", 0, "Transport unknown"),
        ("GET", "?EIO=4&transport=carrier-pigeon", 0, "Transport unknown"),
        ("GET", "?EIO=4&transport=polling&sid=unknown", 1, "Session ID unknown"),
        ("POST", "?EIO=4&transport=polling&sid=unknown", 1, "Session ID unknown"),
        (
            "POST",
            "?EIO=4&transport=polling&sid=%00%ff%7D",
            1,
            "Session ID unknown",
        ),
        ("GET", "?EIO=4&transport=polling&sid=*", 1, "Session ID unknown"),
        ("POST", "?EIO=4&transport=polling", 2, "Bad handshake method"),
        ("PUT", "?EIO=4&transport=polling", 2, "Bad handshake method"),
        ("GET", "?EIO=4&transport=websocket", 3, "Bad request"),
        ("GET", "?transport=polling", 5, "Unsupported protocol version"),
        ("GET", "?EIO=3&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "?EIO=44&transport=polling", 5, "Unsupported protocol version"),
        // The order of the checks: transport, sid, method, and the version last.
        ("POST", "?EIO=3&transport=x&sid=unknown", 0, "Transport unknown"),
        ("PUT", "?EIO=3&transport=polling&sid=unknown", 1, "Session ID unknown"),
        ("POST", "?EIO=3&transport=polling", 2, "Bad handshake method"),
    ];
    for (method, query, code, message) in cases {
        let reply = request(&server, Request::new(method, &format!("/socket.io/{query}"))).await;
        assert_eq!(reply.status, 400, "{method} {query}: {reply:?}");
        reply.assert_error(*code, message);
    }
    assert_eq!(get(&server, "/elsewhere/?EIO=4&transport=polling").await.status, 404);
    assert_eq!(get(&server, "/").await.status, 404);
}

#[tokio::test]
async fn refuses_websockets_before_they_open() {
    let server = Plan::new().start().await;
    for (query, message) in [
        ("?EIO=4&transport=carrier-pigeon", "Transport unknown"),
        ("?EIO=4&transport=websocket&sid=unknown", "Session ID unknown"),
    ] {
        let refusal = Wire::dial(server.addr, &format!("/socket.io/{query}"), &[]).await;
        let refusal = refusal.expect_err("refused");
        assert_eq!(
            (refusal.status, refusal.header("connection")),
            (400, Some("close")),
            "{query}"
        );
        assert!(refusal.text().contains(message), "{query}: {refusal:?}");
    }
    // A wrong version may be told before or after the upgrade; a session never comes of it.
    match Wire::dial(server.addr, "/socket.io/?EIO=3&transport=websocket", &[]).await {
        Err(refusal) => assert_eq!(refusal.status, 400),
        Ok(mut wire) => assert_eq!(wire.end().await, None),
    }
}

#[tokio::test]
async fn the_version_counts_at_the_handshake_only() {
    let server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    let target = format!("/socket.io/?transport=polling&sid={}", poller.sid);
    let reply = request(&server, Request::post(&target, "40")).await;
    assert_eq!(reply.pair(), (200, "ok"));
}

#[tokio::test]
async fn a_transport_that_is_off_is_unknown() {
    let server = Plan::new()
        .with("engine = { transports = ['websocket'] }")
        .start()
        .await;
    get(&server, POLLING).await.assert_error(0, "Transport unknown");
    drop(Wire::open(&server).await);
    let server = Plan::new().with("engine = { transports = ['polling'] }").start().await;
    let reply = Wire::dial(server.addr, WEBSOCKET, &[]).await.expect_err("refused");
    assert_eq!(reply.status, 400);
    assert_eq!(Poller::open(&server).await.open["upgrades"], serde_json::json!([]));
}

#[tokio::test]
async fn the_cookie_comes_with_the_handshake_only() {
    let server = Plan::new().with("engine = { cookie = { name = 'io' } }").start().await;
    let reply = get(&server, POLLING).await;
    let poller = Poller::opened(server.addr, "/socket.io/", &reply);
    let cookie = format!("io={}; Path=/; HttpOnly; SameSite=Lax", poller.sid);
    assert_eq!(reply.header("set-cookie"), Some(cookie.as_str()));
    let reply = poller.post("40").await;
    assert_eq!(reply.header("set-cookie"), None);
    assert_eq!(poller.get().await.header("set-cookie"), None);
    let wire = Wire::dial(server.addr, WEBSOCKET, &[]).await.expect("a WebSocket");
    assert!(wire.response.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn cors_for_everybody() {
    let server = Plan::new().with("http = { origins = ['*'] }").start().await;
    let from = |target: &str| Request::get(target).header("Origin", "http://a.example");
    for target in [POLLING, "/socket.io/?EIO=4&transport=x"] {
        let reply = request(&server, from(target)).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
    let asked = Request::new("OPTIONS", POLLING)
        .header("Origin", "http://a.example")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "x-one,x-two");
    let reply = request(&server, asked).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("x-one,x-two"));
    let methods = reply.header("access-control-allow-methods").expect("methods");
    assert!(methods.contains("GET") && methods.contains("POST"), "{methods}");
    let wire = Wire::dial(server.addr, WEBSOCKET, &[("origin", "http://a.example")]).await;
    let wire = wire.expect("any origin");
    assert_eq!(wire.response.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn cors_for_a_list_with_credentials() {
    let server = Plan::new()
        .with("http = { origins = ['http://a.example', 'https://b.example:8443'], credentials = true }")
        .start()
        .await;
    for origin in ["http://a.example", "https://b.example:8443"] {
        let reply = request(&server, Request::get(POLLING).header("Origin", origin)).await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(reply.header("vary"), Some("Origin"));
        assert!(Wire::dial(server.addr, WEBSOCKET, &[("origin", origin)]).await.is_ok());
    }
    for origin in [
        "http://evil.example",
        "https://a.example",
        "http://a.example.evil",
        "null",
    ] {
        let reply = request(&server, Request::get(POLLING).header("Origin", origin)).await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
        let refusal = Wire::dial(server.addr, WEBSOCKET, &[("origin", origin)]).await;
        let refusal = refusal.expect_err("an origin that is not on the list");
        assert!(matches!(refusal.status, 400 | 403), "{origin}: {refusal:?}");
    }
}

#[tokio::test]
async fn without_a_list_a_websocket_must_be_of_the_same_origin() {
    let server = Plan::new().start().await;
    let own = server.url();
    assert!(Wire::dial(server.addr, WEBSOCKET, &[("origin", &own)]).await.is_ok());
    assert!(Wire::dial(server.addr, WEBSOCKET, &[]).await.is_ok());
    let refusal = Wire::dial(server.addr, WEBSOCKET, &[("origin", "http://evil.example")]).await;
    assert!(matches!(refusal.expect_err("refused").status, 400 | 403));
    let asked = Request::new("OPTIONS", POLLING)
        .header("Origin", "http://evil.example")
        .header("Access-Control-Request-Method", "POST");
    assert_eq!(
        request(&server, asked).await.header("access-control-allow-origin"),
        None
    );
    // Upgrades of a polling session are no way around it.
    let poller = Poller::open(&server).await;
    let refusal = Wire::dial(
        server.addr,
        &poller.upgrade_target(),
        &[("origin", "http://evil.example")],
    )
    .await;
    assert!(matches!(refusal.expect_err("refused").status, 400 | 403));
    poller.connect().await;
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    for (trusted, expect) in [("127.0.0.0/8", "198.51.100.9"), ("10.0.0.0/8", "127.0.0.1")] {
        let server = Plan::new()
            .with(&format!("http = {{ trusted_proxies = ['{trusted}'] }}"))
            .start()
            .await;
        let through = Request::get(POLLING).header("X-Forwarded-For", "192.0.2.1, 198.51.100.9, 127.0.0.2");
        assert_eq!(request(&server, through).await.status, 200);
        let keys = server.redis().keys("socketio:session:*").await;
        let Resp::Text(record) = server.redis().command(&["GET", &keys[0]]).await else {
            panic!("no record");
        };
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["address"], expect, "{trusted}");
    }
}
