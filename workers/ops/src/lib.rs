//! Operator commands: health, selftest, doctor; and what live views are drawn with. Commands only look, unless their
//! name says otherwise, ask Redis directly, and work without a supervisor as far as that goes.
//!
//! A command is an entry of [`Command`] and a function `run(&Context, …) -> io::Result<u8>` that prints to standard
//! output and returns the exit code.

mod context;
mod doctor;
mod fleet;
mod health;
mod output;
pub mod printer;
mod rooms;
pub mod screen;
mod selftest;
mod sessions;
mod tail;
pub mod text;
mod trace;
mod web;

pub use context::{Context, Engine, Limits, Redis, SecurityCheck, StatusError};
pub use sessions::{Action, Filter, Id, Kind, ListArgs, SessionsArgs};
pub use store::{Endpoint, IngestNames, NoteBounds, RedisOptions};
pub use tail::{Only, TailArgs};

use clap::Subcommand;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Report on Redis, log, sessions and workers; exits 0 healthy, 1 degraded, 2 unhealthy
    Health {
        /// Repeat: a live view on a terminal, otherwise one report after the other
        #[arg(long)]
        watch: bool,
        /// Seconds between reports
        #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, requires = "watch")]
        every: Duration,
        /// Print JSON, one report per line
        #[arg(long)]
        json: bool,
    },
    /// Find problems in Redis, kernel, systemd, secrets and proxy; exits 0 nothing found, 1 warnings, 2 faults
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// URL that clients connect to, to test the proxy as well
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Directory in which to read /proc, /sys and /etc
        #[arg(long, value_name = "DIRECTORY", default_value = "/", hide = true)]
        root: PathBuf,
    },
    /// Test Redis, then use one session on every worker; exits 0 if all tests passed, 1 if not
    Selftest,
    /// List rooms with their number of members
    Rooms {
        /// Only those of this namespace
        #[arg(long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// Print JSON, an object on each line
        #[arg(long)]
        json: bool,
    },
    /// List, count, show and end sessions
    Sessions(Box<SessionsArgs>),
    /// Follow events of the log and steps of sessions as they happen
    Tail(Box<TailArgs>),
    /// Show the history of a session over all workers; exits 1 if there are no notes about it
    Trace {
        /// Its id, its Socket.IO id, or the beginning of one
        #[arg(value_name = "SID", allow_hyphen_values = true)]
        sid: Id,
        /// Show whole ids of sessions: each one gives full access to its session
        #[arg(long)]
        full: bool,
        /// Print JSON, an object on each line
        #[arg(long)]
        json: bool,
    },
}

/// Parses the interval between updates, as given on the command line.
///
/// # Errors
/// When it is no number, or not within 0.1 to 3600 seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=3_600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("not within 0.1 to 3600".to_owned())
    }
}

/// Runs a command; answers with the exit code of the process.
///
/// # Errors
/// If output fails, or no runtime can be made.
pub fn run(command: &Command, context: &Context) -> io::Result<u8> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        match command {
            Command::Health { watch, every, json } => {
                let options = health::Options {
                    json: *json,
                    watch: *watch,
                    every: *every,
                };
                health::run(context, options).await
            }
            Command::Doctor { json, url, root } => {
                let options = doctor::Options {
                    json: *json,
                    url: url.clone(),
                    root: root.clone(),
                };
                doctor::run(context, options).await
            }
            Command::Selftest => selftest::run(context).await,
            Command::Rooms { namespace, json } => rooms::run(context, namespace.as_deref(), *json).await,
            Command::Sessions(args) => sessions::run(context, args).await,
            Command::Tail(args) => tail::run(context, args).await,
            Command::Trace { sid, full, json } => trace::run(context, sid, *full, *json).await,
        }
    })
}
