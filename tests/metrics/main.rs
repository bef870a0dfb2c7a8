//! The metrics of a running fleet: they add up, whichever worker is asked, and no counter ever goes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod admin;
mod documents;
mod page;
mod survival;
mod traffic;
