//! Stock clients against four workers: `socket.io-client` on Node and `python-socketio`. In every
//! transport, with a fresh TCP connection per request, so that each request may meet any worker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, unused_imports, reason = "each test program uses its part of the harness")]
mod harness;

use harness::{Plan, Program, Server, node, python};
use serde_json::json;

const CLIENTS: u64 = 200;

async fn server() -> Server {
    Plan::new()
        .with("socket = { namespaces = ['/', '/custom'] }")
        .start()
        .await
}

/// All clients get their first ack, ride the transport they want, and are still there 3 s later.
async fn herd(program: Program, transports: &str) {
    let server = server().await;
    let program = program
        .arg("--url", &server.url())
        .arg("--clients", &CLIENTS.to_string())
        .arg("--transports", transports)
        .flag("--fresh");
    let (found, content) = program.run().await;
    let all = json!({
        "clients": CLIENTS, "connected": CLIENTS, "acked": CLIENTS,
        "carried": CLIENTS, "alive": CLIENTS, "errors": {},
    });
    assert_eq!(found, all);
    assert!(content);
}

/// Every check of a flow program passes, over fresh connections and over kept ones.
async fn flow(program: impl Fn() -> Program, transports: &str) {
    let server = server().await;
    for flags in [&["--fresh"][..], &[]] {
        let mut program = program()
            .arg("--url", &server.url())
            .arg("--transports", transports)
            .arg("--namespace", "/custom");
        for flag in flags {
            program = program.flag(flag);
        }
        let (found, content) = program.run().await;
        assert_eq!(found["failed"], json!({}), "with {flags:?}");
        assert!(content, "with {flags:?}: {found}");
    }
}

#[tokio::test]
async fn node_herd_polling() {
    herd(node("herd.mjs"), "polling").await;
}

#[tokio::test]
async fn node_herd_upgrade() {
    herd(node("herd.mjs"), "polling,websocket").await;
}

#[tokio::test]
async fn node_herd_websocket() {
    herd(node("herd.mjs"), "websocket").await;
}

#[tokio::test]
async fn node_flow_polling() {
    flow(|| node("flow.mjs"), "polling").await;
}

#[tokio::test]
async fn node_flow_upgrade() {
    flow(|| node("flow.mjs"), "polling,websocket").await;
}

#[tokio::test]
async fn node_flow_websocket() {
    flow(|| node("flow.mjs"), "websocket").await;
}

#[tokio::test]
async fn python_herd_polling() {
    herd(python("herd.py"), "polling").await;
}

#[tokio::test]
async fn python_herd_upgrade() {
    herd(python("herd.py"), "polling,websocket").await;
}

#[tokio::test]
async fn python_herd_websocket() {
    herd(python("herd.py"), "websocket").await;
}

#[tokio::test]
async fn python_flow_polling() {
    flow(|| python("flow.py"), "polling").await;
}

#[tokio::test]
async fn python_flow_upgrade() {
    flow(|| python("flow.py"), "polling,websocket").await;
}

#[tokio::test]
async fn python_flow_websocket() {
    flow(|| python("flow.py"), "websocket").await;
}

#[tokio::test]
async fn emitters_of_others() {
    const SECRET: &str = "a secret that is long enough";
    let server = Plan::new()
        .with(&format!("emit = {{ secret = '{SECRET}' }}"))
        .start()
        .await;
    let socket = server.redis().url();
    let python = python("emit.py");
    let program = node("emit.mjs")
        .arg("--url", &server.url())
        .arg("--redis", socket.strip_prefix("unix://").unwrap())
        .arg("--python", python.interpreter())
        .arg("--secret", SECRET);
    let (found, content) = program.run().await;
    assert_eq!(found, json!({ "failed": {}, "left": 0 }));
    assert!(content);
}
