//! What clients see when something breaks: workers, Redis, configuration, clients themselves.
//! Each test breaks it on purpose and asserts from the client's side.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod budget;
mod clock;
mod crowd;
mod descriptors;
mod handover;
mod hostile;
mod huge;
mod idle;
mod ingest;
mod log_stalled;
mod logging;
mod operator;
mod recovery;
mod redis;
mod refused;
mod reload;
mod slow;
mod start;
mod stop;
mod storm;
mod stuck;
mod traffic;
mod workers;
