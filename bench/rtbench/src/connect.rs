//! New sessions: open, CONNECT, close.

use crate::common::{Common, seconds};
use crate::sio;
use crate::stats::{Report, Stats, measure};
use crate::target::Outcome;
use clap::Args;
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;
use tokio::task::spawn_local;

/// Between a failed session and the next (seconds).
const PAUSE_AFTER_FAILURE: f64 = 0.05;

#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions being opened or closed at a time (--connections is not used)
    #[arg(long, short = 'i', default_value_t = 32)]
    pub(crate) inflight: usize,
    /// Stop after so many sessions
    #[arg(long, default_value_t = 200_000)]
    pub(crate) max_sessions: u64,
}

pub(crate) async fn run(options: &Options) -> Outcome<Report> {
    let common = &options.common;
    let (target, stats) = (common.target()?, Stats::new());
    let left = Rc::new(Cell::new(options.max_sessions));
    let mut tasks = Vec::new();
    for _ in 0..options.inflight {
        let (target, stats, auth, left) = (target.clone(), stats.clone(), common.auth.clone(), left.clone());
        tasks.push(spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let started = Instant::now();
                match sio::connect(&target, auth.as_ref()).await {
                    Ok(connection) => {
                        // The latency ends with the answer to CONNECT. Closing is part of the work only.
                        let latency = started.elapsed().as_micros() as u64;
                        connection.socket.close().await;
                        stats.op(latency);
                    }
                    Err(error) => {
                        stats.error(&error);
                        tokio::time::sleep(seconds(PAUSE_AFTER_FAILURE)).await;
                    }
                }
            }
        }));
    }
    let (mut report, ()) = measure(common, &stats, || ()).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    report.insert("scenario".into(), json!("connect"));
    report.insert("errors".into(), json!(*stats.errors.borrow()));
    Ok(report)
}
