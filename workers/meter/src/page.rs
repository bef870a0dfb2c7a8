//! A report, written down in the OpenMetrics text format.

use crate::instrument::{Family, Kind, Rule};
use crate::snapshot::{Distribution, Reading, Report, parts, series};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The type of a page, for its HTTP answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The type of a page that [`plain`] has made.
pub const PLAIN_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label of the slot.
const WORKER: &str = "worker";
/// Microseconds of a second.
const MICROS: f64 = 1_000_000.0;
/// Milliseconds of a second.
const MILLIS: f64 = 1_000.0;

/// Writes a report down. Every metric of `families` is on the page, what has not happened yet as zero, and so is what
/// only another build knows.
///
/// # Errors
/// None: writing into memory does not fail.
pub fn page(families: &[Family], report: &Report) -> Result<String, fmt::Error> {
    let mut metrics = Metrics::default();
    for family in families {
        metrics.family(family, report);
    }
    metrics.strangers(families, report);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A page in the older text format of Prometheus (0.0.4), for a scraper that does not ask for OpenMetrics. There a counter
/// is called as its series, `_total` included, and neither units nor an end are written.
#[must_use]
pub fn plain(page: &str) -> String {
    let kind_of = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    };
    let kinds: BTreeMap<String, String> = page.lines().filter_map(kind_of).collect();
    let mut out = String::with_capacity(page.len());
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF"), ..) | (Some("#"), Some("UNIT"), ..) => continue,
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), rest) => {
                let kind = kinds.get(name).map_or("unknown", String::as_str);
                let suffix = if kind == "counter" { "_total" } else { "" };
                let rest = match (what, kind) {
                    ("TYPE", "unknown") => "untyped",
                    _ => rest.unwrap_or_default(),
                };
                out.extend(["# ", what, " ", name, suffix, " ", rest]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Everything on the page, in its order.
#[derive(Debug, Default)]
struct Metrics(Vec<Metric>);

#[derive(Debug)]
struct Metric {
    name: String,
    help: &'static str,
    /// Values with their labels; all of a kind.
    values: Vec<(Labels, Value)>,
}

type Labels = Vec<(String, String)>;

#[derive(Clone, Debug)]
enum Value {
    Count(u64),
    Gauge(f64),
    Histogram(Distribution),
    Seconds(f64),
}

impl Metrics {
    fn family(&mut self, family: &Family, report: &Report) {
        let sum = &report.sum;
        let values = match family.kind {
            Kind::Counter(labels) => each(family, labels, |series| Value::Count(sum.counter(series))),
            Kind::Time => each(family, &[""], |series| Value::Seconds(seconds(sum.counter(series)))),
            Kind::Gauge(labels, rule) if rule.by_worker() => by_worker(family, labels, rule, &report.workers),
            Kind::Gauge(labels, rule) => each(family, labels, |series| {
                let own = sum.gauges().get(series).copied();
                let others = report
                    .workers
                    .iter()
                    .filter_map(|worker| worker.gauges.get(series).copied());
                Value::Gauge(others.chain(own).reduce(|a, b| rule.join(a, b)).unwrap_or_default())
            }),
            Kind::Info => {
                let workers = report.workers.iter().flat_map(|worker| worker.gauges.keys());
                let all: BTreeSet<&str> = workers.chain(sum.gauges().keys()).map(String::as_str).collect();
                let ours = all.into_iter().map(parts).filter(|(name, _)| *name == family.name);
                ours.map(|(_, labels)| (pairs(labels), Value::Gauge(1.0))).collect()
            }
            Kind::Histogram(labels, bounds) => each(family, labels, |series| {
                let mut all = sum.histograms().get(series).cloned().unwrap_or_default();
                all.fill(bounds);
                Value::Histogram(all)
            }),
        };
        self.0.push(Metric {
            name: family.name.to_owned(),
            help: family.help,
            values,
        });
    }

    /// What is in the report, and is not ours.
    fn strangers(&mut self, families: &[Family], report: &Report) {
        let known: BTreeSet<&str> = families.iter().map(|family| family.name).collect();
        let sum = &report.sum;
        let counters = sum.counters().iter().map(|(name, n)| (name, Value::Count(*n)));
        let histograms = sum
            .histograms()
            .iter()
            .map(|(name, d)| (name, Value::Histogram(d.clone())));
        let gauges = report.workers.iter().flat_map(|worker| &worker.gauges);
        let mut strange: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
        for (series, value) in counters
            .chain(gauges.map(|(name, value)| (name, Value::Gauge(*value))))
            .chain(histograms)
        {
            let (name, labels) = parts(series);
            if !known.contains(name) {
                let values = strange.entry(name).or_default();
                let joined = match (values.get(labels), &value) {
                    (Some(Value::Gauge(a)), Value::Gauge(b)) => Value::Gauge(a + b),
                    _ => value,
                };
                values.insert(labels, joined);
            }
        }
        for (name, values) in strange {
            self.0.push(Metric {
                name: name.to_owned(),
                help: "Of another build.",
                values: values
                    .into_iter()
                    .map(|(labels, value)| (pairs(labels), value))
                    .collect(),
            });
        }
    }
}

/// A value for each of the labels.
fn each(family: &Family, labels: &[&str], value: impl Fn(&str) -> Value) -> Vec<(Labels, Value)> {
    let values = labels
        .iter()
        .map(|text| (pairs(text), value(&series(family.name, text))));
    values.collect()
}

/// A value for each slot and each of the labels.
fn by_worker(family: &Family, labels: &[&str], rule: Rule, workers: &[Reading]) -> Vec<(Labels, Value)> {
    let mut values: BTreeMap<(u16, &str), f64> = BTreeMap::new();
    for worker in workers {
        for text in labels {
            let told = worker
                .gauges
                .get(&series(family.name, text))
                .copied()
                .unwrap_or_default();
            let value = if rule == Rule::Age {
                told + millis(worker.age_ms)
            } else {
                told
            };
            let joined = values
                .get(&(worker.slot, *text))
                .map_or(value, |known| rule.join(*known, value));
            values.insert((worker.slot, text), joined);
        }
    }
    let labelled = |((slot, text), value): ((u16, &str), f64)| {
        let mut labels = pairs(text);
        labels.push((WORKER.to_owned(), slot.to_string()));
        (labels, Value::Gauge(value))
    };
    values.into_iter().map(labelled).collect()
}

/// `name=value,…`
fn pairs(labels: &str) -> Labels {
    let both = labels.split(',').filter_map(|label| label.split_once('='));
    both.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[expect(clippy::cast_precision_loss, reason = "2^52 microseconds are 142 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / MICROS
}

#[expect(clippy::cast_precision_loss, reason = "an age is far below 2^52 ms")]
fn millis(ms: u64) -> f64 {
    ms as f64 / MILLIS
}

impl Value {
    const fn kind(&self) -> MetricType {
        match self {
            Self::Count(_) | Self::Seconds(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Seconds(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Self::Histogram(distribution) => {
                let beyond = (f64::INFINITY, distribution.beyond);
                let buckets: Vec<(f64, u64)> = distribution.within.iter().copied().chain([beyond]).collect();
                encoder.encode_histogram::<NoLabelSet>(distribution.sum, distribution.count(), &buckets, None)
            }
        }
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, help, values } in &self.0 {
            let Some((_, first)) = values.first() else { continue };
            let kind = first.kind();
            let name = match first {
                // The library adds it.
                Value::Count(_) | Value::Seconds(_) => name.strip_suffix("_total").unwrap_or(name),
                Value::Gauge(_) | Value::Histogram(_) => name,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in values {
                if labels.is_empty() {
                    value.encode(&mut metric)?;
                } else {
                    value.encode(&mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[test]
fn the_older_format() {
    let page = "# HELP a How many.\n# TYPE a counter\na_total{x=\"# EOF\"} 1\n# HELP b_seconds How long it took.\n\
                # TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 0.5\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\n\
                c_sum 1.0\nc_count 1\n# HELP d ?\n# TYPE d unknown\nd 1\n# EOF\n";
    let expect = "# HELP a_total How many.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n# HELP b_seconds How long it took.\n\
                  # TYPE b_seconds gauge\nb_seconds 0.5\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\n\
                  c_sum 1.0\nc_count 1\n# HELP d ?\n# TYPE d untyped\nd 1\n";
    assert_eq!(plain(page), expect);
}
