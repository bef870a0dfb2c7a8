//! Hundreds of real sessions, and ten thousand that are only stored.

use crate::harness::{Plan, Poller, Redis, Resp, Server, Wire};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::process::Output;
use std::time::Duration;

/// Of each transport.
const SESSIONS: usize = 250;
/// Stored ones.
const MANY: usize = 10_000;
/// A list or a count of them takes no more of a core. (Not of the wall's time, which other tests on the machine take too.)
const MANY_WITHIN: Duration = Duration::from_secs(1);
/// No command of ours looks at more keys, so that none holds up Redis.
const KEYS_AT_ONCE_MAX: usize = 1024;

pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The lines of a command's JSON.
pub(crate) fn objects(output: &Output) -> Vec<Value> {
    text(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|fault| panic!("{fault}: {line}")))
        .collect()
}

/// A WebSocket of `user` in `room`, with its Socket.IO id.
pub(crate) async fn wire(server: &Server, user: &str, room: &str) -> (Wire, String) {
    let mut wire = Wire::open(server).await;
    wire.send(&format!(r#"40{{"user":"{user}"}}"#)).await;
    let answer = wire.data().await;
    let answer: Value = serde_json::from_str(answer.strip_prefix("40").expect("an answer")).unwrap();
    assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
    (wire, answer["sid"].as_str().unwrap().to_owned())
}

/// A polling session of `user` in `room`.
async fn poller(server: &Server, user: &str, room: &str) -> Poller {
    let poller = Poller::open(server).await;
    poller.say(format!(r#"40{{"user":"{user}"}}"#)).await;
    poller.poll_until(|packet| packet.starts_with("40")).await;
    assert_eq!(poller.call(0, &json!(["join", room])).await, json!(["ok"]));
    poller
}

/// Hundreds of sessions of both transports, each user in one of ten rooms.
struct Many {
    server: Server,
    wires: Vec<(Wire, String)>,
    pollers: Vec<Poller>,
}

impl Many {
    async fn connect() -> Self {
        let server = Plan::new().start().await;
        let (mut wires, mut pollers) = (Vec::new(), Vec::new());
        for nth in 0..SESSIONS {
            let (user, room) = (format!("u{nth}"), format!("room{}", nth % 10));
            wires.push(wire(&server, &user, &room).await);
            pollers.push(poller(&server, &user, &room).await);
        }
        Self { server, wires, pollers }
    }

    async fn listed(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        objects(&self.server.cli("sessions", &args).await)
    }

    async fn said(&self, command: &str, args: &[&str]) -> String {
        text(&self.server.cli(command, args).await)
    }
}

#[tokio::test]
async fn five_hundred_sessions_are_listed_counted_and_shown() {
    let many = Many::connect().await;
    assert_eq!(many.listed(&[]).await.len(), 2 * SESSIONS);
    assert_eq!(many.listed(&["list", "--transport", "polling"]).await.len(), SESSIONS);
    assert_eq!(many.listed(&["--room", "room3"]).await.len(), 2 * SESSIONS / 10);
    assert_eq!(many.listed(&["--namespace", "/none"]).await.len(), 0);
    // By slot: together all of them, and each as it says.
    let mut by_slot = 0;
    for slot in 0..4 {
        let some = many.listed(&["--worker", &slot.to_string()]).await;
        let of_slot = format!("-{slot}.");
        assert!(
            some.iter()
                .all(|row| row["worker"].as_str().unwrap().contains(&of_slot))
        );
        by_slot += some.len();
    }
    assert_eq!(by_slot, 2 * SESSIONS);
    let count = &many.listed(&["count"]).await[0];
    assert_eq!(count["sessions"], 2 * SESSIONS);
    let by_transport = json!({ "polling": SESSIONS, "websocket": SESSIONS });
    assert_eq!(count["by_transport"], by_transport);
    let said = many.said("sessions", &["count", "--user", "u7"]).await;
    assert!(said.starts_with("2 sessions\n"), "{said}");
    let rooms = objects(&many.server.cli("rooms", &["--json"]).await);
    assert_eq!(rooms.len(), 10);
    assert!(
        rooms.iter().all(|room| room["members"] == 2 * SESSIONS / 10),
        "{rooms:?}"
    );
    let said = many.said("rooms", &["--namespace", "/"]).await;
    let is_there = said.contains("50 /                room3");
    assert!(is_there && said.ends_with("10 rooms\n"), "{said}");
    // A filter in the wrong place is not overlooked.
    let misplaced = many.server.cli("sessions", &["--room", "room3", "count"]).await;
    assert_eq!(misplaced.status.code(), Some(64), "{misplaced:?}");

    // Ids are secrets: nothing shows one whole unless it is asked to.
    let secret = &many.pollers[5].sid;
    for args in [
        &["list"][..],
        &["--json"],
        &["show", secret],
        &["show", secret, "--json"],
    ] {
        assert!(!many.said("sessions", args).await.contains(secret.as_str()), "{args:?}");
    }
    let whole = many.said("sessions", &["--full"]).await;
    assert!(many.pollers.iter().all(|poller| whole.contains(&poller.sid)));
    let page = many.said("sessions", &["show", &secret[..8]]).await;
    for part in ["who          u5\n", "polling", "room5", "without a sign of life"] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[tokio::test]
async fn a_kick_ends_the_named_session_at_once_and_no_other() {
    let mut many = Many::connect().await;
    let (mut gone, id) = many.wires.swap_remove(3);
    let polling = &many.pollers[4];
    let poll = polling.park();
    let ids = ["kick", "--", &id, &polling.sid[..10]];
    // The close has an answer of its own: stock clients take it before what stands with it.
    let client = async {
        assert_eq!(poll.await.unwrap().unwrap().pair(), (200, "41"));
        assert_eq!(polling.poll().await, ["1"]);
    };
    let (output, ()) = tokio::join!(many.server.cli("sessions", &ids), client);
    assert_eq!(text(&output).matches(": disconnected\n").count(), 2, "{output:?}");
    assert_eq!(gone.data().await, "41");
    assert_eq!(gone.end().await, None);
    polling.assert_gone().await;
    for action in ["kick", "show"] {
        let missing = many.server.cli("sessions", &[action, "--", &id]).await;
        assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    }
    let count = &many.listed(&["count"]).await[0];
    assert_eq!(count["sessions"], 2 * SESSIONS - 2);
    assert_eq!(many.wires[3].0.call(9, &json!(["echo", 1])).await, json!([1]));
}

#[tokio::test]
async fn a_kicked_session_cannot_be_resumed() {
    let server = Plan::new().start().await;
    // A session that never joined a namespace has no socket to disconnect; it is closed all the same.
    let mut silent = Wire::open(&server).await;
    let rows = server
        .redis()
        .keys_when("the session is stored", "socketio:session:*", 1)
        .await;
    let sid = rows[0]
        .trim_start_matches("socketio:session:{")
        .trim_end_matches('}')
        .to_owned();
    let output = server.cli("sessions", &["kick", "--", &sid]).await;
    assert!(text(&output).contains("its connection closed"), "{output:?}");
    assert_eq!(silent.end().await, None);
    // One that is away, and would be resumed.
    let mut away = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket&recovery=1", &[])
        .await
        .unwrap();
    away.text().await;
    let pid = away.connect().await["pid"].as_str().unwrap().to_owned();
    drop(away);
    server.redis().keys_when("it is lost", "socketio:lost:*", 1).await;
    let shown = server.cli("sessions", &["show", "--", &pid[..20]]).await;
    assert!(text(&shown).contains("can be resumed"), "{shown:?}");
    let output = server.cli("sessions", &["kick", "--", &pid[..20]]).await;
    assert!(text(&output).contains("cannot resume"), "{output:?}");
    let mut back = Wire::open(&server).await;
    back.send(&format!(r#"40{{"pid":"{pid}"}}"#)).await;
    let answer = back.data().await;
    assert!(!answer.contains(&pid), "{answer}");
}

/// Stores copies of the two sessions there are, until there are so many.
async fn multiply(redis: &Redis, wanted: usize) {
    let mut commands = Vec::new();
    let mut nth = 0;
    let keys = redis.keys("socketio:session:*").await;
    while commands.len() + keys.len() < wanted {
        for key in &keys {
            let Resp::Text(json) = redis.command(&["GET", key]).await else {
                panic!("GET {key}");
            };
            let sid = key.trim_start_matches("socketio:session:{").trim_end_matches('}');
            for _ in 0..100 {
                let copy = format!("copy{nth:016}");
                nth += 1;
                let (key, json) = (key.replace(sid, &copy), json.replace(sid, &copy));
                commands.push(["SET".to_owned(), key, json, "PX".to_owned(), "600000".to_owned()].to_vec());
            }
        }
    }
    commands.truncate(wanted - keys.len());
    // What stands beside the sessions of those that poll, for a scan to pass over.
    let others: Vec<_> = (0..wanted)
        .map(|nth| {
            vec![
                "HSET".to_owned(),
                format!("socketio:poll:{{{nth}}}"),
                "n".to_owned(),
                "0".to_owned(),
            ]
        })
        .collect();
    redis.pipeline(&commands).await;
    redis.pipeline(&others).await;
}

/// The most keys that one command of ours looks at: what makes Redis wait for it. None of them is a KEYS.
async fn most_keys_at_once(redis: &Redis) -> usize {
    let Resp::List(commands) = redis.command(&["SLOWLOG", "GET", "100000"]).await else {
        panic!("SLOWLOG");
    };
    commands
        .into_iter()
        .map(keys_looked_at)
        .max()
        .expect("commands were logged")
}

/// How many keys a command of SLOWLOG looks at.
fn keys_looked_at(entry: Resp) -> usize {
    let Resp::List(fields) = entry else { panic!("SLOWLOG") };
    let Resp::List(words) = &fields[3] else {
        panic!("SLOWLOG: {fields:?}")
    };
    let words: Vec<_> = words
        .iter()
        .map(|word| {
            let Resp::Text(word) = word else {
                panic!("SLOWLOG: {word:?}")
            };
            word.as_str()
        })
        .collect();
    match words[0].to_ascii_uppercase().as_str() {
        "KEYS" => panic!("KEYS"),
        "SCAN" => {
            let count = words
                .iter()
                .position(|word| *word == "COUNT")
                .expect("SCAN with a COUNT");
            words[count + 1].parse().unwrap()
        }
        // SLOWLOG shows the first 31 words of a long command, and says how many more there are.
        "MGET" => match words.last().and_then(|last| last.strip_prefix("... (")) {
            Some(more) => words.len() - 2 + more.split(' ').next().unwrap().parse::<usize>().unwrap(),
            None => words.len() - 1,
        },
        _ => 1,
    }
}

#[tokio::test]
async fn ten_thousand_sessions_are_listed_within_a_second_of_cpu_time() {
    let server = Plan::new().start().await;
    let redis = server.redis();
    let (_wire, _) = wire(&server, "ada", "news").await;
    let _poller = poller(&server, "bob", "news").await;
    multiply(redis, MANY).await;
    let everything = [
        "CONFIG",
        "SET",
        "slowlog-log-slower-than",
        "0",
        "slowlog-max-len",
        "100000",
    ];
    redis.command(&everything).await;
    redis.command(&["SLOWLOG", "RESET"]).await;
    let took = look_at_all(&server).await;
    let keys = most_keys_at_once(redis).await;
    eprintln!("{MANY} sessions: {took:?}; {keys} keys at once");
    for (command, took) in took {
        assert!(took < MANY_WITHIN, "{command}: {took:?}");
    }
    assert!((100..=KEYS_AT_ONCE_MAX).contains(&keys), "{keys} keys at once");
}

/// The CPU time of all programs that this test has run to their end.
fn cpu_of_programs() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    [used.user_time(), used.system_time()]
        .into_iter()
        .map(|time| {
            Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
        })
        .sum()
}

/// Every way to see them, and how much CPU time it took.
async fn look_at_all(server: &Server) -> Vec<(String, Duration)> {
    let mut took = Vec::new();
    for args in [
        &["list"][..],
        &["--json"],
        &["count"],
        &["count", "--json", "--room", "news"],
        &["show", "copy0000000000000777"],
    ] {
        let before = cpu_of_programs();
        let output = server.cli("sessions", args).await;
        took.push((args.join(" "), cpu_of_programs() - before));
        let said = text(&output);
        match args {
            ["list"] => assert!(said.ends_with(&format!("{MANY} sessions\n"))),
            ["--json"] => assert_eq!(said.lines().count(), MANY),
            ["count"] => assert!(said.starts_with(&format!("{MANY} sessions\n"))),
            ["show", ..] => assert!(said.contains("news"), "{said}"),
            _ => assert!(said.contains(&format!(r#""sessions":{MANY}"#)), "{said}"),
        }
    }
    let before = cpu_of_programs();
    let said = text(&server.cli("rooms", &[]).await);
    took.push(("rooms".to_owned(), cpu_of_programs() - before));
    assert!(said.contains(&format!("{MANY} /                news")), "{said}");
    took
}

#[tokio::test]
async fn without_redis_there_is_nothing_to_see() {
    let server = Plan::new()
        .without_redis()
        .env("REDIS_ENABLED", "false")
        .with("workers = { count = 1 }")
        .start()
        .await;
    for command in ["sessions", "rooms"] {
        let output = server.cli(command, &[]).await;
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("redis.enabled"),
            "{output:?}"
        );
    }
    let mut server = Plan::new().start().await;
    server.redis_mut().kill();
    let output = server.cli("sessions", &["count"]).await;
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}
