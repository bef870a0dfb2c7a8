//! A server that is attacked, and what the clients beside notice.

use crate::beside::{Beside, Seen, Served, Wait};
use crate::harness::{Plan, Server, forget_peak, ms, process_memory, until_within};
use std::time::{Duration, Instant};

/// Before an attack and during it, clients are watched for so many answers at least: of them one in a hundred may be slow.
const ANSWERS_MIN: usize = 200;
const ANSWERS_LIMIT: Duration = Duration::from_secs(60);
/// The work that may stand before an answer during an attack, whatever stands there without: a few turns of the event loop.
/// One message of 900 KB is 45 ms of work for code that is not optimized, and there are several attackers at a time.
const WORK_FLOOR: Duration = ms(if cfg!(debug_assertions) { 500 } else { 20 });
/// How much more it may become for the slowest hundredth of the answers.
const MORE: u32 = 2;

/// The server, and its clients.
pub(crate) struct Scene {
    // First, so that they end before it.
    beside: Beside,
    pub(crate) server: Server,
    worker: u32,
}

/// What an attack did to the server (bytes).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// The most that its worker had in memory, above what it had before.
    pub(crate) worker: usize,
    /// The same of its Redis, by its own count.
    pub(crate) redis: usize,
}

fn plan(toml: &str) -> Plan {
    // What it logs about clients beside costs time as well.
    Plan::new()
        .with("workers = { count = 1 }\nlogging = { level = 'info', connections = false }")
        .with(toml)
}

async fn served(server: &Server) -> Served {
    Served {
        addr: server.addr,
        worker: server.status().await.ready_pids()[0],
        redis: server.redis().info("server", "process_id").await as u32,
    }
}

impl Scene {
    pub(crate) async fn new(toml: &str) -> Self {
        Self::over(plan(toml)).await
    }

    /// With a Redis that writes its file.
    pub(crate) async fn durable(toml: &str) -> Self {
        Self::over(plan(toml).durable_redis()).await
    }

    async fn over(plan: Plan) -> Self {
        let server = plan.start().await;
        let served = served(&server).await;
        Self {
            beside: Beside::start(served),
            worker: served.worker,
            server,
        }
    }

    /// Waits until the clients had as many answers as a percentile needs.
    async fn watch(&self) {
        until_within(ANSWERS_LIMIT, "answers to clients beside", async || {
            (self.beside.count() >= ANSWERS_MIN).then_some(())
        })
        .await;
    }

    /// Watches the clients during an attack. No more work may stand before their answers than before it; the times by the
    /// clock are only told. Each client that comes back must have its session.
    pub(crate) async fn attack<T>(&self, name: &str, attack: impl Future<Output = T>) -> (T, Cost) {
        drop(self.beside.take());
        self.watch().await;
        let before = self.beside.take();
        let redis = self.server.redis();
        redis.command(&["CONFIG", "RESETSTAT"]).await;
        forget_peak(self.worker);
        let (worker_before, redis_before) = (self.worker_memory(), redis.info("memory", "used_memory").await);
        let (cpu_before, began) = (self.redis_cpu().await, Instant::now());
        let output = attack.await;
        let took = began.elapsed();
        let redis_cpu = self.redis_cpu().await.saturating_sub(cpu_before);
        self.watch().await;
        let during = self.beside.take();
        let redis_peak = redis.info("memory", "used_memory_peak").await;
        let cost = Cost {
            worker: process_memory(self.worker, "VmHWM").saturating_sub(worker_before),
            redis: (redis_peak - redis_before).max(0.0) as usize,
        };
        let (calm, p99) = (before.p99(), during.p99());
        eprintln!(
            "{name}: {took:?}; p99 of the work {:?} before, {:?} during; by the clock {:?} before, {:?} during; \
             {} answers, {} returns, the slowest {:?}; worker +{} KiB, Redis +{} KiB, {redis_cpu:?} of its CPU",
            calm.work,
            p99.work,
            calm.wall,
            p99.wall,
            during.answers.len(),
            during.returns.len(),
            during.returns.iter().max(),
            cost.worker >> 10,
            cost.redis >> 10,
        );
        assert_unharmed(name, &during, calm, p99);
        (output, cost)
    }

    async fn redis_cpu(&self) -> Duration {
        let redis = self.server.redis();
        let of = async |field| redis.info("cpu", field).await;
        Duration::from_secs_f64(of("used_cpu_user").await + of("used_cpu_sys").await)
    }

    /// What the worker has in memory now (bytes).
    pub(crate) fn worker_memory(&self) -> usize {
        process_memory(self.worker, "VmRSS")
    }
}

fn assert_unharmed(name: &str, during: &Seen, calm: Wait, p99: Wait) {
    assert!(during.faults.is_empty(), "{name}: {:?}", during.faults);
    assert!(!during.returns.is_empty(), "{name}: nothing came back");
    let allowed = WORK_FLOOR.max(MORE * calm.work);
    assert!(p99.work <= allowed, "{name}: {p99:?}, {calm:?} before");
}

/// How many attackers there are: few in `make test`, many in `make chaos`.
pub(crate) fn many(few: usize, many: usize) -> usize {
    if std::env::var_os("CHAOS_SECONDS").is_some() {
        many
    } else {
        few
    }
}
