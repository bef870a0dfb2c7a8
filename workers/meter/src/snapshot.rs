//! Counts on their way from one process to another.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a process has counted since its start; what is zero is not in it. A series is named
/// `metric{label=value,…}`, so that the code that adds snapshots up need not know the metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(default, rename = "c", skip_serializing_if = "BTreeMap::is_empty")]
    counters: BTreeMap<String, u64>,
    #[serde(default, rename = "g", skip_serializing_if = "BTreeMap::is_empty")]
    gauges: BTreeMap<String, f64>,
    #[serde(default, rename = "h", skip_serializing_if = "BTreeMap::is_empty")]
    histograms: BTreeMap<String, Distribution>,
}

/// What a histogram has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Of all values.
    #[serde(rename = "s")]
    pub sum: f64,
    /// Upper bounds, ascending, and how many values were within each and not within the one before; those
    /// with none may be left out.
    #[serde(rename = "w")]
    pub within: Vec<(f64, u64)>,
    /// How many were beyond the last.
    #[serde(rename = "b")]
    pub beyond: u64,
}

/// What a fleet has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Counters and histograms of all workers there have been, and what the supervisor has counted itself.
    pub sum: Snapshot,
    /// Gauges of the workers there are.
    pub workers: Vec<Reading>,
}

/// The gauges of one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Of the worker.
    pub slot: u16,
    /// How old they are.
    pub age_ms: u64,
    /// Series and values.
    pub gauges: BTreeMap<String, f64>,
}

impl Snapshot {
    /// Notes a counter.
    pub fn count(&mut self, name: &str, labels: &str, value: u64) {
        if value > 0 {
            self.counters.insert(series(name, labels), value);
        }
    }

    /// Notes a gauge.
    pub fn gauge(&mut self, name: &str, labels: &str, value: f64) {
        // JSON has no other numbers.
        if value != 0.0 && value.is_finite() {
            self.gauges.insert(series(name, labels), value);
        }
    }

    /// Notes a histogram.
    pub fn distribute(&mut self, name: &str, labels: &str, distribution: Distribution) {
        if distribution != Distribution::default() {
            self.histograms.insert(series(name, labels), distribution);
        }
    }

    /// Adds what another process has counted; its gauges are its own and are left out.
    pub fn add(&mut self, other: &Self) {
        for (series, value) in &other.counters {
            let sum = self.counters.entry(series.clone()).or_default();
            *sum = sum.saturating_add(*value);
        }
        for (series, distribution) in &other.histograms {
            self.histograms.entry(series.clone()).or_default().add(distribution);
        }
    }

    /// A counter, by its series.
    #[must_use]
    pub fn counter(&self, series: &str) -> u64 {
        self.counters.get(series).copied().unwrap_or_default()
    }

    /// All counters.
    pub(crate) fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }

    /// All gauges.
    #[must_use]
    pub fn gauges(&self) -> &BTreeMap<String, f64> {
        &self.gauges
    }

    /// All histograms.
    pub(crate) fn histograms(&self) -> &BTreeMap<String, Distribution> {
        &self.histograms
    }
}

impl Distribution {
    /// Adds what another one has counted. Bounds may differ: a value stays below its own.
    fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        self.beyond += other.beyond;
        for (bound, count) in &other.within {
            match self.within.binary_search_by(|(known, _)| known.total_cmp(bound)) {
                Ok(at) => {
                    if let Some((_, known)) = self.within.get_mut(at) {
                        *known += count;
                    }
                }
                Err(at) => self.within.insert(at, (*bound, *count)),
            }
        }
    }

    /// Makes a place for each of these bounds.
    pub(crate) fn fill(&mut self, bounds: &[f64]) {
        for bound in bounds {
            if let Err(at) = self.within.binary_search_by(|(known, _)| known.total_cmp(bound)) {
                self.within.insert(at, (*bound, 0));
            }
        }
    }

    /// How many values there were.
    pub(crate) fn count(&self) -> u64 {
        self.within.iter().map(|(_, count)| count).sum::<u64>() + self.beyond
    }
}

/// The name of a series.
pub(crate) fn series(name: &str, labels: &str) -> String {
    if labels.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{labels}}}")
    }
}

/// Metric and labels of a series.
pub(crate) fn parts(series: &str) -> (&str, &str) {
    match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (series, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(sum: f64, within: &[(f64, u64)], beyond: u64) -> Distribution {
        Distribution {
            sum,
            within: within.to_vec(),
            beyond,
        }
    }

    #[test]
    fn snapshots_add_up_whatever_is_in_them() {
        let mut one = Snapshot::default();
        one.count("a_total", "", 3);
        one.count("b_total", "code=200", 1);
        one.gauge("c", "", 5.0);
        one.distribute("d", "", distribution(0.5, &[(0.1, 1), (1.0, 2)], 1));
        let mut other = Snapshot::default();
        other.count("a_total", "", 4);
        other.count("b_total", "code=404", 2);
        other.count("zero_total", "", 0);
        other.distribute("d", "", distribution(0.25, &[(0.1, 1), (0.5, 2)], 0));
        let mut sum = Snapshot::default();
        sum.add(&one);
        sum.add(&other);
        let counters: Vec<(&str, u64)> = sum.counters.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            counters,
            [("a_total", 7), ("b_total{code=200}", 1), ("b_total{code=404}", 2)]
        );
        assert!(sum.gauges.is_empty());
        assert_eq!(
            sum.histograms["d"],
            distribution(0.75, &[(0.1, 2), (0.5, 2), (1.0, 2)], 1)
        );
    }

    #[test]
    fn a_snapshot_survives_the_wire_and_silence_costs_nothing() {
        let mut snapshot = Snapshot::default();
        assert_eq!(serde_json::to_string(&snapshot).unwrap(), "{}");
        snapshot.count("a_total", "x=y", 1);
        snapshot.gauge("g", "", f64::NAN);
        snapshot.gauge("g", "x=1", 0.25);
        snapshot.distribute("h", "", distribution(1.5, &[(2.0, 1)], 0));
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot, "{text}");
        assert_eq!(snapshot.gauges.len(), 1);
    }
}
