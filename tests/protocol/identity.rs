//! Users, and the ids of sockets: what a client that knows another one's ids gets.

use crate::harness::{Plan, Poller, Server, Wire, until};
use serde_json::{Value, json};

/// Marks a client's own ids in its requests.
const PROOF: u64 = 77;

/// A client, in either transport.
enum Client {
    Polling(Poller),
    WebSocket(Box<Wire>),
}

impl Client {
    async fn open(server: &Server, polling: bool) -> Self {
        if polling {
            Self::Polling(Poller::open(server).await)
        } else {
            Self::WebSocket(Box::new(Wire::open(server).await))
        }
    }

    /// Sends a packet; all packets up to the first that satisfies `last`.
    async fn ask(&mut self, packet: &str, last: impl Fn(&str) -> bool) -> Vec<String> {
        match self {
            Self::Polling(poller) => {
                poller.say(packet).await;
                poller.poll_until(last).await
            }
            Self::WebSocket(wire) => {
                wire.send(packet).await;
                let mut all = vec![wire.data().await];
                while !all.last().is_some_and(|packet| last(packet)) {
                    all.push(wire.data().await);
                }
                all
            }
        }
    }

    /// The answer to CONNECT, and what came before and with it.
    async fn connect(&mut self, nsp: &str, auth: &Value) -> (Value, Vec<String>) {
        let prefix = if nsp == "/" { String::new() } else { format!("{nsp},") };
        let (good, bad) = (format!("40{prefix}"), format!("44{prefix}"));
        let is_answer = |packet: &str| packet.starts_with(&good) || packet.starts_with(&bad);
        let mut packets = self.ask(&format!("{good}{auth}"), is_answer).await;
        let at = packets.iter().position(|packet| is_answer(packet)).expect("an answer");
        let answer = packets.remove(at);
        let answer = serde_json::from_str(&answer[2 + prefix.len()..]).expect("JSON");
        (answer, packets)
    }

    /// The ack of an event, and what came before and with it.
    async fn call(&mut self, event: &Value) -> (Value, Vec<String>) {
        let head = format!("43{PROOF}[");
        let mut packets = self
            .ask(&format!("42{PROOF}{event}"), |packet| packet.starts_with(&head))
            .await;
        let at = packets
            .iter()
            .position(|packet| packet.starts_with(&head))
            .expect("an ack");
        let ack = packets.remove(at);
        (serde_json::from_str(&ack[head.len() - 1..]).expect("JSON"), packets)
    }

