//! The rules of long polling, on the echo endpoint, each request on whichever worker gets it.

use crate::echo_server;
use crate::harness::{Link, Plan, Poller, Reply, Request, Server, ask, ms, soon, until, within};
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::Read;

/// Long enough that two requests of a pair have met different workers.
const ROUNDS: usize = 12;

#[tokio::test]
async fn what_is_posted_comes_back() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    for body in [
        "4hello",
        "bAQIDBA==",
        "4",
        "4žluť 🐎 \u{2028}\u{0}",
        "4a\x1e4b\x1ebAQID\x1e4c",
        "b",
    ] {
        let reply = poller.post(body).await;
        assert_eq!(reply.pair(), (200, "ok"));
        assert_eq!(reply.header("content-type"), Some("text/html"));
        assert_eq!(reply.header("content-length"), Some("2"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let expected: Vec<&str> = body.split('\x1e').collect();
        let mut found = Vec::new();
        while found.len() < expected.len() {
            found.extend(poller.poll().await);
        }
        assert_eq!(found, expected);
    }
}

/// The Java client breaks lines, others use the URL-safe alphabet or leave the padding out; the reference server
/// reads all of it (`wire::base64` has the variants).
#[tokio::test]
async fn binary_is_read_as_clients_write_it() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    let long: String = vec!["QUJD"; 57].concat();
    let lines: Vec<&str> = (0..3).map(|line| &long[line * 76..(line + 1) * 76]).collect();
    for (posted, back) in [
        (format!("b{}\n", lines.join("\n")), format!("b{long}")),
        (format!("b{}\r\n", lines.join("\r\n")), format!("b{long}")),
        ("b-_-_".to_owned(), "b+/+/".to_owned()),
        ("bAQ".to_owned(), "bAQ==".to_owned()),
        ("bAQ\n==\x1e4text".to_owned(), "bAQ==\x1e4text".to_owned()),
    ] {
        poller.say(posted.clone()).await;
        assert_eq!(poller.get().await.pair(), (200, back.as_str()), "{posted:?}");
    }
}

#[tokio::test]
async fn the_content_type_of_text_does_not_matter() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    for kind in [
        "text/plain;charset=UTF-8",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json",
        // Node's server refuses it; python-engineio 4.0 to 4.2 sends its text so.
        "application/octet-stream",
    ] {
        let request = Request::post(&poller.target(), "4x").header("Content-Type", kind);
        let reply = soon("post", ask(server.addr, request)).await.expect("post");
        assert_eq!(reply.pair(), (200, "ok"), "{kind}");
        assert_eq!(poller.poll().await, ["4x"]);
    }
}

#[tokio::test]
async fn a_poll_waits_for_news() {
    let server = echo_server().await;
    let pollers = [
        Poller::open_echo(&server).await,
        Poller::open_echo(&server).await,
        Poller::open_echo(&server).await,
    ];
    let parked: Vec<_> = pollers.iter().map(Poller::park).collect();
    server.holding(3).await;
    for (number, (poller, parked)) in pollers.iter().zip(parked).enumerate() {
        assert!(!parked.is_finished());
        poller.say(format!("4news {number}")).await;
        let reply = soon("the parked poll", parked)
            .await
            .expect("a task")
            .expect("an answer");
        assert_eq!(reply.pair(), (200, format!("4news {number}").as_str()));
    }
}

#[tokio::test]
async fn order_is_kept_over_many_posts() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    let mut expected = Vec::new();
    for number in 0..40 {
        let packets = [format!("4{number}a"), format!("4{number}b")];
        poller.say(packets.join("\x1e")).await;
        expected.extend(packets);
    }
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(poller.poll().await);
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn two_polls_at_once_close_the_session() {
    let server = echo_server().await;
    for round in 0..ROUNDS {
        let poller = Poller::open_echo(&server).await;
        let (one, other) = soon("both", async { tokio::join!(poller.get(), poller.get()) }).await;
        let mut pairs = [one.pair(), other.pair()];
        pairs.sort_unstable();
        assert_eq!(pairs, [(200, "1"), (400, "")], "round {round}");
        poller.assert_gone().await;
    }
}

