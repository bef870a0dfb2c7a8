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
mod chaos_run;
mod common;
mod connect;
mod echo;
mod fanout;
mod fanout_run;
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

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use target::Outcome;

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
