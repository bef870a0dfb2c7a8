//! What the documents tell people to do works, and what they show is what comes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod architecture;
mod book;
mod commands;
mod fleet;
mod logs;
mod names;
mod programs;
mod redis;
mod shape;
