//! What clients make a worker keep is bounded for all of them together, and for those that have not joined a namespace.

use crate::harness::{Plan, Poller, Resp, Server, Wire, text_frame, until};
use serde_json::{Value, json};

/// The budget of these tests (bytes).
const BUDGET: usize = 8 << 20;

/// One worker with a small budget.
async fn server() -> Server {
    let limits = format!("limits = {{ buffers_bytes_max = {BUDGET} }}");
    Plan::new()
        .with("workers = { count = 1 }\ndiagnostics = { engine_echo = '/engine.io/' }")
        .with(&limits)
        .start()
        .await
}

#[tokio::test]
async fn before_a_namespace_is_joined_messages_are_short() {
    let server = server().await;
    let connect = |length: usize| {
        let rest = length - r#"40{"x":""}"#.len();
        format!(r#"40{{"x":"{}"}}"#, "x".repeat(rest))
    };
    let mut wire = Wire::open(&server).await;
    wire.send(&connect(16_384)).await;
    assert!(wire.data().await.starts_with("40{"));
    // From now on they may be as long as `engine.max_payload_bytes`.
    let long = "x".repeat(900_000);
    assert_eq!(wire.call(0, &json!(["echo", long])).await, json!([long]));
    let mut wire = Wire::open(&server).await;
    wire.send_raw(&text_frame(16_385, "40")).await;
    assert_eq!(wire.end().await, Some(1009), "before the rest has come");
    let mut echo = Wire::open_echo(&server).await;
    echo.send(&format!("4{long}")).await;
    assert_eq!(echo.data().await.len(), 900_001, "there are no namespaces to join");
}

#[tokio::test]
async fn before_a_namespace_is_joined_bodies_are_short() {
    let server = server().await;
    let poller = Poller::open(&server).await;
    let body = format!(r#"40{{"x":"{}"}}"#, "x".repeat(16_384));
    assert_eq!(poller.post(body).await.status, 413);
    poller.connect().await;
    let long = "x".repeat(900_000);
    assert_eq!(poller.call(0, &json!(["echo", long])).await, json!([long]));
}

/// The reference server gathers the attachments first and closes then.
#[tokio::test]
async fn no_attachments_are_gathered_before_a_namespace_is_joined() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.send(r#"451-["x",{"_placeholder":true,"num":0}]"#).await;
    assert_eq!(wire.end().await, None);
}

#[tokio::test]
async fn a_connection_that_moves_takes_its_part_of_the_budget_along() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let text = json!(["echo", "x".repeat(200_000)]).to_string();
    let packet = format!("425{text}");
    let (first, second) = packet.split_at(100_000);
    wire.send_raw(&text_frame(packet.len(), first)).await;
    let holds = |n: f64| n >= 100_000.0;
    server.metric_when("gw_buffers_bytes{", "", holds).await;
    let former = server.status().await.ready_pids();
    let reloaded = server.cli("reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_ne!(server.status().await.ready_pids(), former);
    server.metric_when("gw_buffers_bytes{", "", holds).await;
    wire.send_raw(second.as_bytes()).await;
    let ack: Value = serde_json::from_str(&wire.data().await[3..]).expect("an ack");
    assert_eq!(ack[0].as_str().map(str::len), Some(200_000));
    server.metric_when("gw_buffers_bytes{", "", |n| n < 100_000.0).await;
}

/// How long a key still lives (milliseconds).
async fn left(server: &Server, key: &str) -> i64 {
    let answer = server.redis().command(&["PTTL", key]).await;
    let Resp::Int(left) = answer else {
        panic!("{answer:?}");
    };
    left
}

#[tokio::test]
async fn handshakes_alone_do_not_fill_redis() {
    const HANDSHAKES: usize = 10;
    let server = Plan::new()
        .with("workers = { count = 1 }\nlimits = { handshakes_max = 10 }\nsocket = { connect_timeout_ms = 2000 }")
        .start()
        .await;
    let member = Poller::open(&server).await;
    member.connect().await;
    let mut idle = Vec::new();
    for _ in 0..HANDSHAKES {
        idle.push(Poller::open(&server).await);
    }
    let refused = Poller::handshake(server.addr, "/socket.io/").await.expect("an answer");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    server.metric_when("gw_unsettled_sessions", "", |n| n == 10.0).await;
    server
        .metric_when("gw_limits_reached_total", "limit=\"handshakes\"", |n| n == 1.0)
        .await;
    // No other client notices: WebSockets begin, and members are served.
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    assert_eq!(member.call(0, &json!(["echo", 1])).await, json!([1]));
    // What lies in Redis lives little longer than a client has time, until it joins.
    let keys = |sid: &str| {
        [
            format!("socketio:session:{{{sid}}}"),
            format!("socketio:poll:{{{sid}}}"),
        ]
    };
    let joins = idle.pop().expect("a session");
    for key in keys(&joins.sid) {
        assert!((1..=7000).contains(&left(&server, &key).await), "{key}");
    }
    joins.connect().await;
    let [session, poll] = keys(&joins.sid);
    assert!(left(&server, &session).await > 100_000, "as long as it can be resumed");
    assert!(
        left(&server, &poll).await > 30_000,
        "as long as it need not answer a ping"
    );
    // That made room for one.
    idle.push(Poller::open(&server).await);
    for key in idle.iter().flat_map(|poller| keys(&poller.sid)) {
        until("it is gone", async || (left(&server, &key).await == -2).then_some(())).await;
    }
    drop(Poller::open(&server).await);
}

/// A pong shows that a client is there; it does not keep a session that joins nothing.
#[tokio::test]
async fn pongs_do_not_keep_a_session_without_a_namespace() {
    let server = Plan::new()
        .with("workers = { count = 1 }\nsocket = { connect_timeout_ms = 2000 }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    poller.say("3").await;
    let left = left(&server, &format!("socketio:session:{{{}}}", poller.sid)).await;
    assert!((1..=7000).contains(&left), "{left} ms");
}
