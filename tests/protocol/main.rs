//! Engine.IO v4 and Socket.IO v5 as they must look on the wire, over four workers, with a fresh
//! connection for each request unless a test is about kept ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod bodies;
mod frames;
mod handshake;
mod heartbeat;
mod http;
mod identity;
mod polling;
mod requests;
mod rooms;
mod socketio;
mod upgrade;
mod websocket;

use harness::{Plan, Server};

/// A server with the Engine.IO echo endpoint at `/engine.io/`.
async fn echo_server() -> Server {
    Plan::new().with(ECHO).start().await
}

const ECHO: &str = "diagnostics = { engine_echo = '/engine.io/' }";
