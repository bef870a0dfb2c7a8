//! Bodies of POSTs, each compared with Node's socket.io 4.8.4: what is answered, and what the session's next poll says.
//! Where the reference server does something else, a comment says what, and why we do not.

use crate::harness::{Plan, Poller, Reply, Request, Server, ask, soon};

/// What a body leads to.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// 400, and the session has gone. (The reference server answers `ok`.)
    Broken,
    /// 200, and the next poll closes the session. (The reference server puts a NOOP before that.)
    Closed,
    /// 200, and the session has gone, as after a goodbye.
    Left,
    /// 200, and the next poll says just this.
    Says(&'static str),
    /// 200, and nothing comes of it.
    Nothing,
}
use Outcome::{Broken, Closed, Left, Nothing, Says};

/// Packets that are not Engine.IO, on a session that has joined `/`.
const PACKETS: &[(&[u8], Outcome)] = &[
    (b"", Broken),
    (b"\x1e", Broken),
    (b"421[\"echo\",1]\x1e", Broken),
    (b"\x1e421[\"echo\",1]", Broken),
    (b"421[\"echo\",1]\x1e\x1e422[\"echo\",2]", Broken),
    (b"7", Broken),
    (b"abc", Broken),
    (b"421[\"echo\",1]\x1e7", Broken),
    (b"7\x1e421[\"echo\",1]", Broken),
    (b"421[\"echo\",1]\x1ex\x1e422[\"echo\",2]", Broken),
    (b"2", Broken),
    (b"2probe", Broken),
    (b"\xef\xbb\xbf421[\"echo\",1]", Broken),
    (b"\xff", Broken),
    // Closes the session there too, as a goodbye.
    (b"1x", Broken),
    // Ignored there.
    (b"5x", Broken),
    (b"6x", Broken),
    // There each byte becomes U+FFFD, and the event is another one than was sent.
    (b"421[\"echo\",\"\xff\xfe\"]", Broken),
    (b"421[\"echo\",\"\xc0\x80\"]", Broken),
    (b"0{}", Nothing),
    (b"0\x1e421[\"echo\",1]", Says("431[1]")),
    (b"3", Nothing),
    (b"3\x1e3\x1e3", Nothing),
    (b"3probe", Nothing),
    (b"5", Nothing),
    (b"6", Nothing),
    (b"1", Left),
    (b"1\x1e421[\"echo\",1]", Left),
    (b"421[\"echo\",1]\x1e1", Left),
    (b"41\x1e1", Left),
];

