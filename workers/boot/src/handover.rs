//! What came of moving live connections from one worker to another.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Buckets of a histogram per doubling: a figure is exact to an eighth.
const BUCKETS_PER_OCTAVE_BITS: u32 = 3;

/// The outcome of one or more handovers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Connections that another worker serves now.
    pub moved: u64,
    /// Connections that stayed where they were, by reason.
    pub stayed: BTreeMap<String, u64>,
    /// From the order to give to the last connection that moved; of several handovers the longest (microseconds).
    pub took_us: u64,
    /// How long connections were still.
    pub freeze: Freezes,
}

/// How long connections were still while they moved: a histogram, and the longest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freezes {
    /// The longest (microseconds).
    pub max_us: u64,
    /// Upper bound of a bucket (microseconds) and how many fell into it, ascending.
    buckets: Vec<(u64, u64)>,
}

impl Handover {
    /// Adds what another worker told.
    pub fn add(&mut self, other: &Self) {
        self.moved += other.moved;
        for (why, count) in &other.stayed {
            *self.stayed.entry(why.clone()).or_default() += count;
        }
        self.took_us = self.took_us.max(other.took_us);
        self.freeze.max_us = self.freeze.max_us.max(other.freeze.max_us);
        for (bound, count) in &other.freeze.buckets {
            self.freeze.count(*bound, *count);
        }
    }

    /// Connections that stayed, for whatever reason.
    #[must_use]
    pub fn stayed(&self) -> u64 {
        self.stayed.values().sum()
    }
}

impl Freezes {
    /// Notes that this many connections were frozen for this long.
    pub fn note(&mut self, freeze: Duration, connections: u64) {
        let us = u64::try_from(freeze.as_micros()).unwrap_or(u64::MAX);
        self.max_us = self.max_us.max(us);
        self.count(bound(us), connections);
    }

    /// The time that `part` of all connections (0 to 1) did not exceed, to within an eighth (microseconds).
    #[must_use]
    pub fn quantile_us(&self, part: f64) -> u64 {
        let all: u64 = self.buckets.iter().map(|(_, count)| count).sum();
        let mut seen = 0;
        for (bound, count) in &self.buckets {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "connections are far fewer than 2^52")]
            if seen as f64 >= part * all as f64 {
                return (*bound).min(self.max_us);
            }
        }
        self.max_us
    }

    fn count(&mut self, bound: u64, count: u64) {
        match self.buckets.binary_search_by_key(&bound, |(bound, _)| *bound) {
            Ok(at) => {
                if let Some((_, known)) = self.buckets.get_mut(at) {
                    *known += count;
                }
            }
            Err(at) => self.buckets.insert(at, (bound, count)),
        }
    }
}

/// The upper bound of the bucket of a figure.
const fn bound(us: u64) -> u64 {
    let octave = u64::BITS - us.leading_zeros();
    let shift = octave.saturating_sub(BUCKETS_PER_OCTAVE_BITS + 1);
    us | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut freezes = Freezes::default();
        (1..=1000).for_each(|ms| freezes.note(Duration::from_millis(ms), 1));
        for (part, exact) in [(0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let told = freezes.quantile_us(part);
            assert!(told >= exact && told <= exact + exact / 8, "{part}: {told}");
        }
        assert_eq!(freezes.max_us, 1_000_000);
        assert!(freezes.buckets.len() < 100);
        assert_eq!(Freezes::default().quantile_us(0.99), 0);
    }

    #[test]
    fn reports_add_up() {
        let report = |moved: u64, why: &str| {
            let mut report = Handover {
                moved,
                stayed: BTreeMap::from([(why.to_owned(), 2)]),
                took_us: moved,
                ..Handover::default()
            };
            report.freeze.note(Duration::from_micros(moved), moved);
            report
        };
        let mut sum = report(3, "busy");
        sum.add(&report(5, "busy"));
        sum.add(&report(4, "closing"));
        assert_eq!((sum.moved, sum.stayed(), sum.took_us), (12, 6, 5));
        assert_eq!(sum.stayed.get("busy"), Some(&4));
        assert_eq!((sum.freeze.quantile_us(0.2), sum.freeze.max_us), (3, 5));
    }
}