/// A worker on the same machine says that it lives, so no request waits for news of its death: with heartbeats shorter than
/// that wait the first poll would have its ping, and the overlap would never be seen.
#[tokio::test]
async fn two_polls_at_once_are_seen_before_the_next_ping() {
    let server = Plan::new()
        .with(crate::ECHO)
        .with("engine = { ping_interval_ms = 250 }")
        .start()
        .await;
    for round in 0..ROUNDS {
        let poller = Poller::open_echo(&server).await;
        let (one, other) = soon("both", async { tokio::join!(poller.get(), poller.get()) }).await;
        let mut pairs = [one.pair(), other.pair()];
        pairs.sort_unstable();
        assert_eq!(pairs, [(200, "1"), (400, "")], "round {round}");
    }
}

#[tokio::test]
async fn two_posts_at_once_close_the_session() {
    let server = echo_server().await;
    for round in 0..ROUNDS {
        let poller = Poller::open_echo(&server).await;
        let mut half = half_a_post(&server, &poller).await;
        let second = until("the second post is refused", async || {
            let reply = poller.post("4x").await;
            (reply.status != 200).then_some(reply)
        })
        .await;
        assert_eq!(second.status, 400, "round {round}: {second:?}");
        // The first is reset or refused, even if it is completed now.
        let first = match half.send(b"4567890").await {
            Ok(()) => soon("the first post", half.reply(false)).await.ok(),
            Err(_) => None,
        };
        assert!(
            first.as_ref().is_none_or(|reply| reply.status != 200),
            "round {round}: {first:?}"
        );
        until("it has gone", async || {
            (poller.post("4x").await.status == 400).then_some(())
        })
        .await;
    }
}

/// A POST of ten bytes of which three were sent.
async fn half_a_post(server: &Server, poller: &Poller) -> Link {
    let mut half = Link::open(server.addr).await.expect("connect");
    let head = Request::new("POST", &poller.target())
        .header("Content-Type", "text/plain;charset=UTF-8")
        .header("Content-Length", "10");
    half.send(&head.bytes(server.addr)).await.expect("send");
    half.send(b"412").await.expect("send");
    half
}

#[tokio::test]
async fn a_poll_that_the_client_drops_closes_the_session() {
    let server = echo_server().await;
    let pollers = [
        Poller::open_echo(&server).await,
        Poller::open_echo(&server).await,
        Poller::open_echo(&server).await,
    ];
    let mut links = Vec::new();
    for poller in &pollers {
        let mut link = Link::open(server.addr).await.expect("connect");
        link.send(&Request::get(&poller.target()).bytes(server.addr))
            .await
            .expect("send");
        links.push(link);
    }
    server.holding(3).await;
    drop(links);
    for poller in pollers {
        let reply = until("the session has gone", async || {
            let reply = poller.post("4x").await;
            (reply.status != 200).then_some(reply)
        })
        .await;
        reply.assert_error(1, "Session ID unknown");
    }
}

#[tokio::test]
async fn a_post_that_the_client_drops_closes_the_session() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    let parked = poller.park();
    server.holding(1).await;
    drop(half_a_post(&server, &poller).await);
    let reply = soon("the parked poll", parked)
        .await
        .expect("a task")
        .expect("an answer");
    assert_eq!(reply.pair(), (200, "1"));
    poller.assert_gone().await;
}

/// A body is posted while a poll waits: the answers of the poll and of the POST.
async fn post_while_parked(server: &Server, body: &str) -> (Poller, Reply, Reply) {
    // What workers tell is a beat old: the poll of a round before must be gone from it.
    server.holding(0).await;
    let poller = Poller::open_echo(server).await;
    let parked = poller.park();
    server.holding(1).await;
    let posted = poller.post(body).await;
    let polled = soon("the parked poll", parked)
        .await
        .expect("a task")
        .expect("an answer");
    (poller, polled, posted)
}

