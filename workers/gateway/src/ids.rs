//! How many ids of publishes Redis remembers for this worker's clients: each takes up to 1 KB there, for as long as ids count.

use std::cell::RefCell;
use std::time::Duration;
use tokio::time::Instant;

/// Ids that clients of one worker may give within [`store`]'s window of five minutes: 100 MB of Redis at most, and 333 a
/// second all the time. A publish with one more is refused, and its sender told; one without an id is not.
const IDS_MAX: u32 = 100_000;
/// The window, and in how many parts it is counted.
const WINDOW: Duration = Duration::from_secs(300);
const PARTS: usize = 10;

/// Counts ids; see the module.
#[derive(Default)]
pub(crate) struct Ids {
    /// When the present part began, and what was counted in it and in those before.
    counted: RefCell<Option<(Instant, [u32; PARTS])>>,
}

impl Ids {
    /// Counts one more; false if there are too many.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut counted = self.counted.borrow_mut();
        let (since, parts) = counted.get_or_insert((now, [0; PARTS]));
        let part = WINDOW / 10;
        let mut passed = 0;
        while now.saturating_duration_since(*since) >= part && passed < PARTS {
            parts.rotate_right(1);
            if let Some(first) = parts.first_mut() {
                *first = 0;
            }
            *since += part;
            passed += 1;
        }
        if passed == PARTS {
            *since = now;
        }
        if parts.iter().sum::<u32>() >= IDS_MAX {
            return false;
        }
        if let Some(first) = parts.first_mut() {
            *first += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_window_and_no_more() {
        let (ids, start) = (Ids::default(), Instant::now());
        assert_eq!((0..=IDS_MAX).filter(|_| ids.take(start)).count(), 100_000);
        assert!(!ids.take(start + WINDOW - Duration::from_millis(1)));
        assert!(ids.take(start + WINDOW));
        let later = start + WINDOW * 10;
        assert_eq!((0..=IDS_MAX).filter(|_| ids.take(later)).count(), 100_000);
    }
}
