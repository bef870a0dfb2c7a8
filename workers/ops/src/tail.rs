//! `anyworker tail`: what passes through the fleet, as it happens: events and orders of the log, and the lives of
//! sessions.

mod audience;
mod line;

use crate::context::Context;
use crate::output::UNAVAILABLE;
use crate::printer;
use crate::sessions::{Id, Lookup, Trouble, find, inspector, settle};
use audience::Audience;
use clap::{Args, ValueEnum};
use line::{Line, Shape};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;
use store::trace::{Note, lines};
use store::{Entry, Inspector};
use tokio::time::sleep;

/// Between two attempts while Redis is away.
const RETRY: Duration = Duration::from_millis(500);

/// Of `tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// Only events, or only notes about sessions
    #[arg(long, value_name = "WHAT")]
    only: Option<Only>,
    /// Only this namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only events to this room, and joins and leaves of it
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Only events of this name
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Only events to this session, and notes about it; its id, its Socket.IO id, or the beginning of one
    #[arg(long, value_name = "SID", allow_hyphen_values = true)]
    sid: Option<Id>,
    /// Show whole payloads and ids of sessions
    #[arg(long)]
    full: bool,
    /// Print JSON, an object on each line
    #[arg(long)]
    json: bool,
}

/// A part of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Events, and orders to sockets.
    Events,
    /// Notes about sessions.
    Sessions,
}

pub(crate) async fn run(context: &Context, args: &TailArgs) -> io::Result<u8> {
    match inspector(context) {
        Ok(inspector) => settle(context, tail(&inspector, args).await),
        Err(reason) => {
            writeln!(io::stderr(), "{reason}").ok();
            Ok(UNAVAILABLE)
        }
    }
}

async fn tail(inspector: &Inspector, args: &TailArgs) -> Result<u8, Trouble> {
    let mut audience = None;
    if let Some(id) = &args.sid {
        match find(inspector, id).await? {
            Lookup::Found(sid) => audience = inspector.detail(&sid).await?.map(|found| Audience::new(&found.record)),
            Lookup::Not(why) => {
                writeln!(io::stderr(), "{why}").ok();
                return Ok(1);
            }
        }
    }
    let mut wanted = Wanted { args, audience };
    let shape = Shape {
        json: args.json,
        full: args.full,
    };
    let mut follow = inspector.follow().await?;
    let mut away = false;
    loop {
        let followed = match follow.next().await {
            Ok(followed) => followed,
            Err(error) if error.passing() => {
                if !std::mem::replace(&mut away, true) {
                    writeln!(io::stderr(), "{error}; waiting for it to come back").ok();
                }
                sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        away = false;
        // A write that waits for a slow reader makes the next read later, and no memory full.
        let mut out = printer::stdout();
        if followed.missed > 0 {
            Line::missed(followed.missed).print(&mut out, shape)?;
        }
        for (offset, bytes) in &followed.entries {
            if let Ok(entry) = Entry::decode(bytes)
                && wanted.entry(&entry)
            {
                Line::entry(*offset, &entry, shape).print(&mut out, shape)?;
            }
        }
        for batch in &followed.notes {
            for note in lines(&batch.notes.text) {
                if wanted.note(&note) {
                    Line::note(batch, &note, shape).print(&mut out, shape)?;
                }
            }
        }
        out.flush()?;
        drop(out);
        if reader_is_gone()? {
            return Ok(0);
        }
    }
}

/// Whether the reader of standard output closed its end: without anything to write, this would go unnoticed.
fn reader_is_gone() -> io::Result<bool> {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => Ok(fds
            .iter()
            .any(|fd| fd.revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR)))),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// What is to be shown.
struct Wanted<'a> {
    args: &'a TailArgs,
    /// Of the session that is watched.
    audience: Option<Audience>,
}

impl Wanted<'_> {
    fn entry(&self, entry: &Entry) -> bool {
        let TailArgs {
            only,
            namespace,
            room,
            event,
            ..
        } = self.args;
        *only != Some(Only::Sessions)
            && namespace.as_ref().is_none_or(|nsp| *nsp == entry.target.nsp)
            && room.as_ref().is_none_or(|room| entry.target.rooms.contains(room))
            && event
                .as_ref()
                .is_none_or(|event| line::event_of(entry).as_ref() == Some(event))
            && self.audience.as_ref().is_none_or(|audience| audience.gets(entry))
    }

    fn note(&mut self, note: &Note<'_>) -> bool {
        let of_session = match &mut self.audience {
            None => true,
            Some(audience) => audience.hear(note),
        };
        let TailArgs {
            only,
            namespace,
            room,
            event,
            ..
        } = self.args;
        let says = |name: &str, wanted: &Option<String>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| note.field(name) == Some(wanted.as_str()))
        };
        of_session
            && *only != Some(Only::Events)
            && event.is_none()
            && says("namespace", namespace)
            && says("room", room)
    }
}
