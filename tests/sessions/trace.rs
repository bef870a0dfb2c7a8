//! The life of a session across workers, as it is told afterwards.

use crate::harness::{PATIENCE, Plan, Poller, Server, Wire, ms, signal, until};
use crate::many::{objects, text, wire};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What the notes about a session say, once `wanted` is among it.
async fn life(server: &Server, sid: &str, wanted: &str) -> Vec<Value> {
    until(wanted, async || {
        let output = server.cli("trace", &[sid, "--json"]).await;
        let notes = if output.status.success() {
            objects(&output)
        } else {
            Vec::new()
        };
        notes.iter().any(|note| note["what"] == wanted).then_some(notes)
    })
    .await
}

/// The steps of a life, requests left out.
fn steps(life: &[Value]) -> Vec<&str> {
    let all = life.iter().map(|note| note["what"].as_str().unwrap());
    all.filter(|what| !matches!(*what, "get" | "post" | "sent_on"))
        .collect()
}

/// What is noted about a session, once it took these steps. Each worker writes its notes once a second.
async fn lived(server: &Server, sid: &str, wanted: &[&str]) -> Vec<Value> {
    let mut last = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            last = life(server, sid, wanted[wanted.len() - 1]).await;
            if steps(&last) == wanted {
                return;
            }
        }
    });
    assert!(found.await.is_ok(), "{wanted:?}, not {:?}", steps(&last));
    last
}

fn find<'a>(life: &'a [Value], what: &str) -> &'a Value {
    life.iter()
        .find(|note| note["what"] == what)
        .unwrap_or_else(|| panic!("no {what} in {life:?}"))
}

