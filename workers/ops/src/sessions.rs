//! `anyworker sessions`: lists and ends sessions.

mod find;
mod kick;
mod list;
mod show;

pub use find::Id;
pub(crate) use find::{Lookup, each, find};
pub(crate) use list::now_ms;

use crate::context::Context;
use crate::output::{UNAVAILABLE, USAGE};
use clap::{Args, Subcommand, ValueEnum};
use std::io::{self, Write};
use store::{Inspector, Joined, Record, Sid, StoreError, Transport};

/// Characters of a session's id that are shown: enough to name it, too few to use it.
const SHOWN_CHARS: usize = 8;

/// Of `sessions`.
#[derive(Clone, Debug, Args)]
pub struct SessionsArgs {
    /// What to do; without it: list
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: ListArgs,
}

/// What to do with sessions.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Print one line per session (the default)
    List(ListArgs),
    /// Show everything about one session; exits 1 if it does not exist
    Show {
        /// Its id, its Socket.IO id, or the beginning of one
        #[arg(value_name = "SID", allow_hyphen_values = true)]
        sid: Id,
        /// Show whole ids of sessions: each one gives full access to its session
        #[arg(long)]
        full: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End sessions, at once where a worker serves them; exits 1 if one is not found
    Kick {
        /// Its id, its Socket.IO id, or the beginning of one
        #[arg(value_name = "SID", allow_hyphen_values = true)]
        sid: Id,
        /// More sessions; after `--` if one of them begins with a hyphen
        // Several that may begin with one would take the options behind them for ids.
        #[arg(value_name = "SID")]
        more: Vec<Id>,
    },
    /// Count sessions by transport, worker and namespace
    Count {
        /// Which ones
        #[command(flatten)]
        filter: Filter,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Of `sessions list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Show whole ids of sessions: each one gives full access to its session
    #[arg(long)]
    full: bool,
    /// Print JSON, an object on each line
    #[arg(long)]
    json: bool,
}

/// Which sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Filter {
    /// Only those with this transport
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<Kind>,
    /// Only those of this worker: its slot, its name, or the beginning of that
    #[arg(long, value_name = "WORKER")]
    worker: Option<String>,
    /// Only those in this namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only those in this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Only those of this user, in any namespace or in the given one
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

/// A transport, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the protocol's own words")]
pub enum Kind {
    Polling,
    Websocket,
}

impl Filter {
    fn admits(&self, record: &Record) -> bool {
        let transport = match record.transport {
            Transport::Polling => Kind::Polling,
            Transport::Websocket => Kind::Websocket,
        };
        self.transport.is_none_or(|wanted| wanted == transport)
            && self
                .worker
                .as_ref()
                .is_none_or(|wanted| is_of_worker(&record.worker, wanted))
            && self.finds_membership(record)
    }

    /// Whether one membership has all that is asked for. A session that is in no namespace any more has its name still.
    fn finds_membership(&self, record: &Record) -> bool {
        let is_named = |user: &String| record.namespaces.is_empty() && record.names().contains(&user.as_str());
        (self.namespace.is_none() && self.room.is_none() && self.user.as_ref().is_none_or(is_named))
            || record.namespaces.iter().any(|(nsp, joined)| self.is_in(nsp, joined))
    }

    fn is_in(&self, nsp: &str, joined: &Joined) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| wanted == nsp)
            && self.room.as_ref().is_none_or(|room| joined.rooms.contains(room))
            && self.user.as_ref().is_none_or(|user| joined.who.as_ref() == Some(user))
    }
}

/// Whether a worker's name, `<instance>-<slot>.<spawn>`, is meant. A number is a slot, though an instance may begin
/// with a digit.
pub(crate) fn is_of_worker(name: &str, wanted: &str) -> bool {
    if wanted.parse::<u16>().is_ok() {
        slot_of(name) == Some(wanted)
    } else {
        name.starts_with(wanted)
    }
}

/// The slot in a worker's name.
fn slot_of(name: &str) -> Option<&str> {
    let (_, place) = name.rsplit_once('-')?;
    place.split_once('.').map(|(slot, _)| slot)
}

/// A session's id as it is shown.
pub(crate) fn shown(sid: &Sid, full: bool) -> String {
    match sid.as_str().get(..SHOWN_CHARS) {
        Some(beginning) if !full => format!("{beginning}\u{2026}"),
        _ => sid.to_string(),
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: &SessionsArgs) -> io::Result<u8> {
    // A filter of nothing would go unnoticed.
    if args.action.is_some() && args.list != ListArgs::default() {
        writeln!(io::stderr(), "options belong behind `list`, `show`, `kick` or `count`").ok();
        return Ok(USAGE);
    }
    let inspector = match inspector(context) {
        Ok(inspector) => inspector,
        Err(reason) => {
            writeln!(io::stderr(), "{reason}").ok();
            return Ok(UNAVAILABLE);
        }
    };
    let done = match args.action.as_ref().unwrap_or(&Action::List(args.list.clone())) {
        Action::List(args) => list::list(&inspector, args).await,
        Action::Show { sid, full, json } => show::show(&inspector, sid, *full, *json).await,
        Action::Kick { sid, more } => {
            let ids = std::iter::once(sid).chain(more);
            kick::kick(&inspector, ids, context.notes).await
        }
        Action::Count { filter, json } => list::count(&inspector, filter, *json).await,
    };
    settle(context, done)
}

/// The way to Redis, or why there is none.
pub(crate) fn inspector(context: &Context) -> Result<Inspector, String> {
    let Some(redis) = &context.redis else {
        return Err(
            "redis.enabled = false: sessions are in the memory of the worker, and cannot be seen from here".into(),
        );
    };
    redis.inspector().map_err(|error| format!("{}: {error}", redis.url))
}

/// Why a command that reads Redis failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing can be printed.
    Output(io::Error),
    /// Redis did not answer.
    Store(StoreError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Returns the exit code and prints the failure. A reader that closed its end (`| head`) is no failure.
pub(crate) fn settle(context: &Context, done: Result<u8, Trouble>) -> io::Result<u8> {
    match done {
        Ok(code) => Ok(code),
        Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(Trouble::Output(error)) => Err(error),
        Err(Trouble::Store(error)) => {
            let url = context.redis.as_ref().map_or("", |redis| &redis.url);
            writeln!(io::stderr(), "{url}: {error}").ok();
            Ok(UNAVAILABLE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_by_slot_or_by_name() {
        for (wanted, expect) in [
            ("2", true),
            ("k3f9", true),
            ("k3f9x2ab-2.17", true),
            ("17", false),
            ("1", false),
            ("other", false),
        ] {
            assert_eq!(is_of_worker("k3f9x2ab-2.17", wanted), expect, "{wanted}");
        }
        assert!(!is_of_worker("3k9fx2ab-2.17", "3"));
    }

    #[test]
    fn ids_are_secrets() {
        let sid = Sid::from_random([9; 15]);
        assert!(!shown(&sid, false).contains(&sid.as_str()[..9]));
        assert_eq!(shown(&sid, true), sid.as_str());
    }
}
