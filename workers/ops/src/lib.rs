//! Operator commands: health, selftest, doctor, sessions; and what live views are drawn with. Commands only look, unless their name says otherwise, ask
//! Redis directly, and work without a supervisor as far as that goes.
//!
//! A command is an entry of [`Command`] and a function `run(&Context, …) -> io::Result<u8>` that prints to standard
//! output and returns the exit code.

mod context;
mod fleet;
mod health;
pub mod screen;

pub use context::{Context, Redis, StatusError};
pub use store::{Endpoint, RedisOptions};

use clap::Subcommand;
use std::io;
use tokio::runtime::{Builder, LocalOptions};

/// No supervisor, or no Redis, where one is needed (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show how Redis, log, workers and sessions are; exits 0 healthy, 1 degraded, 2 unhealthy
    Health {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command; answers with the exit code of the process.
///
/// # Errors
/// When nothing can be printed, or no runtime can be made.
pub fn run(command: &Command, context: &Context) -> io::Result<u8> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        match command {
            Command::Health { json } => health::run(context, *json).await,
        }
    })
}