#[tokio::test]
async fn a_polling_session_upgrades_and_leaves() {
    let server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    poller.say(r#"40{"user":"ada"}"#).await;
    poller.poll_until(|packet| packet.starts_with("40")).await;
    assert_eq!(poller.call(0, &json!(["join", "ne\tws"])).await, json!(["ok"]));
    let mut upgraded = Wire::dial(server.addr, &poller.upgrade_target(), &[]).await.unwrap();
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    upgraded.send("5").await;
    assert_eq!(upgraded.call(1, &json!(["leave", "ne\tws"])).await, json!(["ok"]));
    upgraded.send("1").await;
    let wanted = [
        "opened",
        "connected",
        "joined",
        "upgrading",
        "upgraded",
        "left",
        "closed",
    ];
    // Each request, its worker, its number of packets. A worker that only answered a poll writes its notes at a time of its own.
    let is_request = |note: &&Value| note["what"] == "get" || note["what"] == "post";
    let life = until("the notes of all requests", async || {
        let life = lived(&server, &poller.sid, &wanted).await;
        (life.iter().filter(is_request).count() >= 4).then_some(life)
    })
    .await;
    assert_eq!(find(&life, "opened")["fields"]["transport"], "polling");
    assert_eq!(find(&life, "connected")["fields"]["who"], "ada");
    assert_eq!(find(&life, "joined")["fields"]["room"], "ne ws");
    assert_eq!(find(&life, "closed")["fields"]["why"], "client left");
    let requests: Vec<_> = life.iter().filter(is_request).collect();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(requests.iter().all(|note| note["fields"]["packets"] == "1"));
    assert!(
        requests
            .iter()
            .all(|note| note["worker"].as_str().unwrap().contains('-'))
    );
    // In text: short ids, and how it stands.
    let said = text(&server.cli("trace", &[&poller.sid[..8]]).await);
    assert!(
        !said.contains(&poller.sid) && said.contains("lost, can be resumed"),
        "{said}"
    );
    assert!(text(&server.cli("trace", &[&poller.sid, "--full"]).await).contains(&poller.sid));
}

#[tokio::test]
async fn a_life_goes_on_after_a_worker_died() {
    let server = Plan::new().start().await;
    let mut first = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket&recovery=1", &[])
        .await
        .unwrap();
    let open: Value = serde_json::from_str(first.text().await.strip_prefix('0').unwrap()).unwrap();
    let sid = open["sid"].as_str().unwrap();
    let joined = first.connect().await;
    assert_eq!(first.call(0, &json!(["join", "news"])).await, json!(["ok"]));
    // The notes of the last second would be lost with the worker.
    life(&server, sid, "joined").await;
    let holder = server.holder().await;
    signal(holder, Signal::SIGKILL);
    first.drain().await;
    let died = life(&server, sid, "worker_died").await;
    let dead = died[0]["worker"].as_str().unwrap();
    assert_eq!(find(&died, "worker_died")["fields"]["worker"], dead);
    // Told by a survivor, and only once.
    assert_ne!(find(&died, "worker_died")["worker"], dead);
    let mut second = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket&recovery=1", &[])
        .await
        .unwrap();
    second.text().await;
    second.send(&format!(r#"40{{"pid":{}}}"#, joined["pid"])).await;
    assert_eq!(second.data().await, format!("40{joined}"));
    let wanted = [
        "opened",
        "connected",
        "joined",
        "worker_died",
        "opened",
        "resumed",
        "goes_on_as",
    ];
    let whole = lived(&server, sid, &wanted).await;
    assert_eq!(find(&whole, "resumed")["fields"]["worker"], dead);
    // From the other end, by the id that everybody sees.
    let socket = joined["sid"].as_str().unwrap();
    assert_eq!(life(&server, socket, "resumed").await, whole);
    // A client that comes with nonsense gets the reason.
    let mut third = Wire::open(&server).await;
    third.send(r#"40{"pid":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#).await;
    let answer: Value = serde_json::from_str(third.data().await.strip_prefix("40").unwrap()).unwrap();
    let refused = life(&server, answer["sid"].as_str().unwrap(), "not_recovered").await;
    let why = find(&refused, "not_recovered")["fields"]["why"].as_str().unwrap();
    assert!(why.contains("window is over"), "{why}");
}

#[tokio::test]
async fn a_reload_is_a_move_and_a_kick_is_a_kick() {
    let server = Plan::new().with("reload = { soak_ms = 0 }").start().await;
    let (mut client, id) = wire(&server, "ada", "news").await;
    let before = lived(&server, &id, &["opened", "connected", "joined"]).await;
    assert!(server.cli("reload", &["--wait"]).await.status.success());
    let moved = life(&server, &id, "moved").await;
    let step = find(&moved, "moved");
    assert_eq!(step["fields"]["from"], before[0]["worker"]);
    assert_ne!(step["worker"], before[0]["worker"]);
    assert_eq!(client.call(1, &json!(["echo", 1])).await, json!([1]));
    server.cli("sessions", &["kick", "--", &id]).await;
    assert_eq!(client.data().await, "41");
    let wanted = [
        "opened",
        "connected",
        "joined",
        "moved",
        "kicked",
        "disconnected",
        "closed",
    ];
    let ended = lived(&server, &id, &wanted).await;
    assert_eq!(find(&ended, "closed")["fields"]["recoverable"], "no");
    let unknown = server.cli("trace", &["nobodynobodynobodyno"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains("reach back to"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn notes_are_bounded_and_can_be_switched_off() {
    let server = Plan::new().with("trace = { level = 'off' }").start().await;
    let (_client, id) = wire(&server, "ada", "news").await;
    harness::pass(ms(1500)).await;
    assert_eq!(server.redis().keys("socketio:trace*").await, Vec::<String>::new());
    assert_eq!(server.cli("trace", &[&id]).await.status.code(), Some(1));
    // Only lives, not requests.
    let server = Plan::new()
        .with("trace = { level = 'sessions', age_max_ms = 600000 }")
        .start()
        .await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    poller.leave().await;
    let life = lived(&server, &poller.sid, &["opened", "connected", "closed"]).await;
    assert_eq!(life.len(), 3, "{life:?}");
    // Nothing of it looks like a session, and it does not stay for ever.
    assert!(!server.redis().keys("socketio:trace*").await.is_empty());
    assert_eq!(server.redis().keys("socketio:session:*").await, Vec::<String>::new());
    for key in server.redis().keys("socketio:trace*").await {
        let ttl = server.redis().command(&["PTTL", &key]).await;
        assert!(
            matches!(ttl, harness::Resp::Int(left) if (1..=600_000).contains(&left)),
            "{key}: {ttl:?}"
        );
    }
}
