//! The clock of Redis, compared with a worker's own, which nobody sets: keys that expire do so by the former
//! (`docs/design/clocks.md`).

use super::Shared;
use super::link::Lane;
use super::reply::{self, Reply};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// A smaller leap takes nothing that lives: clients and workers renew what is theirs seconds before it expires. Larger than
/// what a clock that is slewed, or a slow answer, amounts to between two looks.
const LEAP: Duration = Duration::from_secs(2);

/// What is known of the clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When Redis was asked last, and what it said (ms since 1970).
    seen: Cell<Option<(Instant, u64)>>,
    /// When it was found to have been set forward, last.
    leapt: Cell<Option<Instant>>,
}

impl Clock {
    /// Redis, asked at `asked`, says that it is `ms` now.
    pub(super) fn saw(&self, asked: Instant, now: Instant, ms: u64) {
        let Some((since, before)) = self.seen.replace(Some((asked, ms))) else {
            return;
        };
        let most = now.duration_since(since) + LEAP;
        let least = asked.duration_since(since).saturating_sub(LEAP);
        let moved = ms.checked_sub(before).map(Duration::from_millis);
        match moved {
            Some(by) if by > most => {
                self.leapt.set(Some(now));
                let by = by.saturating_sub(now.duration_since(since));
                warn!(
                    ?by,
                    "the clock of redis was set forward: keys have expired before their time, sessions of WebSockets are written anew"
                );
            }
            Some(by) if by >= least => {}
            Some(_) | None => warn!("the clock of redis was set back"),
        }
    }

    /// Whether it was found to have been set forward, at most so long ago.
    fn leapt_within(&self, span: Duration) -> bool {
        self.leapt.get().is_some_and(|at| at.elapsed() <= span)
    }
}

impl Shared {
    /// Whether what was given `ttl` may be gone because the clock was set forward since. Asks the clock, unless that is known.
    pub(super) async fn has_leapt(&self, ttl: Duration) -> bool {
        if self.clock.leapt_within(ttl) {
            return true;
        }
        let op = "time";
        let asked = Instant::now();
        let Ok(value) = self.link.run(Lane::Bulk, op, &redis::cmd("TIME")).await else {
            return false;
        };
        let parts = Reply::new(op, value).and_then(|mut words| {
            let seconds = reply::number(op, words.value()?)?;
            Ok((seconds, reply::number(op, words.value()?)?))
        });
        if let Ok((seconds, micros)) = parts {
            let ms = seconds.saturating_mul(1000).saturating_add(micros / 1000);
            self.clock.saw(asked, Instant::now(), ms);
        }
        self.clock.leapt_within(ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_told_from_the_passing_of_time() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let now = 1_700_000_000_000;
        // (asked, answered, what Redis says, whether it was set forward)
        for (asked, answered, ms, leapt) in [
            (5_000, 5_001, now + 5_000, false),
            // The answer took its time, before or after the clock was read.
            (5_000, 9_000, now + 5_000, false),
            (5_000, 9_000, now + 9_000, false),
            // Slewed.
            (5_000, 5_001, now + 5_900, false),
            (5_000, 5_001, now + 3_605_000, true),
            (5_000, 5_001, now + 8_000, true),
            // Back.
            (5_000, 5_001, now - 3_595_000, false),
            (5_000, 5_001, now + 1, false),
        ] {
            let clock = Clock::default();
            clock.saw(at(0), at(1), now);
            clock.saw(at(asked), at(answered), ms);
            assert_eq!(
                clock.leapt.get().is_some(),
                leapt,
                "{asked} {answered} {}",
                ms.abs_diff(now)
            );
        }
    }
}
