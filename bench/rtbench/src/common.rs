//! Options that every scenario takes.

use crate::target::{Outcome, Target};
use clap::Args;
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;

/// The longest measured window (seconds).
const DURATION_MAX: f64 = 600.0;

/// What every scenario takes.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// http:// or ws:// and a loopback host:port
    #[arg(long)]
    pub(crate) url: String,
    #[arg(long, default_value = "/socket.io/")]
    pub(crate) path: String,
    #[arg(long, short = 'c', default_value_t = 100)]
    pub(crate) connections: usize,
    /// Measured seconds (600 at most)
    #[arg(long, short = 'd', default_value_t = 8.0)]
    pub(crate) duration: f64,
    /// Seconds of load before the measured window
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Root of the server's process tree (repeatable)
    #[arg(long)]
    pub(crate) server_pid: Vec<i32>,
    /// The same of Redis, which is counted apart
    #[arg(long)]
    pub(crate) redis_pid: Vec<i32>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// JSON sent with CONNECT
    #[arg(long)]
    pub(crate) auth: Option<Value>,
    /// Source addresses 127.0.0.1..N used in turn
    #[arg(long, default_value_t = 8)]
    pub(crate) src_addrs: u32,
    /// Seconds before a request, handshake or ack counts as failed
    #[arg(long, default_value_t = 10.0)]
    pub(crate) timeout: f64,
    #[arg(long, default_value = "echo")]
    pub(crate) ev_echo: String,
    #[arg(long, default_value = "join")]
    pub(crate) ev_join: String,
    #[arg(long, default_value = "publish")]
    pub(crate) ev_publish: String,
    #[arg(long, default_value = "message")]
    pub(crate) ev_message: String,
}

impl Common {
    pub(crate) fn target(&self) -> Outcome<Rc<Target>> {
        if !(0.0..=DURATION_MAX).contains(&self.duration) {
            return Err(format!("--duration must be within 0..={DURATION_MAX}"));
        }
        Target::parse(&self.url, &self.path, self.src_addrs, self.timeout).map(Rc::new)
    }
}

/// Seconds as given on the command line.
pub(crate) fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count.max(0.0))
}
