//! What an operator sees of a whole fleet and its sessions: `status --watch`, `sessions`, `rooms`, `trace`, `tail`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod many;
mod names;
mod tail;
mod trace;
mod watch;
