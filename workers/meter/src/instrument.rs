//! Instruments: cells with a meaning. One thread each.

use crate::snapshot::{Distribution, Snapshot};
use std::cell::Cell;
use std::marker::PhantomData;

/// A closed set of label values; declared with [`crate::labels!`].
pub trait Labels: Copy {
    /// The labels of each value, `name=value`, several with commas between them.
    const ALL: &'static [&'static str];

    /// Where this value is in the list.
    fn index(self) -> usize;
}

/// The labels of this value.
pub fn text_of<L: Labels>(label: L) -> &'static str {
    L::ALL.get(label.index()).copied().unwrap_or_default()
}

/// A metric: what its instruments are called, and how they are read.
#[derive(Clone, Debug)]
pub struct Family {
    /// As on the page; counters end in `_total`.
    pub name: &'static str,
    /// What is counted, for people.
    pub help: &'static str,
    /// How.
    pub kind: Kind,
}

/// How a metric is counted. The lists of labels are those of [`Labels::ALL`]; one empty text: no labels.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter(&'static [&'static str]),
    /// Goes up and down.
    Gauge(&'static [&'static str], Rule),
    /// What there is, by labels that are not known beforehand; always one.
    Info,
    /// How often a value was within which bound.
    Histogram(&'static [&'static str], &'static [f64]),
    /// Time that only grows: counted in microseconds, shown in seconds.
    Time,
}

/// What becomes of the same gauge in several workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One figure for each slot (label `worker`), which gets older while its worker says nothing: the oldest.
    Age,
    /// One figure for each slot; while a slot has two workers, the larger.
    Each,
    /// One figure for each slot; while a slot has two workers, their sum.
    EachSum,
    /// One figure, the largest.
    Max,
    /// One figure, the sum.
    Sum,
}

impl Rule {
    /// Whether each slot has a figure of its own.
    #[must_use]
    pub const fn by_worker(self) -> bool {
        matches!(self, Self::Age | Self::Each | Self::EachSum)
    }

    /// The figure of two.
    pub(crate) const fn join(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Age | Self::Each | Self::Max => a.max(b),
            Self::EachSum | Self::Sum => a + b,
        }
    }
}

/// An instrument, as it is read.
pub trait Instrument {
    /// How it counts.
    fn kind(&self) -> Kind;

    /// Adds what has been counted to a snapshot; nothing, if that is nothing.
    fn read(&self, name: &str, into: &mut Snapshot);
}

/// Instruments without labels.
const PLAIN: &[&str] = &[""];

/// Counts.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// At zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(Cell::new(0))
    }

    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// What another process has counted.
    pub fn set(&self, n: u64) {
        self.0.set(n);
    }

    /// So many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Instrument for Counter {
    fn kind(&self) -> Kind {
        Kind::Counter(PLAIN)
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        into.count(name, "", self.0.get());
    }
}

/// Time that has passed somewhere.
#[derive(Debug, Default)]
pub struct Time(Counter);

impl Time {
    /// At zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(Counter::new())
    }

    /// All of it until now (microseconds).
    pub fn set_us(&self, us: u64) {
        self.0.set(us);
    }
}

impl Instrument for Time {
    fn kind(&self) -> Kind {
        Kind::Time
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        self.0.read(name, into);
    }
}

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Counters<L> {
    cells: Box<[Counter]>,
    labels: PhantomData<L>,
}

impl<L: Labels> Counters<L> {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            cells: L::ALL.iter().map(|_| Counter::new()).collect(),
            labels: PhantomData,
        }
    }

    /// One more of this value.
    pub fn one(&self, label: L) {
        self.add(label, 1);
    }

    /// So many more of this value.
    pub fn add(&self, label: L, n: u64) {
        if let Some(counter) = self.cells.get(label.index()) {
            counter.add(n);
        }
    }

    /// What another process has counted under these labels.
    pub fn set(&self, labels: &str, n: u64) {
        let known = L::ALL.iter().zip(&self.cells).find(|(known, _)| **known == labels);
        if let Some((_, counter)) = known {
            counter.set(n);
        }
    }
}

impl<L: Labels> Default for Counters<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Labels> Instrument for Counters<L> {
    fn kind(&self) -> Kind {
        Kind::Counter(L::ALL)
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        for (counter, labels) in self.cells.iter().zip(L::ALL) {
            into.count(name, labels, counter.get());
        }
    }
}

