//! HTTP long-polling: any worker answers any poll, takes any POST. What must survive between two
//! requests stands in the store.

mod batch;
mod get;
mod orders;
mod post;
mod recent;

pub(crate) use get::get;
pub(crate) use post::{Allowance, BodyError, Incoming, Taken, post};
pub(crate) use recent::remember;

use crate::ending::Ending;
use crate::hub::Park;
use crate::notes::note_closed;
use crate::worker::Worker;
use session::{Record, Sid};
use std::rc::Rc;
use std::time::Duration;
use store::StoreError;
use tracing::{debug, info};
use wire::engine::Refusal;

/// How long a request waits for an unreachable Redis before it gets 503.
const REDIS_PATIENCE: Duration = Duration::from_secs(5);
/// The same for a Redis that takes commands and does not answer.
const FROZEN_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a Redis that is away.
const REDIS_RETRY: Duration = Duration::from_millis(100);

/// How a polling request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 503: too much is buffered for all clients; the session is over.
    Busy,
    /// 400 without a body: the request broke a rule and the session is over.
    Broken,
    /// 200 with the packets of a poll.
    Packets(String),
    /// 400 (or 403) with the error's JSON.
    Refused(Refusal),
    /// 200 `ok` to a POST.
    Taken,
    /// 413: the body is too large; the session continues.
    TooLarge,
    /// 408: the body did not come in time; the session is over.
    TooSlow,
    /// 503: Redis is away.
    Unavailable,
}

/// A poll's place in the hub; gone when dropped.
struct Parked {
    worker: Rc<Worker>,
    sid: Sid,
    park: Rc<Park>,
}

impl Parked {
    fn new(worker: &Rc<Worker>, sid: &Sid) -> Self {
        Self {
            worker: worker.clone(),
            sid: sid.clone(),
            park: worker.hub.borrow_mut().park(sid),
        }
    }

    /// Has it hear the log for a session as it is now.
    fn enter_hub(&self, record: &Record) {
        self.worker.hub.borrow_mut().enter_park(&self.park, record);
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.worker.hub.borrow_mut().unpark(&self.sid, &self.park);
    }
}

/// Ends the session if its request is dropped before it was answered: the client went away, and the
/// protocol says that its session is over then.
struct Abort {
    worker: Rc<Worker>,
    sid: Sid,
    armed: bool,
}

impl Abort {
    fn new(worker: &Rc<Worker>, sid: &Sid) -> Self {
        Self {
            worker: worker.clone(),
            sid: sid.clone(),
            armed: true,
        }
    }

    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if !self.armed || !self.worker.lifecycle.is_serving() {
            return;
        }
        let (worker, sid) = (self.worker.clone(), self.sid.clone());
        tokio::task::spawn_local(async move { end(&worker, &sid, &Ending::TransportClosed).await });
    }
}

/// Two polls or two POSTs of a session at once: it ends.
async fn overlapped(worker: &Worker, sid: &Sid) -> Reply {
    end(worker, sid, &Ending::Overlap).await;
    Reply::Broken
}

/// Counts a request of a session that began elsewhere.
pub(crate) fn note_foreign(worker: &Worker, record: &Record) {
    if record.worker != worker.name() {
        worker.metrics.foreign.one();
    }
}

/// Ends a polling session.
async fn end(worker: &Worker, sid: &Sid, ending: &Ending) {
    note_end(worker, ending);
    if worker.settings.recovery.enabled && ending.recoverable() {
        match worker.store.load(sid).await {
            Ok(Some(record)) => end_in_store(worker, sid, Some(&record), ending).await,
            Ok(None) => {}
            Err(error) => debug!(%error, "session not ended in the store"),
        }
    } else {
        end_in_store(worker, sid, None, ending).await;
    }
}

/// The same, for a caller that has the record as it is to be kept, and the lease of a POST.
async fn end_with(worker: &Worker, record: &Record, ending: &Ending) {
    note_end(worker, ending);
    let kept = worker.settings.recovery.enabled && ending.recoverable();
    end_in_store(worker, &record.sid, kept.then_some(record), ending).await;
}

/// Ends it, keeping a record that can be resumed.
async fn end_in_store(worker: &Worker, sid: &Sid, record: Option<&Record>, ending: &Ending) {
    recent::forget(worker, sid);
    let epoch = record.map(|record| record.epoch);
    let kept = record.and_then(|record| worker.kept(record));
    note_closed(worker, sid, ending, kept.is_some());
    // Without the record at hand its sockets are looked after later.
    if let (Some(external), Some(record)) = (&worker.external, record) {
        external.ended(record, kept.is_some(), ending).await;
    }
    if let Err(error) = worker.store.end(sid, epoch, kept).await {
        debug!(%error, "session not ended in the store");
    }
}

fn note_end(worker: &Worker, ending: &Ending) {
    worker.metrics.ended(ending);
    if worker.settings.logging.connections {
        info!(reason = %ending, transport = "polling", "client disconnected");
    } else {
        debug!(reason = %ending, transport = "polling", "client disconnected");
    }
}

/// Retries until Redis answers or the deadline passes, so that a restart of Redis delays polling clients but does not
/// end their sessions.
async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let begun = tokio::time::Instant::now();
    loop {
        match ask().await {
            // Redis may have done it and only be frozen: giving up now would leave a lease behind
            // that stands in the client's way.
            Err(StoreError::Timeout { .. }) if begun.elapsed() < FROZEN_PATIENCE => {}
            Err(error) if error.passing() && begun.elapsed() < REDIS_PATIENCE => {
                tokio::time::sleep(REDIS_RETRY).await;
            }
            answer => return answer,
        }
    }
}
