//! What clients make a worker keep is bounded for all of them together, and for those that have not joined a namespace.

use crate::harness::{Link, Plan, Poller, Request, Resp, Server, Wire, process_memory, soon, text_frame, until};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

/// The budget of these tests (bytes).
const BUDGET: usize = 8 << 20;
/// Attackers, and bytes that each of them has the worker keep: ten times the budget.
const ATTACKERS: usize = 90;
const PART: usize = 900_000;
/// Clients that read nothing, and how many events of 90 KB they get: the kernel takes the first of them.
const NOT_READING: usize = 40;
const EVENTS: u64 = 60;
/// What the worker's memory may grow by: buffers double as they grow, and some memory is not given back at once.
const GROWTH_MAX: usize = 5 * BUDGET;

/// One worker. An outbox alone may have more than the budget, which is what these tests are about.
async fn server() -> Server {
    let limits = format!("limits = {{ buffers_bytes_max = {BUDGET}, outbox_bytes_max = 33554432 }}");
    Plan::new()
        .with("workers = { count = 1 }\ndiagnostics = { engine_echo = '/engine.io/' }")
        .with(&limits)
        .start()
        .await
}

/// Resident memory of the only worker (bytes).
async fn resident(server: &Server) -> usize {
    process_memory(server.status().await.ready_pids()[0], "VmRSS")
}

/// A client that does what clients do, on both transports, while others attack.
struct Bystander {
    wire: Wire,
    /// It has half of its own message on the way.
    slow: Wire,
    poller: Poller,
}

impl Bystander {
    async fn new(server: &Server) -> Self {
        let mut wire = Wire::open(server).await;
        wire.connect().await;
        let poller = Poller::open(server).await;
        poller.connect().await;
        let mut slow = Wire::open(server).await;
        slow.connect().await;
        slow.send_raw(&text_frame(100_000, r#"427["echo",""#)).await;
        slow.send_raw(&vec![b'x'; 50_000]).await;
        Self { wire, slow, poller }
    }

    async fn is_served(&mut self) {
        assert_eq!(self.wire.call(0, &json!(["echo", 1])).await, json!([1]));
        assert_eq!(self.poller.call(0, &json!(["echo", 1])).await, json!([1]));
    }

    async fn finishes(mut self) {
        self.is_served().await;
        let rest = 100_000 - 50_000 - r#"427["echo",""#.len() - r#""]"#.len();
        self.slow.send_raw(&vec![b'x'; rest]).await;
        self.slow.send_raw(br#""]"#).await;
        let ack = self.slow.data().await;
        assert!(ack.starts_with(r#"437["xxx"#), "{}", &ack[..20]);
    }
}

async fn assert_bounded(server: &Server, before: usize) {
    let grown = resident(server).await.saturating_sub(before);
    eprintln!("{grown} bytes more");
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
    server
        .metric_when("gw_limits_reached_total", "limit=\"buffers\"", |n| n > 0.0)
        .await;
    let held = server.metric("gw_buffers_bytes{", "").await;
    assert!(held > 0.0 && held <= BUDGET as f64, "{held} bytes are held");
}

#[tokio::test]
async fn messages_that_are_never_finished_stay_within_the_budget() {
    let server = server().await;
    let mut bystander = Bystander::new(&server).await;
    let before = resident(&server).await;
    let mut attackers = Vec::new();
    for _ in 0..ATTACKERS {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        wire.send_raw(&text_frame(999_000, "42")).await;
        wire.send_raw(&vec![b'x'; PART]).await;
        attackers.push(wire);
        bystander.is_served().await;
    }
    assert_bounded(&server, before).await;
    assert_eq!(attackers[0].end().await, Some(1013));
    server
        .metric_when("gw_disconnects_total", "reason=\"over_budget\"", |n| n > 0.0)
        .await;
    bystander.finishes().await;
}

#[tokio::test]
async fn bodies_that_are_never_finished_stay_within_the_budget() {
    let server = server().await;
    let mut bystander = Bystander::new(&server).await;
    let before = resident(&server).await;
    let mut attackers = Vec::new();
    for _ in 0..ATTACKERS {
        let poller = Poller::open(&server).await;
        poller.connect().await;
        let head = Request::new("POST", &poller.target()).header("Content-Length", "999000");
        let mut link = Link::open(server.addr).await.expect("connect");
        link.send(&head.bytes(server.addr)).await.expect("send");
        // It may have been refused already.
        drop(link.send(&vec![b'x'; PART]).await);
        attackers.push((poller, link));
        bystander.is_served().await;
    }
    assert_bounded(&server, before).await;
    let (poller, mut link) = attackers.swap_remove(0);
    // The rest is read and forgotten before the answer.
    link.send(&vec![b'x'; 999_000 - PART]).await.expect("send");
    let reply = soon("the answer", link.reply(false)).await.expect("an answer");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    poller.assert_gone().await;
    bystander.finishes().await;
}

/// A WebSocket that receives as little as the system allows.
async fn not_reading(server: &Server) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream: TcpStream = soon("connect", socket.connect(server.addr)).await.expect("connect");
    let target = "/socket.io/?EIO=4&transport=websocket";
    let mut wire = Wire::dial_on(stream, server.addr, target, &[])
        .await
        .expect("a WebSocket");
    assert!(wire.text().await.starts_with("0{"));
    wire.connect().await;
    wire
}

#[tokio::test]
async fn what_is_never_read_stays_within_the_budget() {
    let server = server().await;
    let mut bystander = Bystander::new(&server).await;
    let mut reader = Wire::open(&server).await;
    reader.connect().await;
    assert_eq!(reader.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut wires = Vec::new();
    for _ in 0..NOT_READING {
        let mut wire = not_reading(&server).await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        wires.push(wire);
    }
    let before = resident(&server).await;
    let payload = "x".repeat(90_000);
    for id in 0..EVENTS {
        let ack = bystander.wire.call(id, &json!(["publish", "room", payload])).await;
        assert_eq!(ack, json!(["ok"]));
        assert!(reader.data().await.starts_with(r#"42["message","xxx"#));
        bystander.is_served().await;
    }
    assert_bounded(&server, before).await;
    server
        .metric_when("gw_disconnects_total", "reason=\"over_budget\"", |n| n > 0.0)
        .await;
    bystander.finishes().await;
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