/// Something that is so, by its labels.
#[derive(Debug)]
pub struct Info(String);

impl Info {
    /// `name=value`; what would not fit into a label is left out.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        let value = value.chars().filter(|c| !"{},=".contains(*c));
        Self(format!("{name}={}", value.collect::<String>()))
    }
}

impl Instrument for Info {
    fn kind(&self) -> Kind {
        Kind::Info
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        into.gauge(name, &self.0, 1.0);
    }
}

/// A figure that goes up and down.
#[derive(Debug)]
pub struct Gauge {
    value: Cell<f64>,
    rule: Rule,
}

impl Gauge {
    /// At zero.
    #[must_use]
    pub const fn new(rule: Rule) -> Self {
        Self {
            value: Cell::new(0.0),
            rule,
        }
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.value.set(value);
    }

    /// The same for a number of things.
    #[expect(clippy::cast_precision_loss, reason = "nothing is counted here up to 2^52")]
    pub fn set_count(&self, count: u64) {
        self.value.set(count as f64);
    }
}

impl Instrument for Gauge {
    fn kind(&self) -> Kind {
        Kind::Gauge(PLAIN, self.rule)
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        into.gauge(name, "", self.value.get());
    }
}

/// A gauge for each value of a label.
#[derive(Debug)]
pub struct Gauges<L> {
    cells: Box<[Gauge]>,
    rule: Rule,
    labels: PhantomData<L>,
}

impl<L: Labels> Gauges<L> {
    /// All at zero.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            cells: L::ALL.iter().map(|_| Gauge::new(rule)).collect(),
            rule,
            labels: PhantomData,
        }
    }

    /// Sets the number of this value.
    pub fn set_count(&self, label: L, count: u64) {
        if let Some(gauge) = self.cells.get(label.index()) {
            gauge.set_count(count);
        }
    }
}

impl<L: Labels> Instrument for Gauges<L> {
    fn kind(&self) -> Kind {
        Kind::Gauge(L::ALL, self.rule)
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        for (gauge, labels) in self.cells.iter().zip(L::ALL) {
            into.gauge(name, labels, gauge.value.get());
        }
    }
}

/// How often a value was within which bound.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond the last.
    counts: Box<[Counter]>,
    sum: Cell<f64>,
}

impl Histogram {
    /// With these upper bounds, ascending.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| Counter::new()).collect(),
            sum: Cell::new(0.0),
        }
    }

    /// One more, of this value.
    pub fn observe(&self, value: f64) {
        self.observe_all(value, 1);
    }

    /// So many more, of this value each.
    #[expect(clippy::cast_precision_loss, reason = "nothing happens 2^52 times at once")]
    pub fn observe_all(&self, value: f64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.add(times);
        }
        self.sum.set(self.sum.get() + value * times as f64);
    }

    fn distribution(&self) -> Distribution {
        let counts = || self.counts.iter().map(Counter::get);
        let within = self.bounds.iter().copied().zip(counts());
        Distribution {
            sum: self.sum.get(),
            within: within.filter(|(_, count)| *count > 0).collect(),
            beyond: counts().next_back().unwrap_or_default(),
        }
    }
}

impl Instrument for Histogram {
    fn kind(&self) -> Kind {
        Kind::Histogram(PLAIN, self.bounds)
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        into.distribute(name, "", self.distribution());
    }
}

/// A histogram for each value of a label.
#[derive(Debug)]
pub struct Histograms<L> {
    cells: Box<[Histogram]>,
    bounds: &'static [f64],
    labels: PhantomData<L>,
}

impl<L: Labels> Histograms<L> {
    /// All with these upper bounds, ascending.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            cells: L::ALL.iter().map(|_| Histogram::new(bounds)).collect(),
            bounds,
            labels: PhantomData,
        }
    }

    /// One more.
    pub fn observe(&self, label: L, value: f64) {
        if let Some(histogram) = self.cells.get(label.index()) {
            histogram.observe(value);
        }
    }
}

impl<L: Labels> Instrument for Histograms<L> {
    fn kind(&self) -> Kind {
        Kind::Histogram(L::ALL, self.bounds)
    }

    fn read(&self, name: &str, into: &mut Snapshot) {
        for (histogram, labels) in self.cells.iter().zip(L::ALL) {
            into.distribute(name, labels, histogram.distribution());
        }
    }
}
