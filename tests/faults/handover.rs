//! Live connections move from worker to worker, and their clients do not notice; whichever process dies in the
//! middle.

use crate::crowd::{Crowd, Seen, local};
use crate::harness::{Plan, Poller, Server, Wire, Worker, children, ms, node, pass, signal, until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

const MEMBERS: usize = 40;
/// Messages go on for so long after a fault.
const AFTERWARDS: Duration = ms(300);

async fn reload(server: &Server) {
    let output = server.cli("reload", &["--wait"]).await;
    assert!(output.status.success(), "{output:?}");
}

/// No client noticed anything.
#[track_caller]
fn assert_unnoticed(all: &[Seen]) {
    for seen in all {
        assert_eq!((seen.disconnects, &seen.faults), (0, &vec![]), "{seen:?}");
        assert!(seen.echoes > 0, "{seen:?}");
    }
}

#[tokio::test]
async fn websockets_stay_through_reloads_under_load() {
    local(async {
        let server = Plan::new().start().await;
        let crowd = Crowd::start(&server, MEMBERS, ms(2)).await;
        server.holding(MEMBERS as u64 + 1).await;
        for _ in 0..5 {
            reload(&server).await;
            let last = server.status().await.supervisor.last_handover.expect("a handover");
            // The publisher is one of them.
            assert_eq!((last.moved, last.stayed.len()), (MEMBERS as u64 + 1, 0), "{last:?}");
            assert!(last.freeze_max_us > 0 && last.freeze_p50_us <= last.freeze_p99_us);
        }
        assert_unnoticed(&crowd.finish().await);
    })
    .await;
}

#[tokio::test]
async fn what_is_on_its_way_arrives() {
    let server = Plan::new().start().await;
    let mut half = Wire::open(&server).await;
    half.connect().await;
    let mut pieces = Wire::open(&server).await;
    pieces.connect().await;
    let mut binary = Wire::open(&server).await;
    binary.connect().await;
    let mut early = Wire::open(&server).await;
    // A frame without its end, the first of two frames, the first of two packets, and a namespace to come.
    let frame = [&[0x81, 0x80 | 17, 0, 0, 0, 0][..], br#"427["echo","abc"#].concat();
    half.send_raw(&frame).await;
    pieces
        .send_raw(&[&[0x01, 0x80 | 8, 0, 0, 0, 0][..], br#"428["echo"#.get(..8).expect("8")].concat())
        .await;
    binary.send(r#"451-9["echo",{"_placeholder":true,"num":0}]"#).await;
    server.holding(4).await;
    for _ in 0..3 {
        reload(&server).await;
    }
    half.send_raw(b"\"]").await;
    assert_eq!(half.data().await, r#"437["abc"]"#);
    pieces
        .send_raw(&[&[0x80, 0x80 | 6, 0, 0, 0, 0][..], br#"o",12]"#].concat())
        .await;
    assert_eq!(pieces.data().await, "438[12]");
    binary.send_binary(&[1, 2, 3]).await;
    assert_eq!(binary.data().await, r#"461-9[{"_placeholder":true,"num":0}]"#);
    early.connect().await;
    assert_eq!(early.call(1, &json!(["echo", 5])).await, json!([5]));
    let last = server.status().await.supervisor.last_handover.expect("a handover");
    assert_eq!((last.moved, last.stayed.len()), (4, 0), "{last:?}");
}

#[tokio::test]
async fn heartbeats_go_on_as_promised() {
    let mut server = Plan::new()
        .with("engine = { ping_interval_ms = 700, ping_timeout_ms = 900 }")
        .start()
        .await;
    let mut answers = Wire::open(&server).await;
    answers.connect().await;
    let mut silent = Wire::open(&server).await;
    silent.connect().await;
    // The clients were told the old interval.
    server.reconfigure("engine = { ping_interval_ms = 60000, ping_timeout_ms = 60000 }");
    for _ in 0..2 {
        reload(&server).await;
        assert_eq!(answers.text().await, "2");
        answers.send("3").await;
    }
    assert_eq!(answers.text().await, "2");
    assert_eq!(silent.end().await, None, "no pong");
}

#[tokio::test]
async fn without_a_common_store_everybody_is_sent_away() {
    let mut server = Plan::new().start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    server.reconfigure("redis = { prefix = 'other' }");
    let reloading = async {
        reload(&server).await;
        server.status().await.supervisor.last_handover.expect("a handover")
    };
    let (last, end) = tokio::join!(reloading, wire.end());
    assert_eq!(end, Some(1012));
    assert_eq!(last.moved, 0);
    assert_eq!(
        last.stayed.get("the other worker has another store"),
        Some(&1),
        "{last:?}"
    );
}

#[tokio::test]
async fn stock_clients_see_no_disconnect() {
    let server = Plan::new().start().await;
    let url = server.url();
    let herd = node("herd.mjs")
        .arg("--url", &url)
        .arg("--clients", "60")
        .arg("--transports", "polling,websocket")
        .arg("--hold-ms", "8000");
    let reloads = async {
        server.holding(60).await;
        for _ in 0..4 {
            reload(&server).await;
        }
    };
    let ((result, content), ()) = tokio::join!(herd.run(), reloads);
    assert!(content, "{result}");
    assert_eq!(result["alive"], 60, "{result}");
}

#[tokio::test]
async fn an_upgrade_under_way_goes_on() {
    let server = Plan::new().start().await;
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let mut wire = Wire::dial(server.addr, &poller.upgrade_target(), &[])
        .await
        .expect("a WebSocket");
    wire.send("2probe").await;
    assert_eq!(wire.text().await, "3probe");
    server.signal(Signal::SIGHUP);
    server
        .status_when("all slots have a new worker", |status| {
            let new = |worker: &&Worker| worker.generation == 2 && worker.state == "ready";
            status.workers.iter().filter(new).count() == 4
        })
        .await;
    wire.send("5").await;
    assert_eq!(wire.call(0, &json!(["echo", "over"])).await, json!(["over"]));
    server.logged("reload completed").await;
    assert_eq!(wire.call(1, &json!(["echo", "moved"])).await, json!(["moved"]));
}

#[tokio::test]
async fn fewer_and_more_slots_move_connections_too() {
    local(async {
        let server = Plan::new().with("workers = { count = 2 }").start().await;
        let crowd = Crowd::start(&server, MEMBERS, ms(5)).await;
        for count in [6, 1, 3] {
            let output = server.cli("scale", &[&count.to_string()]).await;
            assert!(output.status.success(), "{output:?}");
            server
                .status_when("so many slots", |status| {
                    status.ready_pids().len() == count && status.workers.len() == count
                })
                .await;
            server.holding(MEMBERS as u64 + 1).await;
            let output = server.cli("rebalance", &[]).await;
            assert!(output.status.success(), "{output:?}");
            let all = MEMBERS as u64 + 1;
            let fair = all / count as u64;
            server
                .status_when("even slots", |status| {
                    status.sessions() == all && status.workers.iter().all(|worker| worker.sessions.abs_diff(fair) <= 1)
                })
                .await;
        }
        assert_unnoticed(&crowd.finish().await);
    })
    .await;
}

/// `anyworker reload --wait && anyworker rebalance`, and a look at the result.
#[tokio::test]
async fn what_has_just_moved_is_counted_where_it_is() {
    local(async {
        let server = Plan::new()
            .with("workers = { count = 4 }\nreload = { soak_ms = 0 }")
            .start()
            .await;
        let crowd = Crowd::start(&server, MEMBERS, ms(5)).await;
        let fair = (MEMBERS as u64 + 1) / 4;
        for _ in 0..3 {
            reload(&server).await;
            let output = server.cli("rebalance", &[]).await;
            assert!(output.status.success(), "{output:?}");
            let status = server.status().await;
            let mut ready = status.workers.iter().filter(|worker| worker.state == "ready");
            assert!(ready.all(|worker| worker.sessions.abs_diff(fair) <= 1), "{status:?}");
        }
        assert_unnoticed(&crowd.finish().await);
    })
    .await;
}

/// Where a handover can be hit.
const PLACES: [&str; 8] = [
    "give.greeted",
    "give.frozen",
    "give.sent",
    "give.answered",
    "take.received",
    "take.rebuilt",
    "take.owned",
    "take.live",
];

/// A server whose `place` is hit by `fault` in a reload, with a crowd.
async fn hit(place: &str, fault: &str) -> (Server, Crowd) {
    let mut server = Plan::new()
        .with("workers = { count = 2 }\nreload = { soak_ms = 0 }")
        .prepare()
        .await;
    let once = server.directory().join("once");
    server.set_env("TEST_HANDOVER_FAULT", &format!("{place}:{fault}:{}", once.display()));
    server.run();
    server.ready().await;
    let crowd = Crowd::start(&server, 30, ms(3)).await;
    server.signal(Signal::SIGHUP);
    server.logged("fault of a test").await;
    (server, crowd)
}

/// Nothing was lost, doubled or turned round, and every session went on.
#[track_caller]
fn assert_kept(place: &str, all: &[Seen]) {
    for seen in all {
        assert_eq!((seen.forgotten, &seen.faults), (0, &vec![]), "{place}: {seen:?}");
        assert!(seen.echoes > 0, "{place}: {seen:?}");
    }
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_loses_nothing() {
    for place in PLACES {
        local(async {
            let (server, crowd) = hit(place, "kill").await;
            server
                .status_when("it serves again", |status| {
                    status.supervisor.state == "serving" && status.ready_pids().len() == 2
                })
                .await;
            pass(AFTERWARDS).await;
            let all = crowd.finish().await;
            assert_kept(place, &all);
            let cut = all.iter().filter(|seen| seen.disconnects > 0).count();
            eprintln!("{place}: {cut} of {} noticed", all.len());
            // As long as it owned nothing, they were the old worker's, which found somebody else to give them to.
            if matches!(place, "take.received" | "take.rebuilt") {
                assert_eq!(cut, 0, "{place}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_worker_that_sleeps_in_the_middle_never_writes_to_what_it_lost() {
    for place in ["give.sent", "take.received", "take.rebuilt"] {
        local(async {
            let (server, crowd) = hit(place, "stop").await;
            let stopped = stopped_child(&server, None).await;
            // The other one has decided by then.
            pass(ms(1_000)).await;
            signal(stopped, Signal::SIGCONT);
            server
                .status_when("it serves again", |status| {
                    status.supervisor.state == "serving" && status.ready_pids().len() == 2
                })
                .await;
            pass(AFTERWARDS).await;
            let all = crowd.finish().await;
            assert_kept(place, &all);
            let cut = all.iter().filter(|seen| seen.disconnects > 0).count();
            eprintln!("{place}: {cut} of {} noticed", all.len());
        })
        .await;
    }
}

#[tokio::test]
async fn a_supervisor_killed_in_the_middle_loses_nothing() {
    for place in PLACES {
        local(async {
            let (mut server, crowd) = hit(place, "parent").await;
            assert!(server.exit_within(ms(5_000)).await.code().is_none(), "killed");
            server.run();
            server.ready().await;
            pass(AFTERWARDS).await;
            assert_kept(place, &crowd.finish().await);
        })
        .await;
    }
}

/// A Redis that goes away in the middle of it, and stays away for long.
#[tokio::test]
async fn a_session_that_moves_while_redis_is_away_goes_on() {
    /// Longer than anybody tries in vain.
    const AWAY: Duration = ms(13_000);
    let mut server = Plan::new()
        .durable_redis()
        .with("workers = { count = 1 }\nreload = { soak_ms = 0 }")
        .with("engine = { ping_interval_ms = 700, ping_timeout_ms = 3000 }")
        .prepare()
        .await;
    let once = server.directory().join("once");
    server.set_env("TEST_HANDOVER_FAULT", &format!("take.owned:stop:{}", once.display()));
    server.run();
    server.ready().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    server.signal(Signal::SIGHUP);
    server.logged("fault of a test").await;
    let stopped = stopped_child(&server, None).await;
    server.redis_mut().kill();
    signal(stopped, Signal::SIGCONT);
    let (began, mut id) = (Instant::now(), 0);
    while began.elapsed() < AWAY {
        id += 1;
        assert_eq!(wire.call(id, &json!(["echo", id])).await, json!([id]));
        pass(ms(100)).await;
    }
    let refused = json!([{ "error": "service unavailable, try again" }]);
    assert_eq!(wire.call(0, &json!(["join", "room"])).await, refused);
    server.redis_mut().again().await;
    while wire.call(0, &json!(["join", "room"])).await == refused {
        pass(ms(50)).await;
    }
    // It is as good as any other, also after its next sign of life.
    let began = Instant::now();
    while began.elapsed() < ms(2_000) {
        id += 1;
        assert_eq!(wire.call(id, &json!(["echo", id])).await, json!([id]));
        pass(ms(100)).await;
    }
    let mut other = Wire::open(&server).await;
    other.connect().await;
    assert_eq!(other.call(0, &json!(["publish", "room", 1])).await, json!(["ok"]));
    assert!(wire.data().await.starts_with(r#"42["message",1"#));
}

/// The process of the server's that is stopped; another one than `known`.
pub(crate) async fn stopped_child(server: &Server, known: Option<u32>) -> u32 {
    let is_stopped = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
    };
    until("a stopped worker", async || {
        let mut others = children(server.pid()).into_iter().filter(|pid| Some(*pid) != known);
        others.find(is_stopped)
    })
    .await
}

/// Each is answered by whichever worker reads its close frame: before, during or after a move.
#[tokio::test]
async fn goodbyes_during_reloads_are_answered() {
    let server = Plan::new().start().await;
    let mut wires = Vec::new();
    for _ in 0..MEMBERS {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        wires.push(wire);
    }
    server.holding(MEMBERS as u64).await;
    let goodbyes = async {
        let mut codes = Vec::new();
        for mut wire in wires {
            // Masked with zeros: the code is 4001.
            wire.send_raw(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa1]).await;
            codes.push(wire.end().await);
            pass(ms(25)).await;
        }
        codes
    };
    let (codes, ()) = tokio::join!(goodbyes, async {
        reload(&server).await;
        reload(&server).await;
    });
    assert_eq!(codes, vec![Some(4001); MEMBERS]);
    server.holding(0).await;
}
