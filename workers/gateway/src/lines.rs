//! Log lines about errors of clients and senders, limited so that a sender that keeps failing does not fill the disk. Every line that a client can
//! cause is written by [`line!`], or only if asked for (`logging.connections`), or is of level `debug`.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// So many lines are written within [`WINDOW`]: enough to see what goes wrong, and nothing that a disk would notice.
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts lines; see the module.
#[derive(Default)]
pub(crate) struct Lines {
    since: Cell<Option<Instant>>,
    written: Cell<u32>,
    untold: Cell<u64>,
}

impl Lines {
    /// Whether a line may be written now; how many were not, since the last one that was.
    pub(crate) fn line(&self, now: Instant) -> Option<u64> {
        if self
            .since
            .get()
            .is_none_or(|since| now.saturating_duration_since(since) >= WINDOW)
        {
            self.since.set(Some(now));
            self.written.set(0);
        }
        if self.written.get() >= LINES_MAX {
            self.untold.set(self.untold.get().saturating_add(1));
            return None;
        }
        self.written.set(self.written.get() + 1);
        Some(self.untold.take())
    }
}

/// Writes a line (`line!(warn, %error, "text")`), from one place no more than [`Lines`] lets pass; how many were not is in the field
/// `untold` of the next one.
macro_rules! line {
    ($level:ident, $($line:tt)+) => {{
        // A worker has one thread.
        thread_local! {
            static LINES: $crate::lines::Lines = $crate::lines::Lines::default();
        }
        match LINES.with(|lines| lines.line(std::time::Instant::now())) {
            None => {}
            Some(0) => tracing::$level!($($line)+),
            Some(untold) => tracing::$level!(untold, $($line)+),
        }
    }};
}

pub(crate) use line;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_counted() {
        let (lines, start) = (Lines::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(lines.line(start), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(lines.line(start + WINDOW / 2), None);
        }
        assert_eq!(lines.line(start + WINDOW), Some(3));
        assert_eq!(lines.line(start + WINDOW), Some(0));
    }

    /// Lines that are written.
    struct Written(std::sync::Arc<std::sync::atomic::AtomicU32>);

    impl tracing::Subscriber for Written {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn one_place_does_not_silence_another() {
        let written = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        tracing::subscriber::with_default(Written(written.clone()), || {
            let began = Instant::now();
            for _ in 0..10_000 {
                line!(info, reason = "bad", "a client does it again");
            }
            line!(warn, "another");
            let windows = u32::try_from(began.elapsed().as_secs()).unwrap() + 2;
            let count = written.load(std::sync::atomic::Ordering::Relaxed);
            assert!((LINES_MAX + 1..=LINES_MAX * windows + 1).contains(&count), "{count}");
        });
    }
}
