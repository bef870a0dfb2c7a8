//! How many ids of publishes Redis remembers for this worker's clients: each takes up to 1 KB there, for as long as ids count.

use rustc_hash::FxHashMap;
use session::Sid;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Ids that clients of one worker may give within [`store`]'s window of five minutes: 100 MB of Redis at most, and 333 a
/// second all the time. A publish with one more is refused, and its sender told; one without an id is not.
const IDS_MAX: u32 = 100_000;
/// The window, and in how many parts it is counted.
const WINDOW: Duration = Duration::from_secs(300);
const PARTS: u32 = 10;

/// Counts ids; see the module. No session may have more of them than are left for all others: one that takes all it can get
/// ends with half of them, the next one with a quarter.
#[derive(Default)]
pub(crate) struct Ids(RefCell<Counted>);

#[derive(Default)]
struct Counted {
    total: u32,
    /// The parts of the window in which there were any, the present one last.
    parts: VecDeque<Part>,
}

/// What was counted in a part of the window.
struct Part {
    since: Instant,
    total: u32,
    by_session: FxHashMap<Sid, u32>,
}

impl Ids {
    /// Counts one more of a session; false if there are too many.
    pub(crate) fn take(&self, sid: &Sid, now: Instant) -> bool {
        let mut counted = self.0.borrow_mut();
        counted.forget(now);
        let parts = counted.parts.iter();
        let own: u32 = parts.filter_map(|part| part.by_session.get(sid)).sum();
        if own >= IDS_MAX - counted.total {
            return false;
        }
        counted.add(sid, now);
        true
    }
}

impl Counted {
    /// Drops the parts that have left the window.
    fn forget(&mut self, now: Instant) {
        let is_over = |part: &Part| now.saturating_duration_since(part.since) >= WINDOW;
        while self.parts.front().is_some_and(is_over) {
            self.total -= self.parts.pop_front().map_or(0, |part| part.total);
        }
    }

    fn add(&mut self, sid: &Sid, now: Instant) {
        let is_present = |part: &&mut Part| now.saturating_duration_since(part.since) < WINDOW / PARTS;
        if self.parts.back_mut().filter(is_present).is_none() {
            self.parts.push_back(Part {
                since: now,
                total: 0,
                by_session: FxHashMap::default(),
            });
        }
        if let Some(part) = self.parts.back_mut() {
            self.total += 1;
            part.total += 1;
            *part.by_session.entry(sid.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sid(n: u8) -> Sid {
        Sid::from_random([n; 15])
    }

    /// How many a session gets that takes all it can.
    fn taken(ids: &Ids, n: u8, now: Instant) -> usize {
        let sid = sid(n);
        (0..=IDS_MAX).filter(|_| ids.take(&sid, now)).count()
    }

    #[test]
    fn so_many_in_a_window_and_no_more() {
        let (ids, start) = (Ids::default(), Instant::now());
        // One id each.
        let once = |n: u32, now| {
            ids.take(
                &Sid::from_random([[0; 11].as_slice(), &n.to_be_bytes()].concat().try_into().unwrap()),
                now,
            )
        };
        assert_eq!((0..=IDS_MAX).filter(|n| once(*n, start)).count(), 100_000);
        assert!(!once(1, start + WINDOW - Duration::from_millis(1)));
        assert!(once(1, start + WINDOW));
        let later = start + WINDOW * 10;
        assert_eq!((0..=IDS_MAX).filter(|n| once(*n, later)).count(), 100_000);
    }

    #[test]
    fn no_session_takes_them_from_all_others() {
        let (ids, start) = (Ids::default(), Instant::now());
        assert_eq!(taken(&ids, 1, start), 50_000);
        assert_eq!(taken(&ids, 2, start), 25_000);
        assert_eq!(taken(&ids, 3, start), 12_500);
        assert_eq!(taken(&ids, 1, start + WINDOW / 2), 0);
        assert_eq!(taken(&ids, 1, start + WINDOW), 50_000);
    }

    #[test]
    fn what_leaves_the_window_is_free_again() {
        let (ids, start) = (Ids::default(), Instant::now());
        let sid = sid(1);
        for nth in 0..1_000 {
            assert!(ids.take(&sid, start + Duration::from_secs(nth)));
        }
        let counted = ids.0.borrow();
        // A part begins with its first id, and is forgotten as a whole.
        assert!((270..=300).contains(&counted.total), "{}", counted.total);
        assert!(counted.parts.len() <= 10, "{}", counted.parts.len());
    }
}
