//! The worker: accept, HTTP, WebSocket, hub, tailer, drain.
//!
//! Everything of one worker runs on one thread. [`run`] is the whole life of a worker process.

mod accept;
mod actions;
mod admin;
mod admission;
mod answer;
mod budget;
mod catchup;
mod channel;
mod checks;
mod clock;
mod context;
mod control;
mod dispatch;
mod drain;
mod ending;
mod entries;
mod evictions;
mod external;
mod fault;
mod handover;
mod http;
mod hub;
mod ids;
mod ingest;
mod lifecycle;
mod lines;
mod listen;
mod membership;
mod metrics;
mod missed;
mod notes;
mod orders;
mod packet;
mod poll;
mod protocol;
mod random;
mod rate;
mod ready;
mod recent;
mod report;
mod resume;
mod ring;
mod sockets;
mod start;
mod startup_responder;
mod supervisor;
mod sweep;
mod tailer;
mod trace;
mod unsettled;
mod upgrade;
mod worker;
mod ws;

pub use start::{Inherited, run};
