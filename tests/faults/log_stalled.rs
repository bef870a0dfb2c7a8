//! A worker that Redis answers and that hears nothing of the log: it takes itself out, and is replaced.

use crate::harness::{FaultProxy, Link, Plan, Request, Server, Wire, ask, ms, until_within};
use serde_json::json;
use std::time::{Duration, Instant};

/// A fleet behind a fault proxy in front of Redis.
async fn stalled() -> (Server, FaultProxy) {
    let mut server = Plan::new()
        .with("workers = { count = 3 }\nlog = { canary_interval_ms = 200, canary_overdue_ms = 1000 }")
        .prepare()
        .await;
    let fault_proxy = FaultProxy::start(server.redis().socket()).await;
    server.reconfigure(&format!("redis = {{ url = '{}' }}", fault_proxy.url()));
    server.run();
    server.ready().await;
    (server, fault_proxy)
}

#[tokio::test]
async fn a_worker_whose_log_stalls_is_replaced_and_no_client_is_disconnected() {
    let (server, fault_proxy) = stalled().await;
    let mut members = Vec::new();
    for _ in 0..9 {
        let mut wire = Wire::open(&server).await;
        wire.connect().await;
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        members.push(wire);
    }
    let before = server.status().await;
    let began = Instant::now();
    fault_proxy.stall_log(1);
    server.logged("no log received although redis answers").await;
    let after = until_within(Duration::from_secs(30), "another worker in its place", async || {
        let status = server.status().await;
        (status.workers.len() == 3
            && status.workers[1].state == "ready"
            && status.workers[1].pid != before.workers[1].pid)
            .then_some(status)
    })
    .await;
    eprintln!("replaced after {:?}", began.elapsed());
    server.logged("log of a worker stalled: worker is replaced").await;
    assert_eq!(after.workers.iter().map(|worker| worker.restarts).sum::<u64>(), 0);
    for (was, is) in before.workers.iter().zip(&after.workers) {
        assert_eq!(was.pid == is.pid, was.slot != 1, "{after:?}");
    }
    // The connections that it held have moved to its successor, and hear.
    let (publisher, rest) = members.split_first_mut().expect("members");
    publisher.send(r#"427["publish","room","heard"]"#).await;
    for member in rest {
        assert!(member.data().await.starts_with(r#"42["message","heard""#));
    }
}

/// It gets no new connections while its log is stalled, and says that it is not ready.
#[tokio::test]
async fn a_worker_whose_log_stalls_gets_no_new_connections() {
    let (server, fault_proxy) = stalled().await;
    // On every worker a connection that stays.
    let mut links = Vec::new();
    for _ in 0..24 {
        links.push(Link::open(server.addr).await.expect("connect"));
    }
    fault_proxy.stall_log(0);
    let ready = Request::get("/api/ready");
    until_within(Duration::from_secs(15), "a worker that is not ready", async || {
        for link in &mut links {
            let reply = link.ask(&ready).await.expect("an answer");
            if reply.status == 503 && reply.json()["checks"]["log"] == false {
                let age = reply.json()["canary_age_ms"].as_u64().expect("an age");
                assert!(age >= 1000, "stalled, although heard {age} ms ago");
                return Some(());
            }
        }
        None
    })
    .await;
    // New connections do not meet it any more.
    until_within(ms(3000), "no client meets it", async || {
        for _ in 0..24 {
            let reply = ask(server.addr, Request::get("/api/ready")).await.expect("an answer");
            if reply.status != 200 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// With Redis silent for all, no worker is to blame, and none is replaced.
#[tokio::test]
async fn a_silence_of_redis_replaces_no_worker() {
    let (server, fault_proxy) = stalled().await;
    let pids = async || -> Vec<_> { server.status().await.workers.iter().map(|worker| worker.pid).collect() };
    let before = pids().await;
    for slot in 0..3 {
        fault_proxy.stall_log(slot);
    }
    until_within(Duration::from_secs(15), "no worker is ready", async || {
        let reply = ask(server.addr, Request::get("/api/ready")).await.expect("an answer");
        (reply.status == 503).then_some(())
    })
    .await;
    // Longer than a worker with a stalled log is given among others that hear.
    harness::pass(ms(7000)).await;
    assert_eq!(pids().await, before);
    assert!(
        server
            .status()
            .await
            .workers
            .iter()
            .all(|worker| worker.state == "unready")
    );
}
