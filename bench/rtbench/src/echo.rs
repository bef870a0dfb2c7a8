//! Closed loop of `echo`: each connection keeps `inflight` requests waiting for their acks.

use crate::common::Common;
use crate::sio;
use crate::sio::{Connection, Packet, parse};
use crate::stats::{Report, Shared, Stats, measure};
use crate::target::{Outcome, Target};
use clap::Args;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Instant;
use tokio::task::{JoinSet, spawn_local};

/// Connections that are opened at a time.
const OPENING_AT_ONCE: usize = 32;

#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Requests waiting per connection
    #[arg(long, short = 'i', default_value_t = 1)]
    pub(crate) inflight: usize,
    /// Bytes in the echoed string
    #[arg(long, short = 'p', default_value_t = 64)]
    pub(crate) payload: usize,
}

pub(crate) async fn run(options: &Options) -> Outcome<Report> {
    let common = &options.common;
    let (target, stats) = (common.target()?, Stats::new());
    let mut tasks = Vec::new();
    let payload: Rc<str> = "x".repeat(options.payload).into();
    for connection in connect_all(&target, common, common.connections, &stats).await {
        let (stats, payload, options) = (stats.clone(), payload.clone(), options.clone());
        tasks.push(spawn_local(async move {
            if let Err(error) = echo_loop(connection, &stats, &payload, &options).await {
                stats.error(&error);
            }
        }));
    }
    let (mut report, ()) = measure(common, &stats, || ()).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    report.insert("scenario".into(), json!("echo"));
    report.insert("errors".into(), json!(*stats.errors.borrow()));
    Ok(report)
}

/// Opens this many connections; failures are counted.
pub(crate) async fn connect_all(target: &Rc<Target>, common: &Common, count: usize, stats: &Shared) -> Vec<Connection> {
    let mut open = Vec::with_capacity(count);
    connect_each(target, common, count, stats, |connection| open.push(connection)).await;
    open
}

/// Opens this many connections and hands each over as soon as it is there; failures are counted.
pub(crate) async fn connect_each(
    target: &Rc<Target>,
    common: &Common,
    count: usize,
    stats: &Shared,
    mut take: impl FnMut(Connection),
) {
    let mut opening = JoinSet::new();
    for number in 1..=count {
        let (target, auth) = (target.clone(), common.auth.clone());
        opening.spawn_local(async move { sio::connect(&target, auth.as_ref()).await });
        while opening.len() >= OPENING_AT_ONCE || (number == count && !opening.is_empty()) {
            match opening.join_next().await {
                Some(Ok(Ok(connection))) => take(connection),
                Some(Ok(Err(error))) => stats.error(&error),
                Some(Err(_)) | None => stats.error("task failed"),
            }
        }
    }
}

async fn echo_loop(mut connection: Connection, stats: &Stats, payload: &str, options: &Options) -> Outcome<()> {
    let event = &options.common.ev_echo;
    let inflight = options.inflight.max(1);
    let mut sent = vec![Instant::now(); inflight];
    let packet = |id: u64| format!("42{id}[\"{event}\",\"{payload}\"]");
    // Ack ids are round * inflight + slot, so that an ack finds its slot in any order.
    for (slot, at) in sent.iter_mut().enumerate() {
        *at = Instant::now();
        connection.socket.feed(packet(slot as u64)).await?;
    }
    loop {
        let text = connection.socket.receive().await?;
        let Packet::Ack(id, array) = parse(&text) else {
            continue;
        };
        let slot = id as usize % inflight;
        stats.op(sent[slot].elapsed().as_micros() as u64);
        let inner = array.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]"));
        if inner != Some(payload) && serde_json::from_str::<Value>(array).ok() != Some(json!([payload])) {
            stats.error("wrong echo");
        }
        sent[slot] = Instant::now();
        connection.socket.feed(packet(id + inflight as u64)).await?;
    }
}