#[tokio::test]
async fn what_is_no_packet_closes_the_session() {
    let server = echo_server().await;
    for body in ["abc", "", "7", "b!!!", "\x1e", "4a\x1e\x1e4b"] {
        let (poller, polled, posted) = post_while_parked(&server, body).await;
        assert_eq!(polled.status, 200, "{body:?}: {polled:?}");
        // Packets before the bad one still count, so their answer may come first.
        let last = if polled.text() == "4a" {
            poller.get().await
        } else {
            polled
        };
        assert_eq!(last.status, 200, "{body:?}: {last:?}");
        assert!(["1", "4a\u{1e}1"].contains(&last.text()), "{body:?}: {last:?}");
        // The reference server answers `ok`.
        assert_eq!(posted.pair(), (400, ""), "{body:?}");
        poller.assert_gone().await;
    }
}

#[tokio::test]
async fn without_a_poll_the_session_has_gone_when_the_answer_comes() {
    let server = echo_server().await;
    for body in ["abc", "", "7", "b!!!", "\x1e", "4a\x1e\x1e4b", "2", "2probe"] {
        let poller = Poller::open_echo(&server).await;
        assert_eq!(poller.post(body).await.pair(), (400, ""), "{body:?}");
        poller.assert_gone().await;
        poller.post("4x").await.assert_error(1, "Session ID unknown");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_close_the_session() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    let posted = poller.post(b"4\xff\xfe".to_vec()).await;
    assert!(matches!(posted.status, 200 | 400), "{posted:?}");
    // Node replaces such bytes; closing is as good. What may not happen is an error of ours.
    let after = poller.post("4x").await;
    assert!(matches!(after.status, 200 | 400), "{after:?}");
}

#[tokio::test]
async fn a_close_packet_ends_the_session() {
    let server = echo_server().await;
    for round in 0..ROUNDS {
        let (poller, polled, posted) = post_while_parked(&server, "1").await;
        assert_eq!(polled.pair(), (200, "6"), "round {round}");
        assert_eq!(posted.pair(), (200, "ok"), "round {round}");
        poller.assert_gone().await;
        poller.post("4x").await.assert_error(1, "Session ID unknown");
    }
}

/// As the official client says goodbye: it leaves its namespaces first.
#[tokio::test]
async fn a_goodbye_while_a_poll_waits_is_a_noop() {
    let server = Plan::new().start().await;
    for body in ["1", "41\x1e1"] {
        for round in 0..4 {
            server.holding(0).await;
            let poller = Poller::open(&server).await;
            poller.connect().await;
            let parked = poller.park();
            server.holding(1).await;
            assert_eq!(poller.post(body).await.pair(), (200, "ok"), "{body:?}, round {round}");
            let polled = soon("the parked poll", parked)
                .await
                .expect("a task")
                .expect("an answer");
            assert_eq!(polled.pair(), (200, "6"), "{body:?}, round {round}");
            poller.assert_gone().await;
        }
    }
}

/// A client that shuts down its direction after a request still gets the answer. The reference server answers only what
/// it can answer at once: it closes such a connection otherwise.
#[tokio::test]
async fn a_request_followed_by_a_half_close_is_answered() {
    let server = Plan::new().start().await;
    let ask = async |request: Request| {
        let mut link = Link::open(server.addr).await.expect("connect");
        link.send(&request.bytes(server.addr)).await.expect("send");
        link.finish_sending().await.expect("shutdown");
        let reply = soon("an answer", link.reply(false)).await.expect("an answer");
        soon("the connection ends", link.closed()).await;
        reply
    };
    for round in 0..ROUNDS {
        let reply = ask(Request::get("/socket.io/?EIO=4&transport=polling")).await;
        let poller = Poller::opened(server.addr, "/socket.io/", &reply);
        // It is joined, and its answer waits.
        let reply = ask(Request::post(&poller.target(), "40")).await;
        assert_eq!(reply.pair(), (200, "ok"), "round {round}");
        let reply = ask(Request::get(&poller.target())).await;
        assert!(reply.text().starts_with("40{"), "round {round}: {reply:?}");
        // An ack that waits for the log.
        let event = r#"427["publish","room",1]"#;
        let reply = ask(Request::post(&poller.target(), event)).await;
        assert_eq!(reply.pair(), (200, "ok"), "round {round}");
        let reply = ask(Request::get(&poller.target())).await;
        assert!(reply.text().starts_with("437["), "round {round}: {reply:?}");
        // A poll that would wait is over, as if the client had dropped it.
        let reply = ask(Request::get(&poller.target())).await;
        assert_eq!(reply.pair(), (200, "1"), "round {round}");
        poller.assert_gone().await;
    }
}

#[tokio::test]
async fn a_poll_that_meets_the_end_is_answered() {
    let server = Plan::new().start().await;
    for round in 0..200 {
        let poller = Poller::open(&server).await;
        poller.connect().await;
        let mut links = [
            Link::open(server.addr).await.expect("connect"),
            Link::open(server.addr).await.expect("connect"),
        ];
        poller.say(r#"420["echo",1]"#).await;
        let get = Request::get(&poller.target());
        let reply = links[0].ask(&get).await.expect("poll");
        assert_eq!(reply.pair(), (200, "430[1]"));
        // The next poll is on its way when the client takes its leave.
        links[0].send(&get.bytes(server.addr)).await.expect("send");
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        let reply = links[1]
            .ask(&Request::post(&poller.target(), "41\x1e1"))
            .await
            .expect("post");
        assert_eq!(reply.pair(), (200, "ok"));
        let reply = within(ms(3000), "the poll is answered", links[0].reply(false))
            .await
            .expect("poll");
        assert!(matches!(reply.status, 200 | 400), "round {round}: {reply:?}");
    }
}

#[tokio::test]
async fn a_ping_of_the_client_ends_the_session() {
    let server = echo_server().await;
    let (poller, polled, posted) = post_while_parked(&server, "2").await;
    assert_eq!(polled.pair(), (200, "1"));
    assert_eq!(posted.pair(), (400, ""));
    poller.assert_gone().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_harmless() {
    let server = Plan::new()
        .with(crate::ECHO)
        .with("engine = { max_payload_bytes = 1000 }")
        .start()
        .await;
    let poller = Poller::open_echo(&server).await;
    let target = poller.target();
    for round in 0..4 {
        let long = format!("4{}", "x".repeat(1000));
        assert_eq!(poller.post(long.clone()).await.status, 413, "round {round}");
        let chunks = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
        let chunked = Request::post(&target, chunks).header("Transfer-Encoding", "chunked");
        let reply = soon("post", ask(server.addr, chunked)).await.expect("post");
        assert_eq!(reply.status, 413, "round {round}");
        let full = format!("4{}", "x".repeat(999));
        poller.say(full.clone()).await;
        assert_eq!(poller.poll().await, [full]);
    }
}

#[tokio::test]
async fn a_chunked_body_is_a_body() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    let chunks = "3\r\n4ab\r\n4;x=y\r\ncdef\r\n0\r\n\r\n";
    let request = Request::post(&poller.target(), chunks).header("Transfer-Encoding", "chunked");
    let reply = soon("post", ask(server.addr, request)).await.expect("post");
    assert_eq!(reply.pair(), (200, "ok"));
    assert_eq!(poller.poll().await, ["4abcdef"]);
}

#[tokio::test]
async fn large_polls_are_compressed_for_clients_that_accept_it() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    let long = format!("4{}", "anyworker ".repeat(400));
    let ask_with = async |packet: &str, accepted: &str| {
        poller.say(packet).await;
        let request = Request::get(&poller.target()).header("Accept-Encoding", accepted);
        soon("poll", ask(server.addr, request)).await.expect("poll")
    };
    let reply = ask_with(&long, "gzip, deflate, br").await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(
        reply.header("content-length"),
        Some(reply.body.len().to_string().as_str())
    );
    assert!(reply.body.len() < long.len() / 4);
    let mut text = String::new();
    flate2::read::GzDecoder::new(reply.body.as_slice())
        .read_to_string(&mut text)
        .expect("gzip");
    assert_eq!(text, long);
    for (packet, accepted) in [
        (long.as_str(), "identity"),
        (long.as_str(), "gzip;q=0"),
        ("4short", "gzip"),
    ] {
        let reply = ask_with(packet, accepted).await;
        assert_eq!(reply.header("content-encoding"), None, "{accepted}");
        assert_eq!(reply.text(), packet);
    }
}

#[tokio::test]
async fn many_sessions_over_one_connection() {
    let server = echo_server().await;
    let mut link = Link::open(server.addr).await.expect("connect");
    let mut pollers = Vec::new();
    for _ in 0..5 {
        let reply = link
            .ask(&Request::get("/engine.io/?EIO=4&transport=polling"))
            .await
            .expect("handshake");
        pollers.push(Poller::opened(server.addr, "/engine.io/", &reply));
    }
    for round in 0..20 {
        for (number, poller) in pollers.iter().enumerate() {
            let packet = format!("4{round}.{number}");
            let reply = link
                .ask(&Request::post(&poller.target(), packet.clone()))
                .await
                .expect("post");
            assert_eq!(reply.pair(), (200, "ok"));
            // Half of the polls come over other connections, to other workers.
            let reply = if round % 2 == 0 {
                link.ask(&Request::get(&poller.target())).await.expect("poll")
            } else {
                poller.get().await
            };
            assert_eq!(reply.pair(), (200, packet.as_str()));
        }
    }
}

#[tokio::test]
async fn other_methods_are_refused_and_harmless() {
    let server = echo_server().await;
    let poller = Poller::open_echo(&server).await;
    for method in ["PUT", "DELETE", "PATCH"] {
        let reply = soon("an answer", ask(server.addr, Request::new(method, &poller.target()))).await;
        assert!(reply.expect("an answer").status >= 400, "{method}");
    }
    poller.say("4x").await;
    assert_eq!(poller.poll().await, ["4x"]);
}

/// A token that looks as if a stock client made it; python-socketio and the Java client keep it in every request.
#[tokio::test]
async fn a_query_key_of_the_application_named_t_is_no_id_of_a_request() {
    let server = Plan::new().start().await;
    for own in [
        "t=a-token",
        "t=a-token&user=7",
        "t=token",
        "t=1795678012",
        "t=1795678012.5",
    ] {
        let poller = Poller::open_with(&server, own).await;
        poller.connect().await;
        for number in 0..5 {
            let ack = poller.call(number, &json!(["echo", number])).await;
            assert_eq!(ack, json!([number]), "{own}");
        }
    }
}

/// python-engineio writes its clock behind the application's `t`, but into no POST.
#[tokio::test]
async fn a_query_key_of_the_application_named_t_is_no_id_of_a_post_that_has_no_other() {
    let server = Plan::new().start().await;
    let clock = Cell::new(0);
    let get = async |query: &str| {
        clock.set(clock.get() + 1);
        let target = format!("/socket.io/?t=mytoken1&{query}&t=1796.{}", clock.get());
        soon("get", ask(server.addr, Request::get(&target))).await.expect("get")
    };
    let opened = get("transport=polling&EIO=4").await;
    let handshake: Value = serde_json::from_str(&opened.text()[1..]).expect("JSON");
    let session = format!(
        "transport=polling&EIO=4&sid={}",
        handshake["sid"].as_str().expect("a sid")
    );
    let post = async |packet: &str| {
        let request = Request::post(&format!("/socket.io/?t=mytoken1&{session}"), packet);
        let reply = soon("post", ask(server.addr, request)).await.expect("post");
        assert_eq!(reply.pair(), (200, "ok"), "{packet}");
    };
    post("40").await;
    assert!(get(&session).await.text().starts_with("40"));
    for number in 0..5 {
        post(&format!("42{number}[\"echo\",{number}]")).await;
        assert_eq!(get(&session).await.text(), format!("43{number}[{number}]"));
    }
}
