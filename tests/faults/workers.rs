//! Workers that die, hang, or die again and again.

use crate::harness::{Link, Plan, Poller, Request, Server, Status, ask, ms, pass, soon, until, until_within, within};
use crate::traffic::{Traffic, assert_alive, assert_unbroken};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

const SESSIONS: usize = 200;
/// A worker that was killed is back by then.
const BACK: Duration = ms(1000);

/// Signals the worker of a slot; returns its pid.
async fn hit(server: &Server, slot: u16, signal: Signal) -> u32 {
    let status = server.status().await;
    let worker = status
        .workers
        .iter()
        .find(|worker| worker.slot == slot && worker.pid.is_some());
    let pid = worker.and_then(|worker| worker.pid).expect("a worker");
    harness::signal(pid, signal);
    pid
}

/// Until the process is dead: gone, or a zombie.
async fn dead(pid: u32) -> Instant {
    until("the process is dead", async || {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return Some(());
        };
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X']))
            .then_some(())
    })
    .await;
    Instant::now()
}

fn is_ready(status: &Status, slot: u16, not: u32) -> bool {
    let mut of_slot = status.workers.iter().filter(|worker| worker.slot == slot);
    of_slot.any(|worker| worker.state == "ready" && worker.pid.is_some_and(|pid| pid != not))
}

#[tokio::test]
async fn a_killed_worker_costs_no_session() {
    let server = Plan::new().start().await;
    let traffic = Traffic::start(&server, SESSIONS, 1).await;
    let mut troubles = Vec::new();
    for slot in 0..4 {
        let before = Instant::now();
        let pid = hit(&server, slot, Signal::SIGKILL).await;
        let gone = dead(pid).await;
        until_within(BACK, "the worker is back", async || {
            is_ready(&server.status().await, slot, pid).then_some(())
        })
        .await;
        troubles.push((before, gone));
    }
    let keys = server.redis().keys("socketio:session:*").await;
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &troubles);
    assert_eq!(keys.len(), SESSIONS);
}

#[tokio::test]
async fn leases_of_a_worker_that_dies_while_redis_is_away_are_void_when_it_is_back() {
    let mut server = Plan::new().with("workers = { count = 2 }").start().await;
    server.redis_mut().kill();
    let pid = hit(&server, 0, Signal::SIGKILL).await;
    dead(pid).await;
    server.logged("worker exited").await;
    // By now the other one has tried.
    pass(ms(500)).await;
    server.redis_mut().again().await;
    server
        .redis()
        .keys_when("the mark of the dead", "socketio:dead:*", 1)
        .await;
}

#[tokio::test]
async fn what_waits_in_the_queue_of_a_dead_worker_is_served() {
    let server = Plan::new().start().await;
    let pid = hit(&server, 2, Signal::SIGSTOP).await;
    let request = Request::get("/socket.io/?EIO=4&transport=polling");
    let mut links = Vec::new();
    for _ in 0..60 {
        let mut link = Link::open(server.addr).await.expect("connect");
        link.send(&request.bytes(server.addr)).await.expect("send");
        links.push(link);
    }
    let mut answers: Vec<_> = links
        .into_iter()
        .map(|mut link| tokio::spawn(async move { link.reply(false).await }))
        .collect();
    // The others answer; what is left waits for the one that is stopped.
    until("answers of the living", async || {
        let count = answers.iter().filter(|answer| answer.is_finished()).count();
        (count >= 20).then_some(())
    })
    .await;
    harness::signal(pid, Signal::SIGKILL);
    let waited = answers.iter().filter(|answer| !answer.is_finished()).count();
    assert!(waited > 0, "nothing waited in its queue");
    for answer in answers.drain(..) {
        let reply = soon("an answer", answer).await.expect("a task").expect("no reset");
        Poller::opened(server.addr, "/socket.io/", &reply);
    }
}

#[tokio::test]
async fn a_stopped_worker_gets_no_connections_and_comes_back() {
    let server = Plan::new().start().await;
    let pid = hit(&server, 1, Signal::SIGSTOP).await;
    let lagging = |status: &Status| {
        let worker = status.workers.iter().find(|worker| worker.pid == Some(pid));
        worker.is_some_and(|worker| worker.state == "lagging")
    };
    server.status_when("it lags", lagging).await;
    // While it lasts no client meets it.
    for _ in 0..40 {
        let reply = within(ms(1000), "handshake", Poller::handshake(server.addr, "/socket.io/")).await;
        assert_eq!(reply.expect("handshake").status, 200);
    }
    harness::signal(pid, Signal::SIGCONT);
    server
        .status_when("it is ready again", |status| status.ready_pids().contains(&pid))
        .await;
    for _ in 0..40 {
        let poller = Poller::open(&server).await;
        poller.connect().await;
    }
}

