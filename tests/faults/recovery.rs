//! A client that lost its connection comes back with its private id and misses nothing.

#[cfg(feature = "faults")]
use crate::handover::stopped_child;
use crate::harness::{Plan, Poller, Request, Server, Wire, ask, ms, node, pass, signal, soon, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const SECRET: &str = "a secret that is long enough";

async fn server() -> Server {
    Plan::new().with("recovery = { offsets = 'always' }").start().await
}

/// A session at a worker that lives and reaches Redis: clients try again until they meet one.
async fn session(server: &Server) -> Wire {
    until("a worker that serves", async || {
        let mut wire = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket", &[])
            .await
            .ok()?;
        wire.text().await.starts_with("0{").then_some(wire)
    })
    .await
}

/// Sends CONNECT with `{pid, offset}`: what was missed, and the answer.
pub(crate) async fn come_back(server: &Server, pid: &Value, offset: Option<&Value>) -> (Wire, Vec<Value>, Value) {
    let mut wire = session(server).await;
    let mut auth = json!({ "pid": pid });
    if let Some(offset) = offset {
        auth["offset"] = offset.clone();
    }
    wire.send(&format!("40{auth}")).await;
    let mut missed = Vec::new();
    loop {
        let packet = wire.data().await;
        if let Some(answer) = packet.strip_prefix("40") {
            return (wire, missed, serde_json::from_str(answer).expect("JSON"));
        }
        let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
        missed.push(event[1].clone());
    }
}

fn resume(first: &Value, offset: &Value) -> String {
    format!("40{}", json!({ "pid": first["pid"], "offset": offset }))
}

async fn publish(server: &Server, payloads: &[&str]) {
    let mut publisher = session(server).await;
    publisher.connect().await;
    for (id, payload) in payloads.iter().enumerate() {
        let ack = publisher.call(id as u64, &json!(["publish", "room", payload])).await;
        assert_eq!(ack, json!(["ok"]));
    }
}

/// A member of the room that has received `first`: its CONNECT answer, and the offset it saw.
async fn member(server: &Server) -> (Wire, Value, Value) {
    let mut wire = Wire::open(server).await;
    let answer = wire.connect().await;
    assert!(answer["pid"].is_string() && answer["pid"] != answer["sid"], "{answer}");
    assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    publish(server, &["first"]).await;
    let packet = wire.data().await;
    let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
    assert_eq!(event[1], "first");
    assert!(event[2].is_string(), "no offset in {event}");
    (wire, answer, event[2].clone())
}

/// A member whose connection broke, and what was published since: its CONNECT answer, and the offset it saw.
async fn cut_off(server: &Server, missed: &[&str]) -> (Value, Value) {
    let (wire, first, offset) = member(server).await;
    drop(wire);
    publish(server, missed).await;
    (first, offset)
}

#[tokio::test]
async fn a_dropped_connection_loses_nothing() {
    let server = server().await;
    let (first, offset) = cut_off(&server, &["second", "third"]).await;
    let (mut wire, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
    assert_eq!(missed, ["second", "third"]);
    assert_eq!((&answer["sid"], &answer["pid"]), (&first["sid"], &first["pid"]));
    // It is a member as before.
    publish(&server, &["fourth"]).await;
    assert!(wire.data().await.starts_with(r#"42["message","fourth""#));
}

#[tokio::test]
async fn an_upgraded_session_comes_back_too() {
    for offsets in ["always", "auto"] {
        let server = Plan::new()
            .with(&format!("recovery = {{ offsets = '{offsets}' }}"))
            .start()
            .await;
        let poller = Poller::open(&server).await;
        let first = poller.connect().await;
        assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        let mut wire = Wire::dial(server.addr, &poller.upgrade_target(), &[])
            .await
            .expect("a WebSocket");
        wire.send("2probe").await;
        assert_eq!(wire.text().await, "3probe");
        wire.send("5").await;
        assert_eq!(wire.call(1, &json!(["echo", 1])).await, json!([1]));
        drop(wire);
        publish(&server, &["missed"]).await;
        let (_, missed, answer) = come_back(&server, &first["pid"], None).await;
        assert_eq!(missed, ["missed"], "offsets {offsets}");
        assert_eq!(
            (&answer["sid"], &answer["pid"]),
            (&first["sid"], &first["pid"]),
            "offsets {offsets}"
        );
    }
}

#[tokio::test]
async fn a_polling_session_comes_back_over_websocket() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 200 }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    let first = poller.connect().await;
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    // It is not heard of any more, and is taken for lost.
    pass(ms(1000)).await;
    publish(&server, &["missed"]).await;
    let (_, missed, answer) = come_back(&server, &first["pid"], None).await;
    assert_eq!((&answer["sid"], missed), (&first["sid"], vec![json!("missed")]));
}

#[tokio::test]
async fn a_late_request_does_not_spoil_the_return() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 300, ping_timeout_ms = 200 }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    let first = poller.connect().await;
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    pass(ms(1000)).await;
    // A laptop that wakes up goes on where it was, is told that this is over, and comes back.
    assert_eq!(poller.post("3").await.status, 400);
    poller.assert_gone().await;
    publish(&server, &["missed"]).await;
    let (_, missed, answer) = come_back(&server, &first["pid"], None).await;
    assert_eq!((&answer["sid"], missed), (&first["sid"], vec![json!("missed")]));
}

