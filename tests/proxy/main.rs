//! Stock clients through real proxies, set up as `docs/proxy` says, to two fleets that share one Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod front;
extern crate harness;

use front::{Front, Kind, is_installed};
use harness::{Plan, Poller, Program, Redis, Request, Resp, Server, ask, ms, node, pass, python, signal, soon, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::oneshot;

/// Of each transport.
const CLIENTS: usize = 200;

/// Of a room.
const MEMBERS: usize = 30;

const TRANSPORTS: [&str; 3] = ["polling", "polling,websocket", "websocket"];

/// Between two faults.
const FAULT_EVERY: Duration = ms(1_000);

/// Two fleets of four workers; the first has the Redis, so it goes last.
struct Fleets {
    second: Server,
    first: Server,
}

impl Fleets {
    async fn start() -> Self {
        Self::with(Plan::new).await
    }

    async fn with(plan: impl Fn() -> Plan) -> Self {
        let plan = || plan().with("http = { trusted_proxies = ['127.0.0.1'] }");
        let first = plan().start().await;
        let shared = format!("redis = {{ url = '{}' }}", first.redis().url());
        let second = plan().without_redis().with(&shared).start().await;
        Self { second, first }
    }

    async fn behind(&self, kind: Kind) -> Front {
        Front::start(kind, [self.first.addr, self.second.addr]).await
    }

    async fn reload(&self) {
        for fleet in [&self.first, &self.second] {
            let output = fleet.cli("reload", &["--wait"]).await;
            assert!(output.status.success(), "{output:?}");
        }
    }
}

/// Clients of every transport get their acks, and stay connected while both fleets are reloaded.
async fn clients_do_not_notice_a_reload(kind: Kind, program: fn() -> Program) {
    let fleets = Fleets::start().await;
    let front = fleets.behind(kind).await;
    let herds = TRANSPORTS.map(|transports| {
        let (end, ended) = oneshot::channel();
        let herd = program()
            .arg("--url", &front.url())
            .arg("--clients", &CLIENTS.to_string())
            .arg("--transports", transports)
            .flag("--until-closed")
            .until(ended);
        (transports, tokio::spawn(herd.run()), end)
    });
    let redis = fleets.first.redis();
    let all = CLIENTS * TRANSPORTS.len();
    let keys = redis.keys_when("all are there", "socketio:session:*", all).await;
    let records: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    until("all ride what they want", async || {
        let Resp::List(records) = redis.command(&records).await else {
            panic!("no list");
        };
        let rides = |record: &&Resp| matches!(record, Resp::Text(json) if json.contains(r#""transport":"websocket""#));
        (records.iter().filter(rides).count() == 2 * CLIENTS).then_some(())
    })
    .await;
    fleets.reload().await;
    for (transports, herd, end) in herds {
        drop(end);
        let (found, content) = herd.await.unwrap();
        let all = json!({
            "clients": CLIENTS, "connected": CLIENTS, "acked": CLIENTS,
            "carried": CLIENTS, "alive": CLIENTS, "errors": {},
        });
        assert_eq!(found, all, "{transports}");
        assert!(content, "{transports}");
    }
}

/// What members of a room found while `fault` went on, again and again: all that was published came once and in
/// order, and every client that was cut off resumed.
async fn members(front: &Front, redis: &Redis, transports: &str, fault: impl AsyncFn(usize)) -> Value {
    let program = node("resume.mjs")
        .arg("--url", &front.url())
        .arg("--clients", &MEMBERS.to_string())
        .arg("--transports", transports)
        .arg("--publishes", "150")
        .run();
    let faults = async {
        until("all are there", async || {
            (redis.keys("socketio:session:*").await.len() > MEMBERS).then_some(())
        })
        .await;
        for round in 0.. {
            fault(round).await;
            pass(FAULT_EVERY).await;
        }
    };
    let (found, content) = tokio::select! {
        ended = program => ended,
        () = faults => unreachable!("faults go on for ever"),
    };
    assert!(content, "{transports}: {found}");
    assert_eq!(found["disconnects"], found["recovered"], "{transports}: {found}");
    found
}

/// Workers die behind the proxy, which repeats what they did not answer.
async fn nothing_is_lost(kind: Kind) {
    // With the answer of a poll on its lips: what it was is told once more. Before it has begun: nothing is left out.
    let faults = "kill@PollAnswered=300,kill@PollAsked=300";
    let fleets = Fleets::with(|| Plan::new().env("FAULT_POINTS", faults)).await;
    let front = fleets.behind(kind).await;
    let found = members(&front, fleets.first.redis(), "polling", async |_| {}).await;
    let deaths = |fleet: &Server| fleet.log().matches("worker exited").count();
    assert!(deaths(&fleets.first) + deaths(&fleets.second) > 0, "{found}");
    drop((front, fleets));

    // One host, whose address stands in both places.
    let fleet = Plan::new().start().await;
    let front = Front::start(kind, [fleet.addr, fleet.addr]).await;
    let found = members(&front, fleet.redis(), "polling,websocket", async |round| {
        let pids = until("a worker that serves", async || {
            Some(fleet.status().await.ready_pids()).filter(|pids| !pids.is_empty())
        })
        .await;
        signal(pids[round % pids.len()], Signal::SIGKILL);
    })
    .await;
    assert!(found["disconnects"].as_u64() > Some(0), "no client was hit: {found}");
}

#[tokio::test]
async fn node_through_nginx() {
    clients_do_not_notice_a_reload(Kind::Nginx, || node("herd.mjs")).await;
}

#[tokio::test]
async fn python_through_haproxy() {
    clients_do_not_notice_a_reload(Kind::Haproxy, || python("herd.py")).await;
}

#[tokio::test]
async fn kills_behind_nginx() {
    nothing_is_lost(Kind::Nginx).await;
}

#[tokio::test]
async fn kills_behind_haproxy() {
    nothing_is_lost(Kind::Haproxy).await;
}

/// Where there is no Caddy it says so.
#[tokio::test]
async fn kills_behind_caddy() {
    if is_installed("caddy") {
        nothing_is_lost(Kind::Caddy).await;
    } else {
        eprintln!("skipped: caddy is not in PATH");
    }
}

/// A POST that the worker of the other fleet gets once more is answered like the first one, and its events count once.
#[tokio::test]
async fn a_post_counts_once() {
    const ID: &str = "X-Anyworker-Request";
    let fleets = Fleets::start().await;
    let poller = Poller::open(&fleets.first).await;
    poller.connect().await;
    poller.call(0, &json!(["join", "room"])).await;
    for addr in [fleets.first.addr, fleets.second.addr, fleets.first.addr] {
        let request = Request::post(&poller.target(), r#"421["publish","room","once"]"#).header(ID, "the same");
        assert_eq!(soon("an answer", ask(addr, request)).await.unwrap().pair(), (200, "ok"));
    }
    poller.say(r#"422["publish","room","last"]"#).await;
    let packets = poller.poll_until(|packet| packet.contains("last")).await;
    let published = |text: &str| packets.iter().filter(|packet| packet.contains(text)).count();
    assert_eq!((published("once"), published("last")), (1, 1), "{packets:?}");
}

#[tokio::test]
async fn clients_keep_their_address() {
    let fleets = Fleets::start().await;
    let redis = fleets.first.redis();
    for (nth, kind) in [Kind::Nginx, Kind::Haproxy].into_iter().enumerate() {
        let front = fleets.behind(kind).await;
        // Not an address of the machine's own proxy: one that a client behind it would have.
        let forwarded = format!("192.0.2.{nth}");
        let open = Request::get("/socket.io/?EIO=4&transport=polling").header("X-Forwarded-For", &forwarded);
        let reply = soon("a handshake", ask(front.addr, open)).await.unwrap();
        let key = format!(
            "socketio:session:{{{}}}",
            Poller::opened(front.addr, "/socket.io/", &reply).sid
        );
        let Resp::Text(record) = redis.command(&["GET", &key]).await else {
            panic!("no record");
        };
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["address"], forwarded, "{kind:?}");
    }
}
