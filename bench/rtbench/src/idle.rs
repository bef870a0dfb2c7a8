//! Connections that do nothing: what each costs in memory and CPU.

use crate::common::{Common, seconds};
use crate::echo::connect_each;
use crate::proc;
use crate::stats::{Report, Stats, Window, round};
use crate::target::Outcome;
use clap::Args;
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;
use tokio::task::spawn_local;

#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Seconds between the last connection and the measured window
    #[arg(long, default_value_t = 2.0)]
    pub(crate) settle: f64,
}

pub(crate) async fn run(options: &Options) -> Outcome<Report> {
    let common = &options.common;
    let (target, stats) = (common.target()?, Stats::new());
    let (server_before, redis_before) = (proc::pss_kib(&common.server_pid), proc::pss_kib(&common.redis_pid));
    let (cpu_before, started) = (proc::cpu(&common.server_pid), Instant::now());
    let alive = Rc::new(Cell::new(0u64));
    let mut tasks = Vec::with_capacity(common.connections);
    // Pings are answered from the start: opening very many connections takes longer than a heartbeat.
    connect_each(&target, common, common.connections, &stats, |mut connection| {
        let (stats, alive) = (stats.clone(), alive.clone());
        alive.set(alive.get() + 1);
        tasks.push(spawn_local(async move {
            loop {
                if let Err(error) = connection.socket.receive().await {
                    stats.error(&error);
                    alive.set(alive.get() - 1);
                    return;
                }
            }
        }));
    })
    .await;
    let (opened, opening) = (tasks.len(), started.elapsed().as_secs_f64());
    let opening_cpu = proc::cpu(&common.server_pid) - cpu_before;
    tokio::time::sleep(seconds(options.settle)).await;
    let window = Window::open(common, &stats);
    tokio::time::sleep(seconds(common.duration)).await;
    let mut report = window.close(common, &stats);
    let count = opened.max(1) as f64;
    let grown = |pids: &[i32], before: u64| round((proc::pss_kib(pids) as f64 - before as f64) / count, 2);
    let cpu = report.get("server_cpu_s").and_then(Value::as_f64).unwrap_or_default();
    let held = report["seconds"].as_f64().unwrap_or(1.0);
    report.retain(|name, _| !name.starts_with("ops") && !name.ends_with("per_op"));
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("scenario", json!("idle"));
    put("opened", json!(opened));
    put("alive_at_end", json!(alive.get()));
    put("open_per_s", json!(round(count / opening, 1)));
    put("open_cpu_us_per_conn", json!(round(opening_cpu * 1e6 / count, 1)));
    put("pss_before_kib", json!(server_before));
    put("pss_kib_per_conn", json!(grown(&common.server_pid, server_before)));
    put("redis_pss_kib_per_conn", json!(grown(&common.redis_pid, redis_before)));
    put("cpu_us_per_conn_per_s", json!(round(cpu * 1e6 / count / held, 2)));
    put("errors", json!(*stats.errors.borrow()));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(report)
}
