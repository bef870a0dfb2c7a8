//! What operators ask: `health`, `selftest`, `doctor`, against real fleets and real Redis servers, good and bad ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod doctor;
mod health;
mod patient;
mod proxies;
mod selftest;
mod strange;
mod tls;
