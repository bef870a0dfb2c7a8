//! Whatever happens to workers: the sums are right, and no counter goes back.

use crate::harness::{Plan, Request, Server, ask, ms, pass, signal, soon};
use crate::page::Page;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Two times that workers tell what they have counted.
const TOLD: Duration = ms(2200);

const MISSES: (&str, &[&str]) = ("gw_http_requests_total", &["code=\"404\""]);

/// So many requests, each on a connection of its own, that no other client makes.
async fn miss(server: &Server, count: usize) {
    for _ in 0..count {
        let reply = soon("an answer", ask(server.addr, Request::get("/nowhere")))
            .await
            .unwrap();
        assert_eq!(reply.status, 404);
    }
}

fn misses(page: &Page) -> f64 {
    page.sum(MISSES.0, MISSES.1)
}

#[tokio::test]
async fn counters_survive_workers_and_supervisors() {
    let server = Plan::new().start().await;
    miss(&server, 40).await;
    let mut last = Page::when(&server, "40 requests of four workers", |page| misses(page) == 40.0).await;
    // Killed: what it had told stays, here all of it.
    pass(TOLD).await;
    signal(
        server.status().await.workers[0].pid.expect("a process"),
        Signal::SIGKILL,
    );
    let page = Page::when(&server, "a restart", |page| {
        page.sum("gw_worker_restarts_total", &["reason=\"killed\""]) == 1.0 && page.sum("gw_workers", &["ready"]) == 4.0
    })
    .await;
    page.assert_not_behind(&last);
    assert_eq!(misses(&page), 40.0);
    last = page;
    for (command, generation) in [("reload", 2), ("upgrade", 3)] {
        miss(&server, 10).await;
        let output = server.cli(command, &["--wait"]).await;
        assert!(output.status.success(), "{output:?}");
        let expected = misses(&last) + 10.0;
        let page = Page::when(&server, command, |page| {
            page.sum("gw_generation", &[]) == f64::from(generation) && page.sum("gw_workers", &["draining"]) == 0.0
        })
        .await;
        page.assert_not_behind(&last);
        assert_eq!(
            misses(&page),
            expected,
            "after {command}: nothing is lost, nothing doubled"
        );
        last = page;
    }
    assert_eq!(last.sum("gw_reloads_total", &["done"]), 2.0);
    assert_eq!(last.sum("gw_supervisor_upgrades_total", &[]), 1.0);
    assert_eq!(last.sum("gw_workers_spawned_total", &[]), 13.0);
    // One slot less: its figures go, what it counted stays.
    assert!(server.cli("scale", &["3"]).await.status.success());
    let page = Page::when(&server, "three workers", |page| page.sum("gw_workers", &[]) == 3.0).await;
    page.assert_not_behind(&last);
    assert_eq!(misses(&page), 60.0);
}

#[tokio::test]
async fn a_stopped_worker_is_on_the_page_and_delays_nothing() {
    let server = Plan::new().start().await;
    let stopped = server.status().await.ready_pids()[2];
    signal(stopped, Signal::SIGSTOP);
    let silent = &["worker=\"2\""];
    let page = Page::when(&server, "a silent worker", |page| {
        page.sum("gw_worker_silent_seconds", silent) > 1.5 && page.sum("gw_canary_age_seconds", silent) > 1.5
    })
    .await;
    assert!(page.sum("gw_worker_silent_seconds", &["worker=\"1\""]) < 1.0);
    // The worker that accepts answers: never the one that is stopped.
    for _ in 0..20 {
        Page::of(&server).await;
    }
    signal(stopped, Signal::SIGCONT);
    Page::when(&server, "a worker that speaks", |page| {
        page.sum("gw_worker_silent_seconds", silent) < 0.5
    })
    .await;
}

#[tokio::test]
async fn the_page_needs_no_redis() {
    let mut server = Plan::new().start().await;
    server.redis_mut().kill();
    Page::when(&server, "no worker ready", |page| {
        page.sum("gw_worker_ready", &[]) == 0.0
    })
    .await;
    assert_eq!(Page::of(&server).await.sum("gw_workers", &["state=\"ready\""]), 4.0);
    // Workers that wait for Redis at their start answer, too.
    signal(
        server.status().await.workers[0].pid.expect("a process"),
        Signal::SIGKILL,
    );
    for _ in 0..20 {
        Page::of(&server).await;
    }
    Page::when(&server, "a booting worker", |page| {
        page.sum("gw_workers", &["booting"]) == 1.0
    })
    .await;
    server.redis_mut().again().await;
    Page::when(&server, "all ready", |page| page.sum("gw_worker_ready", &[]) == 4.0).await;
}
