//! The worker: accept, HTTP, WebSocket, hub, tailer, drain.
//!
//! Everything of one worker runs on one thread. [`run`] is the whole life of a worker process.

mod accept;
mod admin;
mod admission;
mod budget;
mod catchup;
mod channel;
mod control;
mod dispatch;
mod drain;
mod emit;
mod ending;
mod evictions;
mod fault;
mod handover;
mod http;
mod hub;
mod ids;
mod ingest;
mod lines;
mod membership;
mod metrics;
mod missed;
mod orders;
mod packet;
mod poll;
mod rate;
mod ready;
mod resume;
mod ring;
mod start;
mod startup_responder;
mod tailer;
mod trace;
mod unsettled;
mod upgrade;
mod worker;
mod ws;

pub use start::{Inherited, run};
