//! Clients that attack, with well-behaved ones beside them: those are answered as fast as on a server that is not attacked,
//! come back as always, and the memory of the worker and of Redis stays within its limits (docs/security.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of Redis' INFO that are whole and not negative"
)]

extern crate harness;

mod attacker;
mod beside;
mod buffers;
mod log;
mod records;
mod scene;
mod storm;
