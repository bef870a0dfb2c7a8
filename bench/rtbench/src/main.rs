//! Load and fault tool for Socket.IO v5 / Engine.IO v4 servers: bench/README.md.
//!
//! One thread on purpose: it can be pinned to a core of its own, and its counters are plain cells.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program for people: a panic ends a measurement, never a server"
)]

mod chaos;
mod chaos_report;
mod connect;
mod echo;
mod fanout;
mod idle;
mod members;
mod polling;
mod proc;
mod publish;
mod selftest;
mod selftest_server;
mod sequence;
mod sio;
mod stats;
mod target;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use target::{Outcome, Target};

/// The longest measured window (seconds).
const DURATION_MAX: f64 = 600.0;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Closed loop of `echo` with ack over WebSocket
    Echo(echo::Options),
    /// Publishers to rooms; every delivery is checked. An op is one delivery
    Fanout(fanout::Options),
    /// New sessions: open, CONNECT, close
    Connect(connect::Options),
    /// Open connections and hold them: memory and CPU per connection
    Idle(idle::Options),
    /// Long-polling sessions, every request on a fresh TCP connection; optional upgrade
    Polling(polling::Options),
    /// Steady publishing while a fault command runs: what clients notice and lose
    Chaos(chaos::Options),
    /// Prove against an in-process server with known faults that the counters can fail
    Selftest,
}

/// What every scenario takes.
#[derive(Args, Clone)]
struct Common {
    /// http:// or ws:// and a loopback host:port
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "/socket.io/")]
    path: String,
    #[arg(long, short = 'c', default_value_t = 100)]
    connections: usize,
    /// Measured seconds (600 at most)
    #[arg(long, short = 'd', default_value_t = 8.0)]
    duration: f64,
    /// Seconds of load before the measured window
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Root of the server's process tree (repeatable)
    #[arg(long)]
    server_pid: Vec<i32>,
    /// The same of Redis, which is counted apart
    #[arg(long)]
    redis_pid: Vec<i32>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// JSON sent with CONNECT
    #[arg(long)]
    auth: Option<Value>,
    /// Source addresses 127.0.0.1..N used in turn
    #[arg(long, default_value_t = 8)]
    src_addrs: u32,
    /// Seconds before a request, handshake or ack counts as failed
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    #[arg(long, default_value = "echo")]
    ev_echo: String,
    #[arg(long, default_value = "join")]
    ev_join: String,
    #[arg(long, default_value = "publish")]
    ev_publish: String,
    #[arg(long, default_value = "message")]
    ev_message: String,
}

impl Common {
    fn target(&self) -> Outcome<Rc<Target>> {
        if !(0.0..=DURATION_MAX).contains(&self.duration) {
            return Err(format!("--duration must be within 0..={DURATION_MAX}"));
        }
        Target::parse(&self.url, &self.path, self.src_addrs, self.timeout).map(Rc::new)
    }
}

/// Seconds as given on the command line.
fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count.max(0.0))
}

async fn run(command: Command) -> Outcome<()> {
    let (json, report) = match command {
        Command::Echo(options) => (options.common.json, echo::run(&options).await?),
        Command::Fanout(options) => (options.common.json, fanout::run(&options).await?),
        Command::Connect(options) => (options.common.json, connect::run(&options).await?),
        Command::Idle(options) => (options.common.json, idle::run(&options).await?),
        Command::Polling(options) => (options.common.json, polling::run(&options).await?),
        Command::Chaos(options) => (options.common.json, chaos::run(&options).await?),
        Command::Selftest => (false, selftest::run().await?),
    };
    stats::print(json, &report);
    Ok(())
}

fn main() -> ExitCode {
    proc::raise_descriptor_limit();
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match tokio::task::LocalSet::new().block_on(&runtime, run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rtbench: {error}");
            ExitCode::FAILURE
        }
    }
}
