//! Lines of the log about what others do wrong: a sender that goes on and on does not fill the disk.

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
}
