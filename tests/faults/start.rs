//! A start whose address is not there, yet.

use crate::harness::{PATIENCE, Plan, ms};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// RFC 5737: no host has it.
const NOWHERE: &str = "198.51.100.77:8000";

fn plan(key: &str, wait_ms: u64) -> Plan {
    let plan = Plan::new()
        .without_redis()
        .with("redis.enabled = false\nworkers.count = 1");
    plan.with(&format!("{key} = {NOWHERE:?}\nlisten.wait_ms = {wait_ms}"))
}

#[tokio::test]
async fn an_address_that_is_not_there_is_a_fault_at_once() {
    for key in ["listen.address", "admin.address"] {
        let mut server = plan(key, 0).launch().await;
        assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78), "{key}");
        let fault = format!("{key}: {NOWHERE}: bind: ");
        let log = server.log();
        assert!(
            log.contains(&fault) && log.contains("this host has no such address"),
            "{log}"
        );
        assert!(!log.contains("waiting for it"), "{log}");
    }
}

#[tokio::test]
async fn an_address_is_waited_for_as_long_as_the_key_says() {
    for key in ["listen.address", "admin.address"] {
        let begun = Instant::now();
        let mut server = plan(key, 1000).launch().await;
        assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78), "{key}");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        let log = server.log();
        assert!(
            log.contains("this host does not have the address yet, waiting for it"),
            "{log}"
        );
        assert!(log.contains("this host has no such address"), "{log}");
    }
}

#[tokio::test]
async fn a_start_that_waits_can_be_stopped() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = plan("listen.address", 600_000).launch().await;
        server.logged("waiting for it").await;
        server.signal(signal);
        let begun = Instant::now();
        assert_eq!(server.exit_within(PATIENCE).await.code(), Some(0), "{signal}");
        assert!(begun.elapsed() < ms(5000), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_misspelled_address_does_not_wait() {
    let plan = Plan::new()
        .without_redis()
        .with("redis.enabled = false\nworkers.count = 1");
    let plan = plan.with("listen.address = '127.0.0.300:8000'\nlisten.wait_ms = 600000");
    let mut server = plan.launch().await;
    assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
}
