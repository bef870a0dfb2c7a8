//! Rooms over all workers, each member in whatever transport: everybody gets everything, once,
//! and all in the same order.

use crate::harness::{Plan, Poller, Server, Wire};
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
    // Nothing comes twice, and nothing to who is not in the room: the next thing is an answer.
    for member in &mut members {
        assert_eq!(member.call(99, &json!(["echo", 1])).await, json!([1]));
    }
    assert_eq!(outsider.call(99, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn who_publishes_need_not_be_a_member() {
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
    assert_eq!(wire.next().await, crate::harness::Frame::Binary(vec![1, 2, 3]));
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
