//! Socket.IO v5: connecting, events, acks, binary, and what closes a client.

use crate::harness::{Frame, Plan, Poller, Server, Wire, ms, pass, until, within};
use serde_json::{Value, json};

async fn server() -> Server {
    Plan::new()
        .with("socket = { namespaces = ['/', '/custom', '/third'] }")
        .start()
        .await
}

#[tokio::test]
async fn each_namespace_has_a_sid_of_its_own() {
    let server = server().await;
    let poller = Poller::open(&server).await;
    poller
        .say("40\x1e40/custom,\x1e40/nowhere,{\"a\":1}\x1e40/third,{\"token\":\"123\"}")
        .await;
    let mut answers = Vec::new();
    while answers.len() < 4 {
        answers.extend(poller.poll().await);
    }
    answers.sort();
    let sid = |answer: &str, head: &str| {
        let body: Value = serde_json::from_str(answer.strip_prefix(head).expect(head)).expect("JSON");
        body["sid"].as_str().expect("a sid").to_owned()
    };
    let mut sids = vec![
        sid(&answers[2], "40"),
        sid(&answers[0], "40/custom,"),
        sid(&answers[1], "40/third,"),
        poller.sid.clone(),
    ];
    assert_eq!(answers[3], r#"44/nowhere,{"message":"Invalid namespace"}"#);
    sids.sort();
    sids.dedup();
    assert_eq!(sids.len(), 4, "{sids:?}");
}

/// Names that no namespace can have are refused, and the connection goes on, also where any namespace exists. (The
/// reference server has no limit of the length.)
#[tokio::test]
async fn a_name_that_no_namespace_can_have_is_refused() {
    let server = Plan::new().with("socket = { namespaces = ['*'] }").start().await;
    let poller = Poller::open(&server).await;
    // What comes before the first namespace is short.
    poller.say("40/x,").await;
    poller.poll_until(|packet| packet.starts_with("40/x,")).await;
    let mut wire = Wire::open(&server).await;
    wire.send(&format!("40/{},", "n".repeat(255))).await;
    assert!(wire.data().await.starts_with("40/nnn"));
    for name in [
        "n".repeat(256),
        "n".repeat(300),
        "n".repeat(100_000),
        "ž".repeat(128),
        "a\tb".to_owned(),
    ] {
        let answer = format!("44/{name},{{\"message\":\"Invalid namespace\"}}");
        for packet in [
            format!("40/{name},"),
            format!("40/{name}"),
            format!("40/{name},{{\"token\":1}}"),
        ] {
            wire.send(&packet).await;
            assert_eq!(wire.data().await, answer);
            poller.say(packet).await;
            assert_eq!(poller.poll().await, [answer.as_str()]);
        }
    }
    poller.connect().await;
    assert_eq!(poller.call(1, &json!(["echo", 1])).await, json!([1]));
    // What is said in such a namespace closes the connection, as in any other that is not joined.
    wire.send(&format!("42/{},[\"echo\"]", "n".repeat(300))).await;
    assert_eq!(wire.next().await, Frame::Close(None));
}

#[tokio::test]
async fn one_namespace_too_many_is_refused() {
    let server = Plan::new()
        .with("socket = { namespaces = ['*'], namespaces_max = 2 }")
        .start()
        .await;
    let mut wire = Wire::open(&server).await;
    for name in ["/a", "/b"] {
        wire.send(&format!("40{name},")).await;
        assert!(wire.data().await.starts_with(&format!("40{name},")));
    }
    wire.send("40/c,").await;
    assert_eq!(wire.data().await, r#"44/c,{"message":"Too many namespaces"}"#);
    wire.send("41/a,").await;
    wire.send("40/c,").await;
    assert!(wire.data().await.starts_with("40/c,"));
}

/// The id comes back digit for digit. The reference server makes a JavaScript number of it: 2^53 + 1 comes back as 2^53
/// there, and what is larger than 10^21 as a text that no client reads.
#[tokio::test]
async fn ids_of_acks_come_back_as_they_are() {
    let server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let mut wire = Wire::open(&server).await;
    wire.send("40").await;
    assert!(wire.data().await.starts_with("40{"));
    for id in [
        "0",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "340282366920938463463374607431768211455",
    ] {
        for event in [r#"["echo",1]"#, r#"["publish","room",1]"#] {
            wire.send(&format!("42{id}{event}")).await;
            let ack = wire.data().await;
            assert!(ack.starts_with(&format!("43{id}[")), "{ack}");
            poller.say(format!("42{id}{event}")).await;
            let packets = poller.poll().await;
            assert!(packets[0].starts_with(&format!("43{id}[")), "{packets:?}");
        }
        // An ack that no call waits for.
        wire.send(&format!("43{id}[]")).await;
    }
    wire.send(&format!(r#"42{}["echo",1]"#, "9".repeat(39))).await;
    assert_eq!(wire.next().await, Frame::Close(None));
}

/// The client shuts down its direction, and is answered as long as it reads. (The reference server answers what it can
/// answer at once.)
#[tokio::test]
async fn an_event_followed_by_a_half_close_has_its_ack() {
    let server = Plan::new().with("socket = { namespaces = ['*'] }").start().await;
    for round in 0..8 {
        for (event, ack) in [
            (r#"421["echo",1]"#, "431["),
            (r#"422["publish","room",1]"#, "432["),
            ("40/late,", "40/late,"),
        ] {
            let mut wire = Wire::open(&server).await;
            wire.send("40").await;
            assert!(wire.data().await.starts_with("40{"));
            wire.send(event).await;
            wire.finish_sending().await;
            let answer = wire.data().await;
            assert!(answer.starts_with(ack), "round {round}: {answer}");
            assert_eq!(wire.next().await, Frame::Gone, "round {round}");
        }
    }
}

#[tokio::test]
async fn names_of_namespaces_are_taken_as_they_are() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    for (packet, answer) in [
        ("40/custom?x=1,", r#"44/custom?x=1,{"message":"Invalid namespace"}"#),
        ("40/Custom,", r#"44/Custom,{"message":"Invalid namespace"}"#),
        ("40/custom/,", r#"44/custom/,{"message":"Invalid namespace"}"#),
        ("40/nowhere", r#"44/nowhere,{"message":"Invalid namespace"}"#),
        ("40//,", r#"44//,{"message":"Invalid namespace"}"#),
        ("40/ž🐎,", r#"44/ž🐎,{"message":"Invalid namespace"}"#),
        ("40/a\tb\0,", "44/a\tb\0,{\"message\":\"Invalid namespace\"}"),
    ] {
        wire.send(packet).await;
        assert_eq!(wire.data().await, answer);
    }
    // Without the comma it is the same namespace.
    wire.send("40/custom").await;
    assert!(wire.data().await.starts_with(r#"40/custom,{"sid":""#));
    wire.send(r#"42/custom,1["echo",1]"#).await;
    assert_eq!(wire.data().await, "43/custom,1[1]");
}

#[tokio::test]
async fn any_namespace_where_the_configuration_says_so() {
    let server = Plan::new().with("socket = { namespaces = ['*'] }").start().await;
    let mut wire = Wire::open(&server).await;
    for name in ["/a", "/b/c", "/"] {
        wire.send(&format!("40{name},")).await;
        let head = if name == "/" {
            "40{".to_owned()
        } else {
            format!("40{name},{{")
        };
        let answer = wire.data().await;
        assert!(answer.starts_with(&head), "{answer}");
    }
}

#[tokio::test]
async fn acks_carry_what_came() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    for (packet, ack) in [
        (
            r#"420["echo",1,"2",{"3":[true,null]}]"#,
            r#"430[1,"2",{"3":[true,null]}]"#,
        ),
        (r#"42456["echo"]"#, "43456[]"),
        (r#"429007199254740991["echo","last"]"#, r#"439007199254740991["last"]"#),
        (r#"450-7["echo",1]"#, "437[1]"),
        (r#"421["echo","\ud83d\ude00 \u0000"]"#, r#"431["😀 \u0000"]"#),
    ] {
        wire.send(packet).await;
        let answer = wire.data().await;
        let split = |text: &str| {
            let at = text.find('[').expect("an array");
            let value: Value = serde_json::from_str(&text[at..]).expect("JSON");
            (text[..at].to_owned(), value)
        };
        assert_eq!(split(&answer), split(ack), "{packet}");
    }
}

#[tokio::test]
async fn binary_over_websocket() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    wire.send("40/custom,").await;
    wire.data().await;
    for (head, answer) in [("45", "46"), ("45", "46")]
        .iter()
        .zip(["", "/custom,"])
        .map(|((a, b), nsp)| {
            let ph = r#"{"_placeholder":true,"num":0},{"deep":[{"_placeholder":true,"num":1}]}"#;
            (format!(r#"{a}2-{nsp}12["echo",{ph}]"#), format!("{b}2-{nsp}12[{ph}]"))
        })
    {
        wire.send(&head).await;
        wire.send_binary(&[1, 2, 3]).await;
        wire.send_binary(&[]).await;
        assert_eq!(wire.data().await, answer);
        assert_eq!(wire.next().await, Frame::Binary(vec![1, 2, 3]));
        assert_eq!(wire.next().await, Frame::Binary(vec![]));
    }
}

#[tokio::test]
async fn binary_over_polling() {
    let server = server().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let ph = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    // In one POST, and in one POST for each packet, which may meet one worker each.
    for bodies in [
        &[format!("452-7[\"echo\",{ph}]\x1ebAQID\x1ebBAUG")][..],
        &[format!("452-7[\"echo\",{ph}]"), "bAQID".to_owned(), "bBAUG".to_owned()],
    ] {
        for body in bodies {
            poller.say(body.clone()).await;
        }
        let mut answer = Vec::new();
        while answer.len() < 3 {
            answer.extend(poller.poll().await);
        }
        assert_eq!(answer, [format!("462-7[{ph}]"), "bAQID".to_owned(), "bBAUG".to_owned()]);
    }
}

/// Packets that close a client that has joined `/`, and nothing else. `b` is a binary message.
const VIOLATIONS: &[&[&str]] = &[
    &["40"],
    &["40/custom,", "40/custom,"],
    &["41", r#"42["echo",1]"#],
    &[r#"42/custom,["echo",1]"#],
    &[r#"44{"message":"x"}"#],
    &["40/custom,[1]"],
    &["40/custom,\"x\""],
    &["47"],
    &["4"],
    &["4x"],
    &["42"],
    &["42{}"],
    &["42[]"],
    &["42[null]"],
    &["42[{}]"],
    &["421"],
    &[r#"42["echo",1"#],
    &[r#"42["echo",1]x"#],
    &[r#"42["echo",01]"#],
    &["421{\"a\":1}"],
    &["43[1]"],
    &["431{}"],
    &["41{}"],
    &[r#"42["connect"]"#],
    &[r#"42["connect_error"]"#],
    &[r#"42["disconnect"]"#],
    &[r#"42["disconnecting"]"#],
    &[r#"42["newListener"]"#],
    &[r#"42["removeListener"]"#],
    &[r#"45["echo",{"_placeholder":true,"num":0}]"#],
    &[r#"451["echo",{"_placeholder":true,"num":0}]"#],
    &[r#"45-1-["echo",{"_placeholder":true,"num":0}]"#],
    &[r#"451-["echo",{"_placeholder":true,"num":0}]"#, r#"42["echo",1]"#],
    &[r#"451-["echo",{"_placeholder":true,"num":1}]"#, "bAQID"],
    &[r#"451-["echo",{"_placeholder":true,"num":-1}]"#, "bAQID"],
    &[r#"451-["echo",{"_placeholder":true,"num":"0"}]"#, "bAQID"],
    &["bAQID"],
    &[r#"451-["echo",{"_placeholder":true,"num":0}]"#, "bAQID", "bAQID"],
    &[r#"4511-["echo",1]"#],
    &[r#"45999999999999999999999-["echo",1]"#],
];

#[tokio::test]
async fn violations_close_a_websocket() {
    let server = server().await;
    let mut bystander = Wire::open(&server).await;
    bystander.connect().await;
    for packets in VIOLATIONS {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        for packet in *packets {
            if *packet == "bAQID" {
                wire.send_binary(&[1, 2, 3]).await;
            } else {
                wire.send(packet).await;
            }
        }
        // Answers to what came before the violation are in order.
        let code = loop {
            match wire.next().await {
                Frame::Text(_) | Frame::Binary(_) => (),
                Frame::Close(code) => break code,
                Frame::Gone => panic!("{packets:?}: cut without a close frame"),
            }
        };
        assert_eq!(code, None, "{packets:?}");
    }
    assert_eq!(bystander.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn violations_close_a_polling_session() {
    let server = server().await;
    let bystander = Poller::open(&server).await;
    bystander.connect().await;
    for packets in VIOLATIONS {
        let poller = Poller::open(&server).await;
        poller.connect().await;
        let posted = poller.post(packets.join("\x1e")).await;
        assert!(
            matches!(posted.pair(), (200, "ok") | (400, _)),
            "{packets:?}: {posted:?}"
        );
        let last = poller.get().await;
        assert_eq!(last.status, 200, "{packets:?}: {last:?}");
        assert_eq!(
            last.text().split('\x1e').next_back(),
            Some("1"),
            "{packets:?}: {last:?}"
        );
        poller.assert_gone().await;
    }
    assert_eq!(bystander.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn an_event_before_connect_closes() {
    let server = server().await;
    for packet in [r#"42["echo",1]"#, r#"420["echo",1]"#, "41", "430[]", "bAQID"] {
        let mut wire = Wire::open(&server).await;
        wire.send(packet).await;
        let code = within(ms(5000), packet, wire.end()).await;
        assert_eq!(code, None, "{packet}");
        let poller = Poller::open(&server).await;
        poller.post(packet).await;
        let last = poller.get().await;
        assert_eq!(last.text().split('\x1e').next_back(), Some("1"), "{packet}: {last:?}");
        poller.assert_gone().await;
    }
}

#[tokio::test]
async fn harmless_packets_do_no_harm() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    for packet in [
        "4399[]",
        "4399[1,2]",
        "42[5,1]",
        r#"42["no-such-event",1]"#,
        r#"42["join"]"#,
        r#"42["join",{"not":"a room"}]"#,
        r#"42["publish"]"#,
        r#"42["publish",null,1]"#,
        r#"42["__proto__",1]"#,
    ] {
        wire.send(packet).await;
        assert_eq!(wire.call(3, &json!(["echo", packet])).await, json!([packet]));
    }
}

#[tokio::test]
async fn wrong_arguments_and_unknown_events_are_acked_with_an_error() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let long = "r".repeat(257);
    for event in [
        json!(["no-such-event", 1]),
        json!(["join"]),
        json!(["join", true]),
        json!(["join", {"a": 1}]),
        json!(["join", long]),
        json!(["leave"]),
        json!(["publish"]),
        json!(["publish", [7], "x"]),
    ] {
        let ack = wire.call(1, &event).await;
        let answer = ack.as_array().and_then(|args| args.first());
        assert!(answer.is_some_and(Value::is_object), "{event}: {ack}");
    }
}

#[tokio::test]
async fn a_client_that_joins_nothing_in_time_is_closed() {
    let server = Plan::new()
        .with("socket = { connect_timeout_ms = 400, namespaces = ['/', '/custom'] }")
        .start()
        .await;
    let mut idle = Wire::open(&server).await;
    let mut refused = Wire::open(&server).await;
    refused.send("40/nowhere,").await;
    assert!(refused.data().await.starts_with("44"));
    let mut joined = Wire::open(&server).await;
    joined.connect().await;
    let mut left = Wire::open(&server).await;
    left.connect().await;
    left.send("41").await;
    let poller = Poller::open(&server).await;
    let polling = Poller::open(&server).await;
    polling.connect().await;
    assert_eq!(idle.end().await, None);
    assert_eq!(refused.end().await, None);
    let reply = poller.get().await;
    assert!(matches!(reply.pair(), (200, "1") | (400, _)), "{reply:?}");
    poller.assert_gone().await;
    pass(ms(500)).await;
    // Once joined, the timer is gone for good.
    assert_eq!(joined.call(0, &json!(["echo", 1])).await, json!([1]));
    assert_eq!(polling.call(0, &json!(["echo", 1])).await, json!([1]));
    left.connect().await;
    assert_eq!(left.call(0, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn a_client_that_only_posts_and_joins_nothing_is_closed_too() {
    let server = Plan::new().with("socket = { connect_timeout_ms = 400 }").start().await;
    let poller = Poller::open(&server).await;
    until("the session has gone", async || {
        let reply = poller.post("3").await;
        (reply.status == 400).then_some(())
    })
    .await;
}

#[tokio::test]
async fn leaving_one_namespace_leaves_the_others() {
    let server = server().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    wire.send("40/custom,").await;
    wire.data().await;
    wire.send("41").await;
    wire.send(r#"42/custom,1["echo",1]"#).await;
    assert_eq!(wire.data().await, "43/custom,1[1]");
    wire.send("41/custom,").await;
    // The connection stays and can be used again.
    let again = wire.connect().await;
    assert!(again["sid"].is_string());
}

#[tokio::test]
async fn event_names_are_what_the_configuration_says() {
    let server = Plan::new()
        .with("app = { events = { join = 'enter', publish = 'say', message = 'said', echo = 'mirror' } }")
        .start()
        .await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    assert_eq!(wire.call(0, &json!(["enter", "r"])).await, json!(["ok"]));
    assert_eq!(wire.call(1, &json!(["mirror", 1])).await, json!([1]));
    assert!(wire.call(2, &json!(["echo", 1])).await[0].is_object());
    wire.send(r#"423["say","r","hi"]"#).await;
    let mut both = [wire.data().await, wire.data().await];
    both.sort();
    assert!(both[0].starts_with(r#"42["said","hi""#), "{both:?}");
    assert_eq!(both[1], r#"433["ok"]"#);
}
