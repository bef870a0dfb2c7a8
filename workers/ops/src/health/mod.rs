//! `anyworker health`: the health report of the guide, for Redis, log, sessions and workers; with `--watch` again
//! and again, on a terminal as a live view.

mod collect;
mod show;
mod verdict;

use crate::Context;
use crate::output::Script;
use crate::printer;
use crate::screen::{Screen, Wake, is_possible};
use collect::{Collector, Report};
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) watch: bool,
    /// From one report to the next.
    pub(crate) every: Duration,
}

/// Reports; the exit code is the verdict: 0 healthy, 1 degraded, 2 unhealthy. With `watch` the latest one's.
pub(crate) async fn run(context: &Context, options: Options) -> io::Result<u8> {
    let collector = Collector::new(context);
    if options.watch && !options.json && is_possible() {
        return live(&collector, options.every).await;
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut ticks = tokio::time::interval(options.every);
    loop {
        ticks.tick().await;
        let report = collector.report().await;
        let code = report.verdict.code();
        match print(&report, options) {
            // The reader has closed its end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(code),
            printed => printed?,
        }
        if !options.watch {
            return Ok(code);
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(code),
            _ = interrupt.recv() => return Ok(code),
            _ = ticks.tick() => ticks.reset_immediately(),
        }
    }
}

fn print(report: &Report, options: Options) -> io::Result<()> {
    let text = if options.json {
        serde_json::to_string(report).map_err(io::Error::from)? + "\n"
    } else {
        show::text(report, Script::of_locale())
    };
    let mut out = printer::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

async fn live(collector: &Collector<'_>, every: Duration) -> io::Result<u8> {
    let mut screen = Screen::open()?;
    let mut history = show::History::default();
    loop {
        let due = Instant::now() + every;
        let report = collector.report().await;
        history.add(&report);
        screen.draw(show::picture(&report, &history, Script::of_locale(), every))?;
        if screen.wait(due)? == Wake::Quit {
            return Ok(report.verdict.code());
        }
    }
}