    /// All events up to one that it publishes to itself now: the log has one order.
    async fn events(&mut self) -> Vec<String> {
        let mut events = self.call(&json!(["join", "mark"])).await.1;
        let is_mark = |packet: &str| packet.starts_with(r#"42["message","mark""#);
        events.extend(self.ask(r#"42["publish","mark","mark"]"#, is_mark).await);
        events.retain(|packet| !is_mark(packet));
        self.call(&json!(["leave", "mark"])).await;
        events
    }

    /// Its connection breaks.
    fn lose(self) {
        drop(self);
    }
}

async fn server() -> Server {
    let toml = "socket = { namespaces = ['/', '/lax', '/open'] }\nrecovery = { offsets = 'always' }\nlogging = { connections = true }";
    Plan::new().with(toml).start().await
}

async fn publish(server: &Server, room: &str, payload: &str) {
    let mut publisher = Wire::open(server).await;
    publisher.connect().await;
    let ack = publisher.call(0, &json!(["publish", room, payload])).await;
    assert_eq!(ack, json!(["ok"]));
}

/// What operators see of the session with this socket, once it is so.
async fn shown(server: &Server, socket: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until("a session as expected", async || {
        let output = server.cli("sessions", &["show", socket, "--json"]).await;
        let session: Value = serde_json::from_slice(&output.stdout).ok()?;
        wanted(&session).then_some(session)
    })
    .await
}

#[tokio::test]
async fn a_recovery_id_is_of_no_use_to_another_user() {
    let server = server().await;
    for polling in [false, true] {
        let alice = json!({ "user": "alice" });
        let mut client = Client::open(&server, polling).await;
        let (first, _) = client.connect("/", &alice).await;
        assert_eq!(client.call(&json!(["join", "room"])).await.0, json!(["ok"]));
        client.lose();
        publish(&server, "room", "for alice").await;
        // As another user, or without one, in either transport: it is let in, as a new client.
        for (user, by_polling) in [
            (json!("mallory"), true),
            (json!("mallory"), false),
            (Value::Null, polling),
            (json!(""), false),
        ] {
            let mut mallory = Client::open(&server, by_polling).await;
            let auth = json!({ "user": user, "pid": first["pid"] });
            let (answer, missed) = mallory.connect("/", &auth).await;
            assert!(
                answer["sid"].is_string() && answer["sid"] != first["sid"],
                "{user}: {answer}"
            );
            assert_ne!(answer["pid"], first["pid"], "{user}");
            assert_eq!(missed, Vec::<String>::new(), "{user}");
            // Not in the room either.
            publish(&server, "room", "for alice too").await;
            assert_eq!(mallory.events().await, Vec::<String>::new(), "{user}");
        }
        server.logged("it is another user's").await;
        // The session is as it was.
        let mut client = Client::open(&server, polling).await;
        let auth = json!({ "user": "alice", "pid": first["pid"] });
        let (answer, mut missed) = client.connect("/", &auth).await;
        assert_eq!((&answer["sid"], &answer["pid"]), (&first["sid"], &first["pid"]));
        missed.extend(client.events().await);
        let count = |text: &str| missed.iter().filter(|packet| packet.contains(text)).count();
        assert_eq!((count(r#""for alice""#), count("for alice too")), (1, 4), "{missed:?}");
    }
}

#[tokio::test]
async fn a_connected_session_is_not_taken_by_another_user() {
    let server = server().await;
    let mut alice = Client::open(&server, false).await;
    let (first, _) = alice.connect("/", &json!({ "user": "alice" })).await;
    let mut mallory = Client::open(&server, true).await;
    let auth = json!({ "user": "mallory", "pid": first["pid"] });
    let (answer, _) = mallory.connect("/", &auth).await;
    assert_ne!(answer["sid"], first["sid"]);
    // Her connection is neither closed nor told anything.
    assert_eq!(alice.call(&json!(["echo", 1])).await, (json!([1]), vec![]));
}

#[tokio::test]
async fn a_name_counts_in_its_namespace_alone() {
    let server = server().await;
    for polling in [false, true] {
        let mut client = Client::open(&server, polling).await;
        let (first, _) = client.connect("/", &json!({ "user": "alice" })).await;
        client.connect("/lax", &json!({ "user": "root" })).await;
        client.connect("/open", &json!({})).await;
        let socket = first["sid"].as_str().expect("a sid");
        let session = shown(&server, socket, |session| session["namespaces"]["/open"].is_object()).await;
        let who = |nsp: &str| session["namespaces"][nsp]["who"].clone();
        assert_eq!(
            (who("/"), who("/lax"), who("/open")),
            (json!("alice"), json!("root"), Value::Null)
        );
        assert_eq!(session["who"], "alice,root");
        // Each is resumed as the user of its namespace, and not as that of another.
        client.lose();
        let mut client = Client::open(&server, polling).await;
        let as_root = json!({ "user": "root", "pid": first["pid"] });
        assert_ne!(client.connect("/", &as_root).await.0["sid"], first["sid"]);
        let mut client = Client::open(&server, polling).await;
        let as_alice = json!({ "user": "alice", "pid": first["pid"] });
        assert_eq!(client.connect("/", &as_alice).await.0["sid"], first["sid"]);
    }
}

#[tokio::test]
async fn a_long_name_is_refused() {
    let server = server().await;
    for polling in [false, true] {
        let mut client = Client::open(&server, polling).await;
        let long = json!({ "user": "u".repeat(10_000) });
        let (answer, _) = client.connect("/", &long).await;
        assert_eq!(
            answer,
            json!({ "message": "the name of the user must not be longer than 256 bytes" })
        );
        // With a shorter one it gets in, over the same connection.
        let (answer, _) = client.connect("/", &json!({ "user": "u".repeat(256) })).await;
        assert!(answer["sid"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn what_is_sent_to_a_socket_is_heard_by_it_alone() {
    let server = server().await;
    for polling in [false, true] {
        let mut alice = Client::open(&server, polling).await;
        let (first, _) = alice.connect("/", &json!({})).await;
        let mut mallory = Client::open(&server, !polling).await;
        mallory.connect("/", &json!({})).await;
        let (ack, _) = mallory.call(&json!(["join", first["sid"]])).await;
        assert_eq!(ack, json!([{ "error": "the id of another socket cannot be joined" }]));
        let sid = first["sid"].as_str().expect("a sid");
        publish(&server, sid, "for alice").await;
        assert_eq!(mallory.events().await, Vec::<String>::new());
        let got = alice.events().await;
        assert!(
            matches!(&got[..], [one] if one.starts_with(r#"42["message","for alice""#)),
            "{got:?}"
        );
        // Its own it may join; nothing comes twice for that.
        assert_eq!(alice.call(&json!(["join", sid])).await.0, json!(["ok"]));
        publish(&server, sid, "once").await;
        assert_eq!(alice.events().await.len(), 1);
    }
}
