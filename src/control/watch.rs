//! `status --watch`: the fleet, again and again. On a terminal a live view, otherwise a line for the
//! fleet and one for each process each time, or one line of JSON.

use super::client::{Verdict, ask, unreachable};
use super::protocol::{Request, Status, WorkerStatus};
use super::view;
use ops::screen::{self, Line, Picture, Screen, Style, Wake};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// What was seen last.
struct Seen {
    /// `None` if no supervisor answered; then `reason` says why.
    status: Option<Status>,
    reason: String,
}

impl Seen {
    fn look(socket: &Path) -> Self {
        match ask(socket, Request::Status) {
            Ok(answer) => Self {
                status: answer.status,
                reason: answer.lines.join("; "),
            },
            Err(error) => Self {
                status: None,
                reason: unreachable(socket, &error),
            },
        }
    }

    fn verdict(&self) -> Verdict {
        self.status.as_ref().map_or(Verdict::Unavailable, Verdict::of)
    }
}

/// Shows the fleet every `every` until the user has seen enough; the verdict on what was seen last.
///
/// # Errors
/// If nothing can be written, except to a pipe that was closed.
pub(crate) fn watch(socket: &Path, json: bool, every: Duration) -> io::Result<Verdict> {
    if !json
        && screen::is_possible()
        && let Ok(screen) = Screen::open()
    {
        return live(screen, socket, every);
    }
    loop {
        let seen = Seen::look(socket);
        match print(&seen, json) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(seen.verdict()),
            Err(error) => return Err(error),
        }
        pause(every);
    }
}

fn live(mut screen: Screen, socket: &Path, every: Duration) -> io::Result<Verdict> {
    let mut former: Option<Picture> = None;
    loop {
        let next = Instant::now() + every;
        let seen = Seen::look(socket);
        let mut picture = match &seen.status {
            Some(status) => view::picture(status),
            None => former.clone().unwrap_or_default(),
        };
        former = Some(picture.clone());
        if seen.status.is_none() {
            picture.foot = vec![Line::default(), Line::new(Style::Bad, seen.reason.clone())];
        }
        picture
            .foot
            .extend([Line::default(), Line::new(Style::Dim, "q quits, arrow keys scroll")]);
        screen.draw(picture)?;
        if screen.wait(next)? == Wake::Quit {
            return Ok(seen.verdict());
        }
    }
}

fn print(seen: &Seen, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Some(status) = &seen.status else {
        if json {
            return writeln!(out, "{}", serde_json::json!({ "error": seen.reason }));
        }
        // Not to standard error: the reader of the lines is to see it, and can end us by closing the pipe.
        return writeln!(out, "fleet state=down reason={:?}", seen.reason);
    };
    if json {
        serde_json::to_writer(&mut out, status).map_err(io::Error::from)?;
        return writeln!(out);
    }
    let supervisor = &status.supervisor;
    let reload = supervisor.reload.as_ref();
    let reload = reload.map_or_else(String::new, |reload| {
        format!(" reload={}:{}/{}", reload.stage, reload.done, reload.slots)
    });
    writeln!(
        out,
        "fleet state={} pid={} generation={} uptime_s={}{reload}",
        supervisor.state, supervisor.pid, supervisor.generation, supervisor.uptime_s
    )?;
    for worker in &status.workers {
        writeln!(out, "{}", plain(worker))?;
    }
    out.flush()
}

fn plain(worker: &WorkerStatus) -> String {
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    format!(
        "worker slot={} pid={} generation={} state={} connections={} sessions={} cpu_percent={} rss_bytes={} lag_us={} \
         restarts={} last_exit={:?}",
        worker.slot,
        number(worker.pid.map(|pid| pid.to_string())),
        worker.generation,
        worker.state,
        worker.connections,
        worker.sessions,
        number(worker.cpu_percent.map(|cpu| format!("{cpu:.1}"))),
        number(worker.rss_bytes.map(|bytes| bytes.to_string())),
        number(worker.lag_us.map(|lag| lag.to_string())),
        worker.restarts,
        worker.last_exit.as_deref().unwrap_or("-"),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command with nothing else to do until the next line is due"
)]
fn pause(every: Duration) {
    std::thread::sleep(every);
}
