//! Whole-process tests: starts servers of its own, talks to them as raw as a test needs, and
//! leaves nothing behind. Waiting is always for a condition, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod fault_proxy;
mod http;
mod measure;
mod polling;
mod process;
mod programs;
mod proxy;
mod redis;
mod server;
mod terminal;
mod wait;
mod ws;

pub use fault_proxy::FaultProxy;
pub use http::{Link, Reply, Request, ask, ask_again};
pub use measure::{forget_peak, process_memory};
pub use polling::Poller;
pub use process::{children, free_address, signal};
pub use programs::{Program, Talk, node, python, python_5_0};
pub use proxy::{NetworkFault, Proxy};
pub use redis::{Held, Redis, Resp};
pub use server::{Handover, Plan, Server, Status, Supervisor, Worker};
pub use terminal::Terminal;
pub use wait::{PATIENCE, ms, pass, soon, until, until_within, within};
pub use ws::{Frame, Wire, text_frame};
