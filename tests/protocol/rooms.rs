//! Rooms over all workers, each member in whatever transport: everybody gets everything, once,
//! and all in the same order.

use crate::harness::{Plan, Poller, Resp, Server, Wire};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// More than enough to have some on each of four workers.
const MEMBERS: usize = 12;
const MESSAGES_EACH: usize = 10;

/// A member of the room, in either transport.
enum Member {
    Polling(Poller),
    WebSocket(Box<Wire>),
}

impl Member {
    async fn new(server: &Server, number: usize) -> Self {
        if number.is_multiple_of(2) {
            let poller = Poller::open(server).await;
            poller.connect().await;
            Self::Polling(poller)
        } else {
            let mut wire = Wire::open(server).await;
            wire.connect().await;
            Self::WebSocket(Box::new(wire))
        }
    }

    async fn say(&mut self, packet: &str) {
        match self {
            Self::Polling(poller) => poller.say(packet).await,
            Self::WebSocket(wire) => wire.send(packet).await,
        }
    }

    /// The next packets that are not heartbeats.
    async fn next(&mut self) -> Vec<String> {
        match self {
            Self::Polling(poller) => poller.poll_until(|_| true).await,
            Self::WebSocket(wire) => vec![wire.data().await],
        }
    }

    async fn call(&mut self, id: u64, event: &Value) -> Value {
        match self {
            Self::Polling(poller) => poller.call(id, event).await,
            Self::WebSocket(wire) => wire.call(id, event).await,
        }
    }
}

/// What a member saw: messages in order, and acks by id.
#[derive(Default)]
struct Seen {
    messages: Vec<Value>,
    acks: BTreeMap<String, String>,
}

impl Seen {
    fn take(&mut self, packet: &str) {
        if let Some(ack) = packet.strip_prefix("43") {
            let (id, args) = ack.split_at(ack.find('[').expect("an ack"));
            let twice = self.acks.insert(id.to_owned(), args.to_owned());
            assert_eq!(twice, None, "acked twice: {packet}");
            return;
        }
        let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
        assert_eq!(event[0], "message", "{packet}");
        self.messages.push(event[1].clone());
    }
}

