//! Backoff of one slot, and the breaker over all of them.

use super::{
    BACKOFF_FIRST, BACKOFF_MAX, BOOT_DEATHS_PER_SLOT_MAX, BREAKER_WINDOW, CRASHES_PER_SLOT_MAX, DEPENDENCY_BACKOFF_MAX,
    Moment, RESPAWN_JITTER, SlotId,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Why a slot waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It crashed.
    Crash,
    /// What it depends on was not there.
    Dependency,
}

/// How long a slot waits after `deaths` earlier deaths in a row: `rand(½..1)·min(max, first·2ⁿ)`.
pub(super) fn backoff(rng: &mut fastrand::Rng, deaths: u32, cause: Cause) -> Duration {
    let max = match cause {
        Cause::Crash => BACKOFF_MAX,
        Cause::Dependency => DEPENDENCY_BACKOFF_MAX,
    };
    let full = 2_u32
        .checked_pow(deaths)
        .and_then(|factor| BACKOFF_FIRST.checked_mul(factor))
        .unwrap_or(max)
        .min(max);
    full.mul_f64(0.5 + rng.f64() / 2.0)
}

/// A short random wait, so that not all slots move at once.
pub(super) fn jitter(rng: &mut fastrand::Rng) -> Duration {
    RESPAWN_JITTER.mul_f64(rng.f64())
}

/// Turns a crash loop into DEGRADED: healthy workers continue, one slot probes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Breaker {
    boot_deaths: VecDeque<Moment>,
    crashes: VecDeque<Moment>,
    open: bool,
    /// The one vacant slot that is retried while open.
    pub(super) probe: Option<SlotId>,
}

impl Breaker {
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Counts a death; whether it opened the breaker.
    pub(super) fn count(&mut self, now: Moment, ready_before: bool, slots: usize) -> bool {
        let (deaths, max) = if ready_before {
            (&mut self.crashes, slots.max(1) * CRASHES_PER_SLOT_MAX)
        } else {
            (&mut self.boot_deaths, slots.max(1) * BOOT_DEATHS_PER_SLOT_MAX)
        };
        deaths.push_back(now);
        while deaths.front().is_some_and(|at| *at + BREAKER_WINDOW < now) || deaths.len() > max + 1 {
            deaths.pop_front();
        }
        let opens = !self.open && deaths.len() > max;
        self.open |= opens;
        opens
    }

    /// Resets the crash history.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_a_quarter_second_to_its_cap() {
        let mut rng = fastrand::Rng::with_seed(7);
        let cases = [
            (0, Cause::Crash, 125, 250),
            (1, Cause::Crash, 250, 500),
            (4, Cause::Crash, 2_000, 4_000),
            (7, Cause::Crash, 15_000, 30_000),
            (40, Cause::Crash, 15_000, 30_000),
            (0, Cause::Dependency, 125, 250),
            (40, Cause::Dependency, 2_500, 5_000),
        ];
        for (deaths, cause, least, most) in cases {
            for _ in 0..200 {
                let wait = backoff(&mut rng, deaths, cause).as_millis();
                assert!((least..=most).contains(&wait), "{deaths} {cause:?}: {wait} ms");
            }
        }
    }

    #[test]
    fn the_breaker_counts_within_its_window_only() {
        let mut breaker = Breaker::default();
        let second = Duration::from_secs(1);
        for n in 0..100 {
            assert!(
                !breaker.count(second * 21 * n, false, 1),
                "three deaths a minute are tolerated"
            );
        }
        let now = second * 10_000;
        assert!(!breaker.count(now, false, 1));
        assert!(!breaker.count(now, false, 1));
        assert!(!breaker.count(now, false, 1));
        assert!(breaker.count(now, false, 1));
        assert!(!breaker.count(now, false, 1), "it opens once");
        assert!(breaker.is_open());
    }
}
