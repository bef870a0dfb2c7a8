//! The log: lines for standard error, which another program reads, slowly or not at all. A line that cannot be
//! written is dropped and counted; nothing in this process waits for the reader. `docs/design/logging.md` says why it is
//! built like this.
//!
//! Whatever logs appends to a bounded queue in memory. One thread of its own takes from the queue and writes with plain
//! blocking calls: it may stand still, and nothing else does.

mod line;
mod sink;

use boot::Logging;
use line::Format;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::write;
use sink::Sink;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing::warn;

/// Bytes that wait to be written, at most, and as many again in the hands of the writer: four times what a pipe holds
/// (`pipe(7)`: 64 KiB), so that a burst passes while a reader has a short rest; little beside what a worker uses.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a buffer that stay allocated after a burst.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;
/// How long a process that ends, or is replaced by another binary, waits for its last lines to be written.
const FLUSH_PATIENCE: Duration = Duration::from_millis(250);
/// Stack of the writer (bytes). It formats one line at most.
const STACK_BYTES: usize = 128 * 1024;
/// Pause (milliseconds) where `poll(2)` says writable and `write(2)` says `EAGAIN` all the same.
const CONTRADICTION_PAUSE_MS: u8 = 10;

static LOG: Log = Log {
    queue: Mutex::new(Queue {
        format: Format::Text,
        lines: Vec::new(),
        refused: 0,
        taken: 0,
        writer: Writer::Absent,
    }),
    filled: Condvar::new(),
    emptied: Condvar::new(),
    dropped: AtomicU64::new(0),
};

struct Log {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// All is written.
    emptied: Condvar,
    /// Lines of this process that were not written.
    dropped: AtomicU64,
}

struct Queue {
    format: Format,
    /// Whole lines, one after the other.
    lines: Vec<u8>,
    /// Lines refused since the writer took `lines`. Once one was refused all are, so that the notice about them stands
    /// where they are missing.
    refused: u64,
    /// Lines that the writer has in its hands.
    taken: u64,
    writer: Writer,
}

/// The thread that writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Not started yet, or it could not be.
    Absent,
    /// Waits for lines.
    Waiting,
    /// Writes; it may stand still in that.
    Writing,
}

/// Configures the log of this process; the first call counts.
pub(crate) fn start(logging: &Logging) {
    let level: LevelFilter = logging.level.parse().unwrap_or(LevelFilter::INFO);
    LOG.lock().format = if logging.json { Format::Json } else { Format::Text };
    std::panic::set_hook(Box::new(report_panic));
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Lines)
        // It would use `eprintln!`, which panics when standard error cannot be written.
        .log_internal_errors(false)
        .with_target(false);
    let started = if logging.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).try_init()
    };
    if started.is_err() {
        warn!("logging already started");
    }
}

/// Writes text that is no event, line by line: the banner, the reason for a failed start.
pub(crate) fn print(text: &str) {
    for line in text.lines() {
        LOG.push(format!("{line}\n").as_bytes());
    }
}

/// Waits until all lines are written, for a moment at most. Returns how many are not.
pub(crate) fn flush() -> u64 {
    LOG.flush(FLUSH_PATIENCE)
}

/// Lines of this process that were not written.
#[must_use]
pub fn lines_dropped() -> u64 {
    LOG.dropped.load(Ordering::Relaxed)
}

/// A panic is an event like others. The hook of the standard library writes to standard error itself, and waits there.
fn report_panic(info: &PanicHookInfo<'_>) {
    let format = LOG.lock().format;
    let thread = std::thread::current();
    let message = format!("thread '{}' {info}", thread.name().unwrap_or("without a name"));
    let mut tell = |text: &str| LOG.push(&line::compose(format, "ERROR", text, None));
    tell(&message.replace('\n', " "));
    // As `RUST_BACKTRACE` says.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        trace.to_string().lines().for_each(&mut tell);
    }
    // The process may end next.
    flush();
}

