//! The clock of Redis, compared with a worker's own, which is never set: keys that expire do so by the former
//! (`docs/design/clocks.md`).

use super::Shared;
use super::link::ConnectionClass;
use super::reply::{self, Reply};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// A smaller jump takes nothing that lives: clients and workers renew what is theirs seconds before it expires. Larger than
/// what a clock that is slewed, or a slow answer, amounts to between two looks.
const JUMP: Duration = Duration::from_secs(2);

/// What is known of the clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When Redis was asked last, and what it said (ms since 1970).
    seen: Cell<Option<(Instant, u64)>>,
    /// When it was found to have been set forward, last.
    jumped: Cell<Option<Instant>>,
}

/// How the clock was set between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Not at all, or by less than a jump in either direction.
    None,
    Back,
    Forward(Duration),
}

impl Step {
    /// Between `before` and `ms` (ms since 1970) at least `least` has passed, and at most `most`.
    fn of(least: Duration, most: Duration, before: u64, ms: u64) -> Self {
        // A jump more, so that a small step back is above zero too.
        let moved = (Duration::from_millis(ms) + JUMP).saturating_sub(Duration::from_millis(before));
        if moved > most + 2 * JUMP {
            Self::Forward(moved.saturating_sub(most + JUMP))
        } else if moved < least {
            Self::Back
        } else {
            Self::None
        }
    }
}

impl Clock {
    /// Redis, asked at `asked`, says that it is `ms` now.
    pub(super) fn saw(&self, asked: Instant, now: Instant, ms: u64) {
        let Some((since, before)) = self.seen.replace(Some((asked, ms))) else {
            return;
        };
        match Step::of(asked.duration_since(since), now.duration_since(since), before, ms) {
            Step::None => {}
            Step::Back => warn!("clock of redis set back"),
            Step::Forward(by) => {
                self.jumped.set(Some(now));
                warn!(
                    ?by,
                    "clock of redis set forward: keys expired early, WebSocket sessions are written again"
                );
            }
        }
    }

    /// Whether it was found to have been set forward, at most this long ago.
    fn jumped_within(&self, span: Duration) -> bool {
        self.jumped.get().is_some_and(|at| at.elapsed() <= span)
    }
}

impl Shared {
    /// Whether what was given `ttl` may be gone because the clock was set forward since. Asks the clock, unless that is known.
    pub(super) async fn clock_jumped(&self, ttl: Duration) -> bool {
        if self.clock.jumped_within(ttl) {
            return true;
        }
        let op = "time";
        let asked = Instant::now();
        let Ok(value) = self.link.run(ConnectionClass::Bulk, op, &redis::cmd("TIME")).await else {
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
        self.clock.jumped_within(ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_from_the_passing_of_time() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let now = 1_700_000_000_000_u64;
        let forward = |ms| Step::Forward(Duration::from_millis(ms));
        // (asked, answered, what Redis says)
        for (asked, answered, ms, step) in [
            (5_000, 5_001, now + 5_000, Step::None),
            // The answer took its time, before or after the clock was read.
            (5_000, 9_000, now + 5_000, Step::None),
            (5_000, 9_000, now + 9_000, Step::None),
            // Slewed, and set back by little.
            (5_000, 5_001, now + 5_900, Step::None),
            (5_000, 5_001, now + 3_100, Step::None),
            (1, 2, now - 1, Step::None),
            (500, 501, now - 1_400, Step::None),
            (5_000, 5_001, now + 3_605_000, forward(3_599_999)),
            (5_000, 5_001, now + 8_000, forward(2_999)),
            (5_000, 5_001, now - 3_595_000, Step::Back),
            (5_000, 5_001, now + 1, Step::Back),
        ] {
            let what = format!("{asked} {answered} {}", ms.abs_diff(now));
            let between = |ms| Duration::from_millis(ms);
            assert_eq!(Step::of(between(asked), between(answered), now, ms), step, "{what}");
            let clock = Clock::default();
            clock.saw(at(0), at(0), now);
            clock.saw(at(asked), at(answered), ms);
            assert_eq!(clock.jumped.get().is_some(), matches!(step, Step::Forward(_)), "{what}");
        }
    }
}