/// Socket.IO packets without attachments, on a session that has joined `/`.
const TEXTS: &[(&[u8], Outcome)] = &[
    (b"4", Closed),
    (b"49", Closed),
    (b"4hello", Closed),
    (b"40", Closed),
    (b"40,", Closed),
    (b"40abc,", Closed),
    (b"41", Nothing),
    (b"41{}", Closed),
    (b"41false", Closed),
    // An id is ignored there.
    (b"415", Closed),
    // There packets of one body are acted on after all have been read, by the namespaces that were joined before: ignored.
    (b"41\x1e41", Closed),
    (b"41\x1e421[\"echo\",1]", Closed),
    (b"421{}", Closed),
    (b"42\"x\"", Closed),
    (b"42[]", Closed),
    (b"421[null]", Closed),
    (b"421[true]", Closed),
    (b"421[{}]", Closed),
    (b"42[\"connect\"]", Closed),
    (b"42[\"disconnect\"]", Closed),
    (b"42[\"echo\"", Closed),
    (b"421[\"echo\"]x", Closed),
    (b"421[\"echo\",NaN]", Closed),
    (b"421[\"echo\",\"\0\"]", Closed),
    (b"421[\"echo\",\"\n\"]", Closed),
    // An event without a name, and an ack without an id, are ignored there.
    (b"42", Closed),
    (b"425", Closed),
    (b"43[]", Closed),
    (b"431{}", Closed),
    (b"43999[]", Nothing),
    (b"4399999999999999999999999[]", Nothing),
    (b"44", Closed),
    (b"44{\"message\":\"x\"}", Closed),
    (b"42/other,1[\"echo\",1]", Closed),
    (b"41/other,", Closed),
    (b"420[\"echo\",1]", Says("430[1]")),
    (b"42007[\"echo\",1]", Says("437[1]")),
    (b"42-1[\"echo\",1]", Closed),
    (b"421e3[\"echo\",1]", Closed),
    // There `43Infinity[1]`, which no client reads.
    (b"429999999999999999999999999999999999999999[\"echo\",1]", Closed),
    // JavaScript takes space (and a byte order mark, which it thinks is one) before a number and before the JSON.
    (b"42 1[\"echo\",1]", Closed),
    (b"421 [\"echo\",1]", Closed),
    (b"421\xef\xbb\xbf[\"echo\",1]", Closed),
    (b"421[\"echo\",1] \n", Says("431[1]")),
    // Nothing listens there, so no ack comes.
    (
        b"427[\"nosuch\",1]",
        Says(r#"437[{"error":"unknown event \"nosuch\""}]"#),
    ),
    (b"421[5,1]", Says(r#"431[{"error":"unknown event \"5\""}]"#)),
    // Values go through a JavaScript parser there: `null`, `1.2345678901234568e+29`, `0`, `1`, `{"a":2}`.
    (b"421[\"echo\",1e400]", Says("431[1e400]")),
    (
        b"421[\"echo\",123456789012345678901234567890]",
        Says("431[123456789012345678901234567890]"),
    ),
    (b"421[\"echo\",-0]", Says("431[-0]")),
    (b"421[\"echo\",1.0]", Says("431[1.0]")),
    (b"421[\"echo\",{\"a\":1,\"a\":2}]", Says(r#"431[{"a":1,"a":2}]"#)),
    (
        b"421[\"echo\",{\"__proto__\":{\"x\":1}}]",
        Says(r#"431[{"__proto__":{"x":1}}]"#),
    ),
    (b"421[\"echo\",\"\\ud800\"]", Says(r#"431["\ud800"]"#)),
    (b"421[\"echo\",\"\\u001e\"]", Says(r#"431["\u001e"]"#)),
    (b"421[\"echo\",\"\xe2\x80\xa8\"]", Says("431[\"\u{2028}\"]")),
    (
        b"421[\"echo\",{\"_placeholder\":true,\"num\":0}]",
        Says(r#"431[{"_placeholder":true,"num":0}]"#),
    ),
];

/// Socket.IO packets with attachments: one body, or several one after the other.
const BINARY: &[(&[&str], Outcome)] = &[
    (&["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID"], ONE),
    (&["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]", "bAQID"], ONE),
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]", "3", "bAQID"],
        ONE,
    ),
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQ\r\nID\r\n"],
        ONE,
    ),
    (&["4501-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID"], ONE),
    (
        &[
            "452-1[\"echo\",{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]\x1ebAQID",
            "b",
        ],
        Says("462-1[{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]\x1ebAQID\x1eb"),
    ),
    (&["461-5[{\"_placeholder\":true,\"num\":0}]\x1ebAQID"], Nothing),
    (&["bAQID"], Closed),
    (&["b"], Closed),
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1e421[\"echo\",1]"],
        Closed,
    ),
    (
        &[
            "452-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID",
            "421[\"echo\",1]",
        ],
        Closed,
    ),
    (&["4511-1[\"echo\"]"], Closed),
    (&["4599999999999999999999-[\"echo\"]"], Closed),
    (&["451[\"echo\"]"], Closed),
    (&["45-[\"echo\"]"], Closed),
    (&["45-1-[\"echo\"]"], Closed),
    (&["451-1[\"echo\",{\"_placeholder\":true,\"num\":1}]\x1ebAQID"], Closed),
    (&["451-1[\"echo\",{\"_placeholder\":true,\"num\":-1}]\x1ebAQID"], Closed),
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":\"0\"}]\x1ebAQID"],
        Closed,
    ),
    // What is no base64 becomes empty there, or whatever its first characters give.
    (&["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1eb!!!!"], Broken),
    (&["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebA"], Broken),
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQ==AQ=="],
        Broken,
    ),
    // `1e0` is a number there, and no count of attachments to anybody else.
    (
        &["451e0-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID"],
        Closed,
    ),
    // Refused there.
    (&["450-1[\"echo\",1]"], Says("431[1]")),
    // The ack is made anew there, of what the placeholders stood for: `431[1]`, and two attachments.
    (&["451-1[\"echo\",1]\x1ebAQID"], Says("461-1[1]\x1ebAQID")),
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":0}]\x1ebAQID"],
        Says("461-1[{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":0}]\x1ebAQID"),
    ),
    // The ack of what was whole is lost there.
    (
        &["451-1[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID\x1ebAQID"],
        Says("461-1[{\"_placeholder\":true,\"num\":0}]\x1ebAQID\x1e1"),
    ),
];

const ONE: Outcome = Says("461-1[{\"_placeholder\":true,\"num\":0}]\x1ebAQID");

/// On a session that has joined nothing.
const EARLY: &[(&[u8], Outcome)] = &[
    (b"421[\"echo\",1]", Closed),
    (b"431[]", Closed),
    (b"41", Closed),
    (b"bAQID", Closed),
    (b"40[]", Closed),
    (b"40\"x\"", Closed),
    (b"40null", Closed),
    (b"40false", Closed),
    (b"40{", Closed),
    // An id is ignored there.
    (b"405", Closed),
    (b"405{}", Closed),
    (b"40/nosuch,", Says(r#"44/nosuch,{"message":"Invalid namespace"}"#)),
    (
        b"40/nosuch?x=1,{\"token\":1}",
        Says(r#"44/nosuch?x=1,{"message":"Invalid namespace"}"#),
    ),
    (b"40//,", Says(r#"44//,{"message":"Invalid namespace"}"#)),
    (b"40/a\0b", Says("44/a\0b,{\"message\":\"Invalid namespace\"}")),
    (b"42/nosuch,[\"echo\"]", Closed),
];

async fn server() -> Server {
    Plan::new().with("socket = { namespaces = ['/'] }").start().await
}

async fn joined(server: &Server) -> Poller {
    let poller = Poller::open(server).await;
    poller.connect().await;
    poller
}

/// Posts bodies one after the other, the last of which has the outcome.
async fn check(poller: &Poller, bodies: &[&[u8]], outcome: Outcome) {
    let shown: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body)).collect();
    let mut last = None;
    for body in bodies {
        if let Some(before) = last.replace(poller.post(*body).await) {
            assert_eq!(before.pair(), (200, "ok"), "{shown:?}");
        }
    }
    let last = last.expect("a body");
    settle(poller, &last, outcome, &format!("{shown:?}")).await;
}

async fn settle(poller: &Poller, posted: &Reply, outcome: Outcome, what: &str) {
    let expected = if matches!(outcome, Broken) {
        (400, "")
    } else {
        (200, "ok")
    };
    assert_eq!(posted.pair(), expected, "{what}");
    if matches!(outcome, Nothing) {
        // If its session lives and nothing waits, the next thing is what comes of the next body.
        let probe = poller.post("40/probe,").await;
        assert_eq!(probe.pair(), (200, "ok"), "{what}");
    }
    let polled = poller.get().await;
    let text = match outcome {
        Says(text) => text,
        Nothing => r#"44/probe,{"message":"Invalid namespace"}"#,
        Closed => "1",
        Broken | Left => {
            assert_eq!(polled.status, 400, "{what}: {polled:?}");
            polled.assert_error(1, "Session ID unknown");
            return;
        }
    };
    assert_eq!(polled.pair(), (200, text), "{what}");
    if text == "1" || text.ends_with("\x1e1") {
        poller.assert_gone().await;
    } else {
        poller.leave().await;
    }
}

#[tokio::test]
async fn packets_of_the_engine() {
    let server = server().await;
    for (body, outcome) in PACKETS {
        check(&joined(&server).await, &[body], *outcome).await;
    }
}

#[tokio::test]
async fn packets_of_the_socket() {
    let server = server().await;
    for (body, outcome) in TEXTS {
        check(&joined(&server).await, &[body], *outcome).await;
    }
}

#[tokio::test]
async fn packets_with_attachments() {
    let server = server().await;
    for (bodies, outcome) in BINARY {
        let bodies: Vec<&[u8]> = bodies.iter().map(|body| body.as_bytes()).collect();
        check(&joined(&server).await, &bodies, *outcome).await;
    }
}

#[tokio::test]
async fn packets_before_the_first_namespace() {
    let server = server().await;
    for (body, outcome) in EARLY {
        check(&Poller::open(&server).await, &[body], *outcome).await;
    }
}

/// The reference server has no limit of packets and depth: no stock client reaches ours.
#[tokio::test]
async fn bodies_at_the_limits() {
    let server = server().await;
    let deep = |levels: usize| format!("421[\"echo\",{}{}]", "[".repeat(levels), "]".repeat(levels));
    let answer: &'static str = Box::leak(
        deep(63)
            .replacen("42", "43", 1)
            .replace("\"echo\",", "")
            .into_boxed_str(),
    );
    let many = |packets: usize| vec!["3"; packets].join("\x1e");
    for (body, outcome) in [
        (deep(63), Says(answer)),
        (deep(64), Closed),
        (deep(100_000), Closed),
        (many(4096), Nothing),
        (many(4097), Broken),
    ] {
        check(&joined(&server).await, &[body.as_bytes()], outcome).await;
    }
}

/// How the same event may be sent.
#[tokio::test]
async fn headers_around_a_body() {
    const EVENT: &str = "421[\"echo\",1]";
    let server = server().await;
    let chunks = |sizes: usize| {
        let mut body = String::new();
        for piece in EVENT.as_bytes().chunks(sizes) {
            body.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)));
        }
        body
    };
    let chunked = |body: String| (("Transfer-Encoding", "chunked"), body);
    for ((name, value), body, outcome) in [
        (
            ("Content-Type", "application/x-www-form-urlencoded"),
            EVENT.to_owned(),
            Says("431[1]"),
        ),
        (("Content-Type", "application/json"), EVENT.to_owned(), Says("431[1]")),
        (
            ("Content-Type", "text/plain; charset=utf-16"),
            EVENT.to_owned(),
            Says("431[1]"),
        ),
        (("Content-Type", ""), EVENT.to_owned(), Says("431[1]")),
        (("Content-Encoding", "gzip"), EVENT.to_owned(), Says("431[1]")),
        // Node's server refuses it; python-engineio 4.0 to 4.2 sends its text so.
        (
            ("Content-Type", "application/octet-stream"),
            EVENT.to_owned(),
            Says("431[1]"),
        ),
        (
            ("Content-Type", "application/octet-stream; x=y"),
            EVENT.to_owned(),
            Says("431[1]"),
        ),
        (("Content-Length", "0"), String::new(), Broken),
        (("Content-Length", "3"), "421[\"echo\",1]".to_owned(), Closed),
    ]
    .into_iter()
    .chain(
        [
            (chunked(chunks(100) + "0\r\n\r\n"), Says("431[1]")),
            (chunked(chunks(1) + "0\r\n\r\n"), Says("431[1]")),
            (chunked(chunks(5) + "0\r\nX-Trailer: y\r\n\r\n"), Says("431[1]")),
            (chunked("0\r\n\r\n".to_owned()), Broken),
        ]
        .map(|((header, body), outcome)| (header, body, outcome)),
    ) {
        let poller = joined(&server).await;
        let request = Request::post(&poller.target(), body).header(name, value);
        let reply = soon("post", ask(server.addr, request)).await.expect("post");
        settle(&poller, &reply, outcome, &format!("{name}: {value}")).await;
    }
}

/// What is no HTTP is refused before it has to do with a session, which goes on.
#[tokio::test]
async fn lengths_that_are_none() {
    let server = server().await;
    for (name, value) in [
        ("Content-Length", "abc"),
        ("Content-Length", "-1"),
        ("Content-Length", "5, 6"),
    ] {
        let poller = joined(&server).await;
        let request = Request::post(&poller.target(), "421[\"echo\",1]").header(name, value);
        let reply = soon("post", ask(server.addr, request)).await.expect("an answer");
        assert_eq!(reply.status, 400, "{value}");
        poller.say("422[\"echo\",2]").await;
        assert_eq!(poller.poll().await, ["432[2]"], "{value}");
    }
}
