//! Counters, the measured window and the report.

use crate::common::{Common, seconds};
use crate::proc;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

/// The longest latency that is told from longer ones (microseconds).
const LATENCY_MAX_US: u64 = 120_000_000;

/// What a scenario found, by name.
pub(crate) type Report = Map<String, Value>;

/// Counters that all tasks of a run share.
pub(crate) struct Stats {
    pub(crate) measuring: Cell<bool>,
    pub(crate) ops: Cell<u64>,
    pub(crate) latencies: RefCell<Histogram<u64>>,
    /// How often each kind of error happened, in the whole run.
    pub(crate) errors: RefCell<BTreeMap<String, u64>>,
    started: Instant,
}

pub(crate) type Shared = Rc<Stats>;

impl Stats {
    pub(crate) fn new() -> Shared {
        Rc::new(Self {
            measuring: Cell::new(false),
            ops: Cell::new(0),
            latencies: RefCell::new(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("valid bounds")),
            errors: RefCell::new(BTreeMap::new()),
            started: Instant::now(),
        })
    }

    /// Microseconds since the start of the run.
    pub(crate) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Counts one operation and its latency, within the window only.
    pub(crate) fn op(&self, latency_us: u64) {
        if self.measuring.get() {
            bump(&self.ops);
            self.latencies.borrow_mut().saturating_record(latency_us.max(1));
        }
    }

    pub(crate) fn error(&self, kind: &str) {
        *self.errors.borrow_mut().entry(kind.to_owned()).or_default() += 1;
    }
}

pub(crate) fn bump(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// The measured part of a run.
pub(crate) struct Window {
    opened: Instant,
    server_cpu: f64,
    redis_cpu: f64,
    own_cpu: f64,
}

impl Window {
    pub(crate) fn open(common: &Common, stats: &Stats) -> Self {
        stats.ops.set(0);
        stats.measuring.set(true);
        Self {
            opened: Instant::now(),
            server_cpu: proc::cpu(&common.server_pid),
            redis_cpu: proc::cpu(&common.redis_pid),
            own_cpu: proc::own_cpu(),
        }
    }

    /// Ends the window and fills in what every scenario reports.
    pub(crate) fn close(self, common: &Common, stats: &Stats) -> Report {
        stats.measuring.set(false);
        let elapsed = self.opened.elapsed().as_secs_f64();
        let ops = stats.ops.get();
        let per_op = |cpu: f64| {
            if ops > 0 {
                json!(round(cpu * 1e6 / ops as f64, 2))
            } else {
                Value::Null
            }
        };
        let mut report = Report::new();
        let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
        put("seconds", json!(round(elapsed, 2)));
        put("ops", json!(ops));
        put("ops_per_s", json!(round(ops as f64 / elapsed, 1)));
        if !common.server_pid.is_empty() {
            let cpu = proc::cpu(&common.server_pid) - self.server_cpu;
            put("server_cpu_s", json!(round(cpu, 2)));
            put("server_cpu_us_per_op", per_op(cpu));
            put("server_pss_kib", json!(proc::pss_kib(&common.server_pid)));
        }
        if !common.redis_pid.is_empty() {
            let cpu = proc::cpu(&common.redis_pid) - self.redis_cpu;
            put("redis_cpu_s", json!(round(cpu, 2)));
            put("redis_cpu_us_per_op", per_op(cpu));
        }
        let own = (proc::own_cpu() - self.own_cpu) / elapsed * 100.0;
        put("tool_cpu_pct", json!(round(own, 1)));
        let latencies = stats.latencies.borrow();
        if !latencies.is_empty() {
            let at = |quantile| latencies.value_at_quantile(quantile);
            put(
                "latency_us",
                json!({"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": latencies.max()}),
            );
        }
        report
    }
}

/// Opens the window after the warm-up and closes it after the measured time. `at_open` runs in between.
pub(crate) async fn measure<T>(common: &Common, stats: &Stats, at_open: impl FnOnce() -> T) -> (Report, T) {
    tokio::time::sleep(seconds(common.warmup)).await;
    let window = Window::open(common, stats);
    let noted = at_open();
    tokio::time::sleep(seconds(common.duration)).await;
    (window.close(common, stats), noted)
}

pub(crate) fn round(number: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}

pub(crate) fn print(as_json: bool, report: &Report) {
    if as_json {
        println!("{}", Value::Object(report.clone()));
    } else {
        for (name, value) in report {
            println!("{name:<32} {value}");
        }
    }
}
