//! Polling sessions that began here and have joined no namespace yet. A handshake costs its client nothing and leaves a
//! session in Redis, so there is a limit on them.

use rustc_hash::FxHashSet;
use session::Sid;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The list is cleaned up when it has this many more entries than there are sessions.
const SLACK: usize = 1024;

/// See the module. A session that joins a namespace on another worker counts here until its time is over, or until this
/// worker meets it again.
pub(crate) struct Unsettled {
    /// `limits.handshakes_max`.
    max: usize,
    /// How long a session without a namespace is in Redis.
    lifetime: Duration,
    open: FxHashSet<Sid>,
    /// In the order they began, with those that have ended since.
    begun: VecDeque<(Instant, Sid)>,
}

impl Unsettled {
    pub(crate) fn new(max: usize, lifetime: Duration) -> Self {
        Self {
            max,
            lifetime,
            open: FxHashSet::default(),
            begun: VecDeque::new(),
        }
    }

    /// Whether another session may begin.
    pub(crate) fn has_room(&mut self) -> bool {
        self.count() < self.max
    }

    /// How many there are.
    pub(crate) fn count(&mut self) -> usize {
        while let Some((begun, sid)) = self.begun.front() {
            if begun.elapsed() < self.lifetime && self.open.contains(sid) {
                break;
            }
            self.open.remove(sid);
            self.begun.pop_front();
        }
        self.open.len()
    }

    /// A session begins.
    pub(crate) fn begin(&mut self, sid: Sid) {
        if self.begun.len() > 2 * self.open.len() + SLACK {
            self.begun.retain(|(_, sid)| self.open.contains(sid));
        }
        self.begun.push_back((Instant::now(), sid.clone()));
        self.open.insert(sid);
    }

    /// A session has joined a namespace, or is over.
    pub(crate) fn end(&mut self, sid: &Sid) {
        self.open.remove(sid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const LIFETIME: Duration = Duration::from_secs(50);

    fn sid(n: u8) -> Sid {
        Sid::from_random([n; 15])
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_again_when_one_ends() {
        let mut unsettled = Unsettled::new(2, LIFETIME);
        unsettled.begin(sid(1));
        assert!(unsettled.has_room());
        unsettled.begin(sid(2));
        assert!(!unsettled.has_room());
        unsettled.end(&sid(2));
        unsettled.end(&sid(2));
        unsettled.end(&sid(9));
        assert!(unsettled.has_room());
        assert_eq!(unsettled.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_again_when_their_time_is_over() {
        let mut unsettled = Unsettled::new(2, LIFETIME);
        unsettled.begin(sid(1));
        advance(LIFETIME / 2).await;
        unsettled.begin(sid(2));
        advance(LIFETIME / 2).await;
        assert_eq!(unsettled.count(), 1, "the first is over");
        unsettled.begin(sid(3));
        assert!(!unsettled.has_room());
        advance(LIFETIME).await;
        assert_eq!(unsettled.count(), 0);
        assert!(unsettled.begun.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_have_ended_do_not_pile_up_behind_one_that_has_not() {
        let mut unsettled = Unsettled::new(10, LIFETIME);
        unsettled.begin(sid(0));
        for _ in 0..10_000 {
            unsettled.begin(sid(1));
            unsettled.end(&sid(1));
        }
        assert_eq!(unsettled.count(), 1);
        assert!(unsettled.begun.len() <= SLACK + 4, "{} entries", unsettled.begun.len());
    }
}