#[tokio::test]
async fn a_hung_worker_is_replaced_and_its_sessions_go_on() {
    let server = Plan::new().start().await;
    let traffic = Traffic::start(&server, 60, 2).await;
    let began = Instant::now();
    let pid = hit(&server, 3, Signal::SIGSTOP).await;
    until_within(Duration::from_secs(30), "it is replaced", async || {
        is_ready(&server.status().await, 3, pid).then_some(())
    })
    .await;
    let gone = dead(pid).await;
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "killed");
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &[(began, gone)]);
}

#[tokio::test]
async fn a_crash_loop_leaves_the_others_serving() {
    let server = Plan::new().start().await;
    let traffic = Traffic::start(&server, 40, 3).await;
    let (began, mut last) = (Instant::now(), 0);
    for _ in 0..5 {
        until_within(Duration::from_secs(20), "the slot has a worker", async || {
            let status = server.status().await;
            let worker = status.workers.iter().find(|worker| worker.slot == 0)?;
            worker.pid.filter(|pid| *pid != last)
        })
        .await;
        last = hit(&server, 0, Signal::SIGKILL).await;
        dead(last).await;
        let seen = |status: &Status| status.workers.iter().all(|worker| worker.pid != Some(last));
        server.status_when("the supervisor has seen it", seen).await;
        // Between two processes of the slot no client has to wait for it.
        for _ in 0..12 {
            let reply = within(ms(1000), "handshake", Poller::handshake(server.addr, "/socket.io/")).await;
            assert_eq!(reply.expect("handshake").status, 200);
        }
    }
    let gone = Instant::now();
    let status = server.status().await;
    let restarts = status
        .workers
        .iter()
        .find(|worker| worker.slot == 0)
        .map(|worker| worker.restarts);
    assert!(restarts >= Some(4), "{status:?}");
    until_within(Duration::from_secs(40), "all four serve again", async || {
        (server.status().await.ready_pids().len() == 4).then_some(())
    })
    .await;
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &[(began, gone)]);
}

#[tokio::test]
async fn workers_that_lose_their_supervisor_drain_and_end() {
    let mut server = Plan::new().start().await;
    let pids = server.status().await.ready_pids();
    assert_eq!(pids.len(), 4);
    let poller = Poller::open(&server).await;
    poller.connect().await;
    let parked = poller.park();
    let mut wire = harness::Wire::open(&server).await;
    wire.connect().await;
    server.holding(2).await;
    server.signal(Signal::SIGKILL);
    assert_eq!(wire.end().await, Some(1012));
    let reply = soon("the parked poll", parked)
        .await
        .expect("a task")
        .expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    for pid in pids {
        dead(pid).await;
    }
    assert!(server.exit_within(ms(1000)).await.code().is_none(), "killed");
    // The next one takes over what the session was.
    server.run();
    server.ready().await;
    let ack = poller.call(1, &serde_json::json!(["echo", "same sid"])).await;
    assert_eq!(ack, serde_json::json!(["same sid"]));
}

#[tokio::test]
async fn a_poll_that_died_with_its_worker_can_be_tried_again_at_once() {
    let server = Plan::new().start().await;
    for round in 0..4 {
        let poller = Poller::open(&server).await;
        poller.connect().await;
        let parked = poller.park();
        harness::signal(server.holder().await, Signal::SIGKILL);
        let cut = soon("the parked poll", parked).await.expect("a task");
        assert!(cut.is_err(), "round {round}: {cut:?}");
        // As a proxy does that has another connection to try.
        let again = poller.park();
        poller.say(r#"420["echo","still here"]"#).await;
        let reply = soon("the poll", again).await.expect("a task").expect("an answer");
        assert_eq!(reply.pair(), (200, r#"430["still here"]"#), "round {round}");
        poller.leave().await;
        server
            .status_when("all are ready", |status| status.ready_pids().len() == 4)
            .await;
    }
}

#[tokio::test]
async fn every_worker_serves() {
    let server = Plan::new().start().await;
    let mut links = Vec::new();
    // Kept connections, until each worker has one.
    let status = until("each worker has connections", async || {
        let mut link = Link::open(server.addr).await.expect("connect");
        let reply = link.ask(&Request::get("/api/live")).await.expect("an answer");
        assert_eq!(reply.status, 200);
        links.push(link);
        let status = server.status().await;
        status
            .workers
            .iter()
            .all(|worker| worker.connections > 0)
            .then_some(status)
    })
    .await;
    assert_eq!(status.workers.len(), 4);
    let reply = soon("readiness", ask(server.addr, Request::get("/api/ready"))).await;
    assert_eq!(reply.expect("an answer").json()["multi_worker_support"], true);
}
