//! Canaries: written by one of the workers every few seconds, heard by all. Without them a worker could not tell a log
//! in which nothing happens from one that cannot be written, or is not heard.

use super::Shared;
use super::link::ConnectionClass;
use super::push::{self, Push};
use super::reply::Reply;
use crate::error::StoreError;
use bytes::Bytes;
use futures_util::StreamExt as _;
use redis::aio::PubSubStream;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// The lock that keeps canaries apart is held for this part of their interval, in percent.
const LOCK_PERCENT: u32 = 75;
/// After one that could not be written: clients wait for Redis to take writes again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of canaries.
#[derive(Debug, Default)]
pub(super) struct Canaries {
    /// Number and time of this worker's latest one.
    sent: Cell<Option<(u64, Instant)>>,
    /// Why the latest one could not be written; another worker's turn proves as much as one's own.
    failed: RefCell<Option<StoreError>>,
    /// Redis is back: the next one is due.
    due: Notify,
}

impl Canaries {
    /// Why the latest one could not be written.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failed.borrow().clone()
    }

    /// Whether the latest one could be written.
    pub(super) fn are_written(&self) -> bool {
        self.failed.borrow().is_none()
    }

    /// The next one is due now.
    pub(super) fn hurry(&self) {
        self.due.notify_one();
    }

    /// How long this worker's canary took, if it is its latest one.
    pub(super) fn took(&self, number: u64) -> Option<Duration> {
        let sent = self.sent.get().filter(|(latest, _)| *latest == number);
        sent.map(|(_, at)| at.elapsed())
    }
}

/// The proof that a worker can write and hears what is written, before any client relies on it: its first canary comes back on
/// its subscription.
pub(super) async fn prove(shared: &Shared, stream: &mut PubSubStream) -> Result<(), StoreError> {
    send(shared, 0).await?;
    let channel = shared.keys.log_channel();
    let heard = async {
        while let Some(message) = stream.next().await {
            let payload = Bytes::copy_from_slice(message.get_payload_bytes());
            let canary = |push| matches!(push, Push::Canary { sender, number: 0, .. } if sender == shared.options.me);
            if message.get_channel_name() == channel && push::parse(&payload).is_some_and(canary) {
                return true;
            }
        }
        false
    };
    match timeout(shared.link.response_timeout(), heard).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(StoreError::Unavailable {
            op: "canary",
            reason: "what is published does not come back to its subscriber".to_owned(),
        }),
    }
}

/// Sends one every interval, unless another worker did.
pub(super) async fn keep_sending(shared: std::rc::Rc<Shared>) {
    let canaries = &shared.canaries;
    let interval = shared.options.canary_interval;
    let mut number = 0;
    loop {
        let pause = if canaries.are_written() {
            interval
        } else {
            interval.min(RETRY)
        };
        tokio::select! {
            () = sleep(jittered(pause)) => {}
            () = canaries.due.notified() => {}
        }
        number += 1;
        let failed = send(&shared, number).await.err();
        match (&failed, canaries.are_written()) {
            (Some(error), true) => warn!(%error, "canary not written"),
            (None, false) => info!("canaries written again"),
            (Some(_), false) | (None, true) => {}
        }
        canaries.failed.replace(failed);
    }
}

/// Number 0 is sent in any case.
async fn send(shared: &Shared, number: u64) -> Result<(), StoreError> {
    let script = &shared.scripts.canary;
    let interval = shared.options.canary_interval;
    let known = shared.known.get();
    let mut cmd = script.call(&[
        shared.keys.log_meta(),
        shared.keys.log(),
        shared.keys.log_sizes(),
        shared.keys.log_canary(),
        shared.keys.log_marks(),
    ]);
    cmd.arg(known.epoch())
        .arg(known.seq())
        .arg(super::millis(interval * LOCK_PERCENT / 100))
        .arg(shared.keys.log_channel())
        .arg(format!("{} {number}", shared.options.me))
        .arg(super::millis(shared.options.log_age_max))
        .arg(u8::from(number == 0));
    let asked = Instant::now();
    shared.canaries.sent.set(Some((number, asked)));
    let value = shared.link.script(ConnectionClass::Bulk, script, &cmd).await?;
    let mut answer = Reply::new(script.op, value)?;
    shared.clock.saw(asked, Instant::now(), answer.number()?);
    shared.counts.log_bytes.set_count(answer.number()?);
    Ok(())
}

/// Between 90 % and 110 %, so that workers do not act in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}