#[tokio::test]
async fn a_client_comes_back_over_polling() {
    let server = server().await;
    let (first, offset) = cut_off(&server, &["second", "third"]).await;
    let poller = Poller::open(&server).await;
    poller
        .say(format!("40{}", json!({ "pid": first["pid"], "offset": offset })))
        .await;
    let packets = poller.poll_until(|packet| packet.starts_with("40{")).await;
    let answer: Value = serde_json::from_str(&packets.last().expect("packets")[2..]).expect("JSON");
    assert_eq!(
        (&answer["sid"], &answer["pid"]),
        (&first["sid"], &first["pid"]),
        "{packets:?}"
    );
    assert_eq!(packets.len(), 3, "{packets:?}");
    for (packet, payload) in packets.iter().zip(["second", "third"]) {
        assert!(
            packet.starts_with(&format!(r#"42["message","{payload}""#)),
            "{packets:?}"
        );
    }
    // It is a member as before.
    publish(&server, &["fourth"]).await;
    assert!(poller.poll().await[0].starts_with(r#"42["message","fourth""#));
}

#[tokio::test]
async fn a_killed_worker_loses_nothing() {
    let server = server().await;
    for round in 0..3 {
        let (mut wire, first, offset) = member(&server).await;
        signal(server.holder().await, Signal::SIGKILL);
        soon("the connection ends", wire.drain()).await;
        publish(&server, &["second", "third"]).await;
        let (wire, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
        assert_eq!(missed, ["second", "third"], "round {round}");
        assert_eq!(
            (&answer["sid"], &answer["pid"]),
            (&first["sid"], &first["pid"]),
            "round {round}"
        );
        drop(wire);
        server
            .status_when("all are ready", |status| status.ready_pids().len() == 4)
            .await;
    }
}

#[tokio::test]
async fn without_an_offset_all_since_the_join_comes_again() {
    let server = server().await;
    let (first, _) = cut_off(&server, &["second"]).await;
    let (_, missed, answer) = come_back(&server, &first["pid"], None).await;
    assert_eq!(missed, ["first", "second"]);
    assert_eq!(answer["sid"], first["sid"]);
}

#[tokio::test]
async fn a_client_that_left_or_never_was_starts_anew() {
    let server = server().await;
    let (mut wire, first, offset) = member(&server).await;
    wire.send("41").await;
    wire.send("1").await;
    wire.drain().await;
    for pid in [
        first["pid"].clone(),
        json!("AAAAAAAAAAAAAAAAAAAA"),
        json!(""),
        json!(5),
        json!({"a": 1}),
    ] {
        let (_, missed, answer) = come_back(&server, &pid, Some(&offset)).await;
        assert_eq!(missed, Vec::<Value>::new(), "{pid}");
        assert_ne!(answer["sid"], first["sid"], "{pid}");
        assert_ne!(answer["pid"], pid);
    }
}

/// A Redis that lost the end of its log counts from there again: to a client that has seen more, the next events
/// would be old ones.
#[tokio::test]
async fn a_client_that_has_seen_more_than_there_is_starts_anew() {
    let server = server().await;
    let (wire, first, offset) = member(&server).await;
    drop(wire);
    let offset = offset.as_str().expect("an offset");
    let (epoch, number) = offset.split_once('-').expect("an epoch and a number");
    let number: u64 = number.parse().expect("a number");
    let beyond = json!(format!("{epoch}-{}", number + 5));
    let (_, missed, answer) = come_back(&server, &first["pid"], Some(&beyond)).await;
    assert_eq!(missed, Vec::<Value>::new());
    assert_ne!(answer["sid"], first["sid"]);
}

/// What stock clients see while `fault` goes on: everything that was acked, once, in order, in the
/// session that they had.
async fn nothing_is_lost(transports: &str, fault: impl AsyncFn(&mut Server, usize)) {
    let found = everything_arrives(transports, fault).await;
    assert!(
        found["disconnects"].as_u64() > Some(0),
        "the fault was not felt: {found}"
    );
    assert_eq!(found["recovered"], found["disconnects"], "{found}");
}

/// The same, and how often they lost their connection.
async fn everything_arrives(transports: &str, fault: impl AsyncFn(&mut Server, usize)) -> Value {
    // A client whose new WebSocket dies between probe and upgrade polls no more: only heartbeats that stay away tell it.
    let plan = Plan::new().with("engine = { ping_interval_ms = 2000, ping_timeout_ms = 2000 }");
    program_is_content(plan, "resume.mjs", transports, fault).await
}

/// What a client program found while `fault` went on.
async fn program_is_content(
    plan: Plan,
    program: &str,
    transports: &str,
    fault: impl AsyncFn(&mut Server, usize),
) -> Value {
    let mut server = plan.start().await;
    let program = node(program)
        .arg("--url", &server.url())
        .arg("--transports", transports)
        .run();
    let mut program = std::pin::pin!(program);
    let mut round = 0;
    let (found, content) = loop {
        tokio::select! {
            ended = &mut program => break ended,
            () = tokio::time::sleep(Duration::from_millis(1500)) => {
                fault(&mut server, round).await;
                round += 1;
            }
        }
    };
    assert!(content && round > 1, "{round} faults: {found}");
    found
}

/// SIGKILL of one worker after the other.
async fn kill_a_worker(server: &mut Server, round: usize) {
    let pids = server.status().await.ready_pids();
    if let Some(pid) = pids.get(round % pids.len().max(1)) {
        signal(*pid, Signal::SIGKILL);
    }
}

#[tokio::test]
async fn websockets_resume_through_kill_9() {
    nothing_is_lost("websocket", kill_a_worker).await;
}

#[tokio::test]
async fn pollers_resume_through_kill_9() {
    nothing_is_lost("polling", kill_a_worker).await;
}

#[tokio::test]
async fn upgraded_clients_resume_through_kill_9() {
    nothing_is_lost("polling,websocket", kill_a_worker).await;
}

#[tokio::test]
async fn clients_do_not_notice_reloads() {
    for transports in ["websocket", "polling"] {
        let found = everything_arrives(transports, async |server: &mut Server, _| {
            server.signal(Signal::SIGHUP);
        })
        .await;
        assert_eq!(found["disconnects"], 0, "{transports}: {found}");
    }
}

#[tokio::test]
async fn a_session_is_found_again_long_after_it_was_resumed() {
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 500, ping_timeout_ms = 2000 }\nrecovery = { window_ms = 3000 }")
        .start()
        .await;
    for transports in ["websocket", "polling"] {
        let program = node("again.mjs")
            .arg("--url", &server.url())
            .arg("--transports", transports);
        let (found, content) = program.run().await;
        assert!(content, "{transports}: {found}");
        assert_eq!(found["got"], json!([0, 1, 2]), "{transports}: {found}");
        let resumed = found["resumed"].as_array().expect("a list");
        assert!(
            resumed.len() >= 2 && resumed.iter().all(|yes| yes == true),
            "{transports}: {found}"
        );
    }
}

/// As the official client does it: the CONNECTs of all its namespaces go in one POST.
#[tokio::test]
async fn all_namespaces_come_back_in_one_request() {
    let server = Plan::new()
        .with("recovery = { offsets = 'always' }\nsocket = { namespaces = ['/', '/a', '/b'] }")
        .start()
        .await;
    let names = ["", "/a,", "/b,"];
    let mut wire = Wire::open(&server).await;
    let mut firsts = Vec::new();
    for name in names {
        wire.send(&format!("40{name}")).await;
        let answer = wire.data().await;
        let answer = answer.strip_prefix(&format!("40{name}")).expect("a CONNECT");
        firsts.push(serde_json::from_str::<Value>(answer).expect("JSON"));
    }
    drop(wire);
    let poller = Poller::open(&server).await;
    let connects: Vec<_> = names
        .iter()
        .zip(&firsts)
        .map(|(name, first)| format!("40{name}{}", json!({ "pid": first["pid"] })))
        .collect();
    poller.say(connects.join("\x1e")).await;
    let packets = poller.poll().await;
    for (name, first) in names.iter().zip(&firsts) {
        let same = format!("40{name}{first}");
        assert!(packets.contains(&same), "{same} is not among {packets:?}");
    }
    assert_eq!(poller.call(0, &json!(["echo", 1])).await, json!([1]));
}

/// The official client keeps what comes before the answer to its CONNECT even over a disconnect.
#[tokio::test]
async fn a_return_that_breaks_off_halfway_loses_and_doubles_nothing() {
    let server = Plan::new().start().await;
    for (messages, bytes, breaks) in [("3", "100", "300"), ("60", "20000", "1000,300000,700000")] {
        let program = node("halfway.mjs")
            .arg("--url", &server.url())
            .arg("--messages", messages)
            .arg("--bytes", bytes)
            .arg("--breaks", breaks);
        let (found, content) = program.run().await;
        assert!(content, "{found}");
    }
}

/// What was missed may be far more than an outbox holds.
#[tokio::test]
async fn a_client_that_missed_much_gets_all_of_it() {
    let server = Plan::new()
        .with("limits = { outbox_bytes_max = 262144 }\nlog = { ring_bytes_max = 1048576 }")
        .start()
        .await;
    let program = node("halfway.mjs")
        .arg("--url", &server.url())
        .arg("--messages", "300")
        .arg("--bytes", "60000")
        .arg("--breaks", "");
    let (found, content) = program.run().await;
    assert!(content && found["recovered"] == 1, "{found}");
}

/// The clients' own retries, with an id: each message once, although workers die between the log and the ack.
#[cfg(feature = "faults")]
#[tokio::test]
async fn retries_of_stock_clients_count_once() {
    for transports in ["websocket", "polling"] {
        // Ten kills, about; that there is none at all happens once in 20 000 times.
        let plan = Plan::new().env("FAULT_POINTS", "kill@appended=80");
        let found = program_is_content(plan, "retries.mjs", transports, async |_, _| {}).await;
        let (tries, acked) = (found["tries"].as_u64(), found["acked"].as_u64());
        assert_eq!(acked, Some(800), "{found}");
        assert!(tries > acked, "nothing was repeated: {found}");
    }
}

/// The server may think for long that the old connection lives.
#[tokio::test]
async fn a_returning_client_is_believed_and_its_stale_connection_is_closed() {
    let server = server().await;
    for round in 0..8 {
        let (mut stale, first, offset) = member(&server).await;
        publish(&server, &["second"]).await;
        assert!(stale.data().await.starts_with(r#"42["message","second""#));
        let (mut wire, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
        assert_eq!(missed, ["second"], "round {round}");
        assert_eq!(answer["sid"], first["sid"]);
        soon("the stale connection is closed", stale.drain()).await;
        publish(&server, &["third"]).await;
        assert!(wire.data().await.starts_with(r#"42["message","third""#));
        assert_eq!(wire.call(9, &json!(["leave", "room"])).await, json!(["ok"]));
    }
}

/// A client whose connection breaks while a worker gives it its session back is at another worker at once. Both have
/// found the session; the last one keeps it.
#[cfg(feature = "faults")]
#[tokio::test]
async fn of_two_resumes_at_once_the_later_one_has_the_session() {
    for polls in [false, true] {
        let server = Plan::new()
            .with("recovery = { offsets = 'always' }\nworkers = { count = 2 }")
            .env("FAULT_POINTS", "stop@resuming=1")
            .start()
            .await;
        let (first, offset) = cut_off(&server, &["second"]).await;
        let mut broken = Wire::open(&server).await;
        broken.send(&resume(&first, &offset)).await;
        let one = stopped_child(&server, None).await;
        // The stopped one gets no new connections, so this is the other worker.
        let later = async {
            let (missed, answer) = if polls {
                let poller = Poller::open(&server).await;
                poller.say(resume(&first, &offset)).await;
                let packets = poller.poll_until(|packet| packet.contains("second")).await;
                let answer = packets.iter().find_map(|packet| packet.strip_prefix("40"));
                (true, serde_json::from_str(answer.expect("an answer")).expect("JSON"))
            } else {
                let (_, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
                (missed == ["second"], answer)
            };
            assert!(missed, "polls: {polls}");
            answer
        };
        let wake = async {
            let other = stopped_child(&server, Some(one)).await;
            signal(one, Signal::SIGCONT);
            assert!(broken.data().await.starts_with(r#"42["message","second""#));
            assert!(broken.data().await.starts_with("40"), "it was quicker");
            // It stops once more, if it looks for the session once more.
            loop {
                signal(other, Signal::SIGCONT);
                pass(ms(20)).await;
            }
        };
        let answer = tokio::select! {
            answer = later => answer,
            () = wake => unreachable!("it goes on for ever"),
        };
        assert_eq!(answer["sid"], first["sid"], "polls: {polls}");
    }
}

/// A Redis that does not answer in the middle of a resume costs time, not the session.
#[tokio::test]
async fn a_resume_without_an_answer_of_redis_is_put_off() {
    let server = server().await;
    let (first, offset) = cut_off(&server, &["second"]).await;
    let mut wire = Wire::open(&server).await;
    server.redis().signal(Signal::SIGSTOP);
    wire.send(&resume(&first, &offset)).await;
    // It answers what is asked next.
    server.logged("session not recovered").await;
    server.redis().signal(Signal::SIGCONT);
    assert_eq!(wire.end().await, Some(1013), "try again");
    let (_, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
    assert_eq!((missed, &answer["sid"]), (vec![json!("second")], &first["sid"]));
}

#[tokio::test]
async fn what_was_meant_for_one_alone_is_not_missed() {
    let server = server().await;
    let (wire, first, offset) = member(&server).await;
    drop(wire);
    let event = json!({ "event": "message", "data": "for you", "room": first["sid"] }).to_string();
    server
        .redis()
        .command(&["XADD", "socketio:ingest", "*", "event", &event])
        .await;
    until("it is in the log", async || {
        (server.redis().command(&["XLEN", "socketio:ingest"]).await == harness::Resp::Int(0)).then_some(())
    })
    .await;
    let (_, missed, _) = come_back(&server, &first["pid"], Some(&offset)).await;
    assert_eq!(missed, ["for you"]);
}

/// What cannot be made good is said: to the client, by another session, and in the log, with the reason.
#[tokio::test]
async fn a_gap_that_cannot_be_closed_is_said() {
    let small = "ring_bytes_max = 1000, entry_bytes_max = 900";
    for (config, reason) in [
        (format!("log = {{ entries_max = 16, {small} }}"), "the log was trimmed"),
        (
            format!("log = {{ {small} }}\nrecovery = {{ entries_max = 20 }}"),
            "the session missed more than 20 events",
        ),
        (
            "engine = { ping_interval_ms = 300, ping_timeout_ms = 200 }\nrecovery = { window_ms = 500 }".to_owned(),
            "its window is over",
        ),
    ] {
        let server = Plan::new()
            .with("recovery = { offsets = 'always' }")
            .with(&config)
            .start()
            .await;
        let (first, offset) = cut_off(&server, &["missed"; 60]).await;
        if reason.contains("window") {
            pass(ms(1500)).await;
        }
        let (mut wire, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
        assert_eq!(missed, Vec::<Value>::new(), "{reason}");
        assert!(
            answer["sid"] != first["sid"] && answer["pid"] != first["pid"],
            "{reason}: {answer}"
        );
        server.logged("session not recovered: the client gets a new one").await;
        server.logged(reason).await;
        // It begins again like any other.
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        publish(&server, &["again"]).await;
        assert!(wire.data().await.starts_with(r#"42["message","again""#), "{reason}");
    }
}

/// Who gets offsets, and with them a private id: by the setting, by what is known of a client, by what it says itself.
#[tokio::test]
async fn offsets_go_to_those_who_understand_them() {
    const NODE: &str = "EIO=4&transport=websocket";
    const PYTHON: &str = "transport=websocket&EIO=4";
    let cases = [
        ("auto", NODE, "", "", true),
        ("auto", PYTHON, "", "", false),
        ("auto", PYTHON, "&recovery=1", "", true),
        ("auto", NODE, "&recovery=0", "", false),
        ("auto", PYTHON, "", r#"{"recovery":1}"#, true),
        ("auto", NODE, "", r#"{"recovery":"0"}"#, false),
        ("always", PYTHON, "", r#"{"recovery":0}"#, true),
        ("never", NODE, "&recovery=1", r#"{"recovery":1}"#, false),
    ];
    for setting in ["auto", "always", "never"] {
        let server = Plan::new()
            .with(&format!("recovery = {{ offsets = '{setting}' }}"))
            .start()
            .await;
        for (_, query, said, auth, expected) in cases.iter().filter(|case| case.0 == setting) {
            let mut wire = Wire::dial(server.addr, &format!("/socket.io/?{query}{said}"), &[])
                .await
                .expect("a WebSocket");
            wire.text().await;
            wire.send(&format!("40{auth}")).await;
            let answer = wire.data().await;
            let case = format!("{setting}, {query}{said}, {auth}: {answer}");
            assert_eq!(answer.contains("\"pid\""), *expected, "{case}");
            assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
            publish(&server, &["x"]).await;
            let event: Value = serde_json::from_str(&wire.data().await[2..]).expect("JSON");
            assert_eq!(
                event.as_array().expect("a list").len() == 3,
                *expected,
                "{case}, {event}"
            );
        }
    }
}

/// An event from outside; the body's `room` is `room`.
async fn emit(server: &Server, mut event: Value) {
    event["room"] = json!("room");
    let request = Request::post("/api/emit", event.to_string()).header("Authorization", &format!("Bearer {SECRET}"));
    assert_eq!(ask(server.addr, request).await.expect("an answer").status, 200);
}

/// The official client takes the last argument of any event for its offset if that is a string. (The reference server sends
/// none with volatile events, and one without data before it.)
#[tokio::test]
async fn every_event_leaves_the_offset_right() {
    let server = Plan::new()
        .with(&format!("emit = {{ secret = '{SECRET}' }}"))
        .with("recovery = { offsets = 'always' }")
        .start()
        .await;
    let (mut wire, first, _) = member(&server).await;
    let poller = Poller::open(&server).await;
    let polled = poller.connect().await;
    assert_eq!(poller.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut last = [Value::Null, Value::Null];
    for (event, args) in [
        (
            json!({ "event": "e", "data": "a string", "volatile": true }),
            json!(["a string"]),
        ),
        (
            json!({ "event": "e", "args": [1, "9-9"], "volatile": true }),
            json!([1, "9-9"]),
        ),
        (json!({ "event": "e", "volatile": true }), json!([null])),
        (json!({ "event": "e", "data": null }), json!([null])),
        (json!({ "event": "e" }), json!([null])),
        (json!({ "event": "e", "args": [null] }), json!([null])),
        (json!({ "event": "e", "data": "a string" }), json!(["a string"])),
    ] {
        emit(&server, event.clone()).await;
        let packets = poller.poll_until(|packet| packet.starts_with("42[\"e\"")).await;
        let texts = [wire.data().await, packets.last().expect("an event").clone()];
        for (text, last) in texts.iter().zip(&mut last) {
            let mut got: Vec<Value> = serde_json::from_str(&text[2..]).expect("JSON");
            let offset = got.pop().expect("an offset");
            assert!(
                offset.as_str().is_some_and(|text| text.contains('-')),
                "{event}: {text}"
            );
            assert_ne!(offset, *last, "{event}");
            assert_eq!(Value::from(got.split_off(1)), args, "{event}");
            *last = offset;
        }
    }
    assert_eq!(last[0], last[1]);
    drop(wire);
    publish(&server, &["missed"]).await;
    let (_, missed, answer) = come_back(&server, &first["pid"], Some(&last[0])).await;
    assert_eq!((missed, &answer["sid"]), (vec![json!("missed")], &first["sid"]));
    // The session that polls comes back without a word of its end.
    publish(&server, &["later"]).await;
    let (_, missed, answer) = come_back(&server, &polled["pid"], Some(&last[1])).await;
    assert_eq!(
        (missed, &answer["sid"]),
        (vec![json!("missed"), json!("later")], &polled["sid"])
    );
}

/// What a client calls its offset and is none: it starts anew, and gets nothing twice.
#[tokio::test]
async fn an_offset_that_is_none_is_said_to_be_none() {
    let server = server().await;
    for garbage in [
        json!("a string"),
        json!(""),
        json!("9-"),
        json!(7),
        json!({}),
        json!(["1-1"]),
    ] {
        let (first, offset) = cut_off(&server, &["second"]).await;
        let (_, missed, answer) = come_back(&server, &first["pid"], Some(&garbage)).await;
        assert_eq!(missed, Vec::<Value>::new(), "{garbage}");
        assert_ne!(answer["sid"], first["sid"], "{garbage}");
        assert_ne!(answer["pid"], first["pid"], "{garbage}");
        // The session is still there for one that knows.
        let (_, missed, answer) = come_back(&server, &first["pid"], Some(&offset)).await;
        assert_eq!(
            (missed, &answer["sid"]),
            (vec![json!("second")], &first["sid"]),
            "{garbage}"
        );
    }
}

/// Each namespace of a session by itself: what one says does not change what the other gets.
#[tokio::test]
async fn offsets_go_by_the_namespace() {
    let server = Plan::new()
        .with("socket = { namespaces = ['/', '/other'] }")
        .start()
        .await;
    for (root, other) in [(1, 0), (0, 1)] {
        let mut wire = Wire::open(&server).await;
        for (nsp, wants) in [("", root), ("/other,", other)] {
            wire.send(&format!("40{nsp}{{\"recovery\":{wants}}}")).await;
            let answer = wire.data().await;
            assert_eq!(answer.contains("\"pid\""), wants == 1, "{answer}");
            wire.send(&format!("42{nsp}1[\"join\",\"room\"]")).await;
            assert_eq!(wire.data().await, format!("43{nsp}1[\"ok\"]"));
            wire.send(&format!("42{nsp}[\"publish\",\"room\",\"hello\"]")).await;
            let event = wire.data().await;
            assert_eq!(event.matches(',').count(), nsp.len().min(1) + 1 + wants, "{event}");
        }
        wire.send("42[\"publish\",\"room\",\"again\"]").await;
        let event = wire.data().await;
        assert_eq!(event.matches(',').count(), 1 + root, "{event}");
    }
}