#[tokio::test]
async fn everybody_sees_the_same_once_and_in_one_order() {
    let server = Plan::new().start().await;
    let mut members = join_all((0..MEMBERS).map(|number| Member::new(&server, number))).await;
    for member in &mut members {
        assert_eq!(member.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    }
    let mut outsider = Member::new(&server, 1).await;
    let all = MEMBERS * MESSAGES_EACH;
    let one = async |(number, mut member): (usize, Member)| {
        let mut seen = Seen::default();
        for message in 1..=MESSAGES_EACH {
            member
                .say(&format!(
                    r#"42{message}["publish","room",{{"from":{number},"n":{message}}}]"#
                ))
                .await;
        }
        while seen.messages.len() < all || seen.acks.len() < MESSAGES_EACH {
            for packet in member.next().await {
                seen.take(&packet);
            }
        }
        assert!(seen.acks.values().all(|ack| ack == r#"["ok"]"#), "{:?}", seen.acks);
        (member, seen.messages)
    };
    let done = join_all(members.into_iter().enumerate().map(one)).await;
    let (mut members, orders): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    for (number, order) in orders.iter().enumerate() {
        assert_eq!(order, &orders[0], "member {number} saw another order than member 0");
    }
    for from in 0..MEMBERS {
        let of_one = orders[0].iter().filter(|message| message["from"] == from);
        let numbers: Vec<usize> = of_one
            .filter_map(|message| usize::try_from(message["n"].as_u64()?).ok())
            .collect();
        assert_eq!(numbers, (1..=MESSAGES_EACH).collect::<Vec<_>>(), "from {from}");
    }
    // Nothing comes twice, and nothing to a client that is not in the room: the next thing is an answer.
    for member in &mut members {
        assert_eq!(member.call(99, &json!(["echo", 1])).await, json!([1]));
    }
    assert_eq!(outsider.call(99, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn a_publisher_need_not_be_a_member() {
    let server = Plan::new().start().await;
    let mut members = join_all((0..4).map(|number| Member::new(&server, number))).await;
    for member in &mut members {
        assert_eq!(member.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        // Twice is as good as once.
        assert_eq!(member.call(1, &json!(["join", "room"])).await, json!(["ok"]));
    }
    let mut publisher = Member::new(&server, 1).await;
    assert_eq!(publisher.call(0, &json!(["publish", "room", "x"])).await, json!(["ok"]));
    assert_eq!(
        publisher.call(1, &json!(["publish", "empty room", "x"])).await,
        json!(["ok"])
    );
    for member in &mut members {
        let packets = member.next().await;
        assert_eq!(packets.len(), 1, "{packets:?}");
        assert!(packets[0].starts_with(r#"42["message","x""#), "{packets:?}");
        assert_eq!(member.call(2, &json!(["leave", "room"])).await, json!(["ok"]));
    }
    assert_eq!(publisher.call(2, &json!(["publish", "room", "y"])).await, json!(["ok"]));
    for member in &mut members {
        assert_eq!(member.call(3, &json!(["echo", 1])).await, json!([1]));
    }
}

#[tokio::test]
async fn namespaces_have_rooms_of_their_own() {
    let server = Plan::new()
        .with("socket = { namespaces = ['/', '/custom'] }")
        .start()
        .await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    wire.send("40/custom,").await;
    wire.data().await;
    assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut other = Wire::open(&server).await;
    other.send("40/custom,").await;
    other.data().await;
    other.send(r#"42/custom,1["publish","room","elsewhere"]"#).await;
    assert_eq!(other.data().await, r#"43/custom,1["ok"]"#);
    assert_eq!(wire.call(1, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn binary_reaches_a_room() {
    let server = Plan::new().start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    poller
        .say(format!(
            "451-5[\"publish\",\"room\",{{\"file\":{placeholder}}}]\x1ebAQID"
        ))
        .await;
    let head = format!(r#"451-["message",{{"file":{placeholder}}}"#);
    let mut packets = Vec::new();
    while packets.len() < 3 {
        packets.extend(poller.poll().await);
    }
    let at = packets.iter().position(|packet| packet.starts_with(&head));
    let at = at.unwrap_or_else(|| panic!("{packets:?}"));
    assert_eq!(packets[at + 1], "bAQID");
    assert!(packets.contains(&r#"435["ok"]"#.to_owned()), "{packets:?}");
    assert!(wire.data().await.starts_with(&head));
    assert_eq!(wire.next().await, harness::Frame::Binary(vec![1, 2, 3]));
}

#[tokio::test]
async fn a_socket_joins_only_so_many_rooms() {
    let server = Plan::new()
        .with("socket = { rooms_max = 3, room_bytes_max = 8 }")
        .start()
        .await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    for number in 0..3 {
        assert_eq!(
            wire.call(number, &json!(["join", format!("r{number}")])).await,
            json!(["ok"])
        );
    }
    assert!(wire.call(4, &json!(["join", "r4"])).await[0].is_object());
    assert!(
        wire.call(5, &json!(["join", "r1"])).await == json!(["ok"]),
        "a member already"
    );
    assert_eq!(wire.call(6, &json!(["leave", "r1"])).await, json!(["ok"]));
    assert!(wire.call(7, &json!(["join", "far too long"])).await[0].is_object());
    assert_eq!(wire.call(8, &json!(["join", "r4"])).await, json!(["ok"]));
}

/// Frames of a client, to be sent in one go: texts, masked with zeros.
fn frames(texts: impl IntoIterator<Item = String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
        bytes.extend([0x81, 0x80 | length.expect("a short text"), 0, 0, 0, 0]);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// How often Redis has written a string: a record of a session, mostly.
async fn writes(server: &Server) -> u64 {
    let Resp::Text(text) = server.redis().command(&["INFO", "commandstats"]).await else {
        panic!("no statistics");
    };
    let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// A client that joins and leaves as fast as it can write costs Redis no record for each.
#[tokio::test]
async fn changes_of_rooms_that_come_together_are_stored_together() {
    const ROOMS: usize = 128;
    const TOGGLES: usize = 400;
    let server = Plan::new().start().await;
    let mut wire = Wire::open(&server).await;
    let socket = wire.connect().await["sid"].clone();
    let before = writes(&server).await;
    let joins = (0..ROOMS).map(|room| format!(r#"42{room}["join","r{room}"]"#));
    let toggles = (0..TOGGLES).map(|at| {
        let event = if at % 2 == 0 { "leave" } else { "join" };
        format!(r#"42{}["{event}","r0"]"#, ROOMS + at)
    });
    let last = ROOMS + TOGGLES;
    let one_too_many = format!(r#"42{last}["join","one too many"]"#);
    let echo = format!(r#"42{}["echo","after"]"#, last + 1);
    wire.send_raw(&frames(joins.chain(toggles).chain([one_too_many, echo])))
        .await;
    for id in 0..last {
        assert_eq!(wire.data().await, format!(r#"43{id}["ok"]"#));
    }
    let refused = wire.data().await;
    assert!(refused.starts_with(&format!(r#"43{last}[{{"error":"#)), "{refused}");
    assert_eq!(wire.data().await, format!(r#"43{}["after"]"#, last + 1));
    let written = writes(&server).await - before;
    assert!(written < 40, "{written} writes");
    // What is acked is stored.
    let socket = socket.as_str().expect("a sid").to_owned();
    let output = server.cli("sessions", &["show", &socket, "--json"]).await;
    let session: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rooms = session["namespaces"]["/"]["rooms"]
        .as_object()
        .map(serde_json::Map::len);
    assert_eq!(rooms, Some(ROOMS), "{session}");
}

/// What is read behind a change of rooms comes after it, an end too.
#[tokio::test]
async fn a_room_is_acked_before_what_came_behind_it() {
    let server = Plan::new().start().await;
    for (behind, after) in [
        (r#"42["unknown"]"#.to_owned(), None),
        (r#"422["echo",1]"#.to_owned(), Some(r"432[1]")),
        (r#"42["publish","room","x"]"#.to_owned(), Some(r#"42["message","x"]"#)),
        (r#"422["join","other"]"#.to_owned(), Some(r#"432["ok"]"#)),
    ] {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        wire.send_raw(&frames([r#"421["join","room"]"#.to_owned(), behind.clone()]))
            .await;
        assert_eq!(wire.data().await, r#"431["ok"]"#, "{behind}");
        if let Some(after) = after {
            // An event may carry its offset behind.
            let got = wire.data().await;
            assert!(got.starts_with(after.trim_end_matches(']')), "{got}");
        }
    }
    // A close frame, and a packet against the protocol.
    for behind in [vec![0x88, 0x82, 0, 0, 0, 0, 3, 232], frames(["49".to_owned()])] {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        let mut bytes = frames([r#"421["join","room"]"#.to_owned()]);
        bytes.extend(&behind);
        wire.send_raw(&bytes).await;
        assert_eq!(wire.data().await, r#"431["ok"]"#, "{behind:?}");
        wire.end().await;
    }
}
