//! Reloads under load, and configurations that cannot be loaded.

use crate::harness::{Link, Plan, Poller, Redis, Request, Server, Wire, ask, ms, pass, signal, soon};
use crate::traffic::{Traffic, assert_alive, assert_unbroken};
use nix::sys::signal::Signal;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Handshakes on fresh connections, one after the other, until told to stop: how long each took.
fn handshakes(server: &Server, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Duration>> {
    let (addr, stop) = (server.addr, Arc::clone(stop));
    tokio::spawn(async move {
        let mut lasted = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let reply = soon("handshake", Poller::handshake(addr, "/socket.io/")).await;
            let reply = reply.expect("no connection is refused or reset");
            lasted.push(began.elapsed());
            Poller::opened(addr, "/socket.io/", &reply).leave().await;
            pass(ms(5)).await;
        }
        lasted
    })
}

#[tokio::test]
async fn a_reload_under_load_fails_no_request() {
    let server = Plan::new().start().await;
    let traffic = Traffic::start(&server, 200, 4).await;
    let stop = Arc::new(AtomicBool::new(false));
    let hammering = handshakes(&server, &stop);
    for generation in 2..=3 {
        let before = server.status().await;
        let output = server.cli("reload", &["--wait"]).await;
        assert!(output.status.success(), "{output:?}");
        let after = server.status().await;
        assert_eq!(after.supervisor.generation, generation);
        assert_eq!(after.ready_pids().len(), 4, "{after:?}");
        let old = before.ready_pids();
        assert!(
            after.ready_pids().iter().all(|pid| !old.contains(pid)),
            "{before:?} {after:?}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    let lasted = soon("handshakes", hammering).await.expect("a task");
    let longest = lasted.iter().max().expect("handshakes");
    assert!(*longest < ms(1000), "a handshake waited: {lasted:?}");
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &[]);
}

/// A worker finds the order to leave and connections in the same moment: they are its successor's.
#[tokio::test]
async fn a_connection_to_a_draining_worker_is_answered() {
    let server = Plan::new()
        .with("workers = { count = 1 }\nreload = { soak_ms = 0 }")
        .start()
        .await;
    // What a worker does first in such a moment is left to chance: four are asked.
    for _ in 0..4 {
        let old = server.workers();
        old.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        server.signal(Signal::SIGHUP);
        let status = server
            .status_when("the old one is told to leave", |status| {
                status.workers.iter().any(|worker| worker.state == "draining")
            })
            .await;
        let new = status.ready_pids();
        new.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        let mut links = Vec::new();
        for _ in 0..8 {
            links.push(Link::open(server.addr).await.expect("a connection"));
        }
        old.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
        // It waits for its successor now, which does not answer yet.
        pass(ms(100)).await;
        new.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
        // A worker that believes there is no other one leaves.
        pass(ms(200)).await;
        for mut link in links {
            let reply = soon("an answer", link.ask(&Request::get("/api/live"))).await;
            assert_eq!(reply.expect("an answer").status, 200);
        }
        server
            .status_when("the old one has gone", |status| {
                status.workers.len() == 1 && status.ready_pids() == new
            })
            .await;
    }
}

#[tokio::test]
async fn a_hangup_reloads_and_websockets_stay() {
    let mut server = Plan::new().start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    server.reconfigure("diagnostics = { engine_echo = '/engine.io/' }");
    server.signal(Signal::SIGHUP);
    server
        .status_when("the new generation serves", |status| {
            let new = status
                .workers
                .iter()
                .filter(|worker| worker.generation == 2 && worker.state == "ready");
            status.supervisor.state == "serving" && new.count() == 4 && status.workers.len() == 4
        })
        .await;
    assert_eq!(wire.call(0, &json!(["echo", 1])).await, json!([1]));
    // The new configuration counts.
    let poller = Poller::open_echo(&server).await;
    poller.say("4x").await;
    assert_eq!(poller.poll().await, ["4x"]);
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing() {
    let mut server = Plan::new().start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let before = server.status().await;
    server.reconfigure("engine = { ping_interval_ms = 'soon', colour = 'green' }\nworkers = { count = 0 }");
    let output = server.cli("reload", &["--wait"]).await;
    assert!(!output.status.success(), "{output:?}");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for key in ["engine.ping_interval_ms", "engine.colour", "workers.count"] {
        assert!(said.contains(key), "{key} is not named: {said}");
    }
    server.signal(Signal::SIGHUP);
    server.logged("engine.colour").await;
    std::fs::write(server.config_file(), "this is [not TOML").expect("write");
    let output = server.cli("reload", &["--wait"]).await;
    assert!(!output.status.success(), "{output:?}");
    server.signal(Signal::SIGHUP);
    server.logged("TOML syntax").await;
    server.reconfigure("engine = { ping_interval_ms = 20000 }");
    let after = server.status().await;
    assert_eq!(after.ready_pids(), before.ready_pids());
    assert_eq!(after.supervisor.generation, before.supervisor.generation);
    assert_eq!(after.supervisor.state, "serving");
    let reply = soon("readiness", ask(server.addr, Request::get("/api/ready"))).await;
    assert_eq!(reply.expect("an answer").status, 200);
    assert_eq!(wire.call(0, &json!(["echo", 1])).await, json!([1]));
}

/// What `reload --wait` says, and whether it was content.
async fn reload(server: &Server) -> (bool, String) {
    let output = server.cli("reload", &["--wait"]).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// It could serve no client: sessions could not be stored.
#[tokio::test]
async fn a_reload_to_a_redis_that_takes_no_writes_is_turned_round() {
    let mut server = Plan::new().with("workers = { boot_timeout_ms = 3000 }").start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let directory = tempfile::tempdir().expect("a directory");
    let replica = Redis::start(directory.path(), false).await;
    replica.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    server.reconfigure(&format!("redis = {{ url = '{}' }}", replica.url()));
    let before = server.status().await.ready_pids();
    let (content, said) = reload(&server).await;
    assert!(
        !content && said.contains("slot 0") && said.to_lowercase().contains("readonly"),
        "{said}"
    );
    assert_eq!(server.status().await.ready_pids(), before);
    assert_eq!(wire.call(0, &json!(["echo", 1])).await, json!([1]));
}

/// A check that the new configuration breaks turns it round; one that fails anyway does not stand in the way of it.
#[tokio::test]
async fn a_check_that_fails_is_seen_by_status_and_by_reloads() {
    let check = |port: u16| format!("[checks.backend]\ntcp = '127.0.0.1:{port}'\ntimeout_ms = 1000");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let mut server = Plan::new()
        .with("reload = { soak_ms = 100 }\nworkers = { boot_timeout_ms = 3000 }")
        .with(&check(port))
        .start()
        .await;
    server
        .status_when("its checks pass", |status| status.ready_pids().len() == 4)
        .await;
    let before = server.status().await.ready_pids();
    server.reconfigure(&check(1));
    let (content, said) = reload(&server).await;
    assert!(!content && said.contains("backend"), "{said}");
    assert_eq!(server.status().await.ready_pids(), before);
    drop(listener);
    server
        .status_when("it is seen", |status| {
            status.workers.iter().all(|worker| worker.state == "unready")
        })
        .await;
    let output = server.cli("status", &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("not ready: backend"), "{text}");
    let (content, said) = reload(&server).await;
    assert!(content, "{said}");
    assert_eq!(server.status().await.supervisor.generation, 3);
}

#[tokio::test]
async fn polls_go_on_when_slots_come_and_go() {
    let server = Plan::new().start().await;
    let traffic = Traffic::start(&server, 60, 5).await;
    for count in ["2", "5", "1", "4"] {
        let output = server.cli("scale", &[count]).await;
        assert!(output.status.success(), "{output:?}");
        server
            .status_when("so many slots", |status| {
                let ready = status.ready_pids().len();
                ready.to_string() == count && status.workers.len() == ready
            })
            .await;
    }
    let reports = traffic.finish().await;
    assert_alive(&reports);
    assert_unbroken(&reports, &[]);
}