/// What the subscriber writes events to, each with one call. Never fails.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    /// Appends a line, or refuses it.
    fn push(&mut self, line: &[u8]) -> bool {
        let line = line::bounded(line, self.format);
        let fits = self.refused == 0 && self.lines.len() + line.len() <= QUEUE_BYTES_MAX;
        if fits {
            self.lines.extend_from_slice(&line);
        } else {
            self.refused += 1;
        }
        fits
    }

    const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.refused == 0
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done under the lock leaves the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&'static self, line: &[u8]) {
        let mut queue = self.lock();
        if !queue.push(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        match queue.writer {
            Writer::Writing => {}
            Writer::Waiting => self.filled.notify_one(),
            // Without a thread (`EAGAIN`, clone(2)) lines wait, and the next one tries again.
            Writer::Absent => {
                let thread = std::thread::Builder::new()
                    .name("log".to_owned())
                    .stack_size(STACK_BYTES);
                if thread.spawn(|| self.serve()).is_ok() {
                    queue.writer = Writer::Writing;
                }
            }
        }
    }

    fn flush(&self, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        let mut queue = self.lock();
        loop {
            let rest = match queue.writer {
                Writer::Waiting if queue.is_empty() => return 0,
                Writer::Waiting | Writer::Writing => deadline.saturating_duration_since(Instant::now()),
                Writer::Absent => Duration::ZERO,
            };
            if rest.is_zero() {
                return sink::count(&queue.lines) + queue.taken;
            }
            let woken = self.emptied.wait_timeout(queue, rest);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The life of the writer.
    fn serve(&self) {
        // Signals are for the other thread: it reads them by signalfd(2), or has handlers.
        SigSet::all().thread_block().ok();
        let mut sink = Sink::new(write_waiting);
        let mut lines = Vec::new();
        loop {
            let (format, refused) = self.take(&mut lines);
            let lost = sink.put(&lines, format);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            sink.miss(refused);
            if lost == 0 {
                sink.settle(format);
            }
        }
    }

    /// Waits for lines and takes them, with how many were refused after them.
    fn take(&self, lines: &mut Vec<u8>) -> (Format, u64) {
        lines.clear();
        lines.shrink_to(BUFFER_BYTES_KEPT);
        let mut queue = self.lock();
        queue.taken = 0;
        while queue.is_empty() {
            queue.writer = Writer::Waiting;
            self.emptied.notify_all();
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writer = Writer::Writing;
        std::mem::swap(&mut queue.lines, lines);
        queue.taken = sink::count(lines);
        (queue.format, std::mem::take(&mut queue.refused))
    }
}

/// `write(2)` to standard error that waits where that does not: the descriptor may be non-blocking, by the doing of
/// another process that has it too.
fn write_waiting(bytes: &[u8]) -> Result<usize, Errno> {
    let stderr = io::stderr();
    let mut contradicted = false;
    loop {
        match write(&stderr, bytes) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                if contradicted {
                    poll(&mut [], CONTRADICTION_PAUSE_MS).ok();
                }
                let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                // An error comes again with the next write.
                contradicted = poll(&mut fds, PollTimeout::NONE).is_ok();
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue {
            format: Format::Text,
            lines: Vec::new(),
            refused: 0,
            taken: 0,
            writer: Writer::Writing,
        }
    }

    #[test]
    fn a_full_queue_refuses_and_never_grows() {
        let mut queue = queue();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let accepted = std::iter::repeat_with(|| queue.push(&line))
            .take_while(|fits| *fits)
            .count();
        assert_eq!(accepted, QUEUE_BYTES_MAX / line.len());
        assert_eq!((queue.lines.len(), queue.refused), (accepted * line.len(), 1));
        // A short line would fit, and would stand before those that are missing.
        assert!(!queue.push(b"short\n"));
        assert_eq!(queue.refused, 2);
        queue.lines.clear();
        queue.refused = 0;
        assert!(queue.push(b"short\n"));
    }

    #[test]
    fn lines_of_the_queue_are_whole_and_bounded() {
        let mut queue = queue();
        assert!(queue.push(&[b'x'; 100_000]));
        assert!(queue.push(b"next\n"));
        let text = String::from_utf8(queue.lines).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.len() < line::LINE_BYTES_MAX));
        assert!(text.ends_with("\nnext\n"));
    }
}
