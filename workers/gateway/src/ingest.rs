//! What others put into Redis for our clients, brought into the log. Every worker stands by; the one that leads
//! reads channels and streams; another one does as soon as it has died or left, or is silent for a second.

use crate::clock::unix_ms;
use crate::entries::entry_of;
use crate::lifecycle::Phase;
use crate::metrics::Ingested;
use crate::worker::Worker;
use boot::Emit;
use bytes::Bytes;
use futures_util::future::join_all;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::{AppendError, Dedupe, Ingest, IngestNames, Item, LeaderLease, StoreError};
use tokio::task::yield_now;
use tokio::time::{interval, sleep};
use tracing::{debug, info, warn};
use wire::foreign::{self, ForeignError, Order};

/// After a failure of Redis, this long until the next attempt.
const RETRY: Duration = Duration::from_millis(300);
/// After Redis has refused to let us hear the channels, this long: an operator has to change its ACL.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Bytes that are read in one go.
const WORK_BYTES: usize = 256 << 10;
/// Most bytes that JSON and base64 need for one byte of an entry.
const ESCAPED_BYTES: usize = 6;
/// Field of our stream's items that holds the JSON of an event.
const PLAIN_FIELD: &str = "event";

/// Runs as long as the worker serves.
pub(crate) async fn run(worker: Rc<Worker>) {
    let names = names(&worker.settings.emit);
    let shut = [
        &names.python_channel,
        &names.node_prefix,
        &names.node_stream,
        &names.own_stream,
    ];
    if shut.iter().all(|name| name.is_none()) {
        return;
    }
    let Some(ingest) = worker.store.ingest(names) else {
        return;
    };
    let mut phase = worker.lifecycle.phase.subscribe();
    tokio::select! {
        () = stand_by(&worker, &ingest) => {}
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    ingest.step_down().await;
}

fn names(settings: &Emit) -> IngestNames {
    let open = |name: &String| (!name.is_empty()).then(|| name.clone());
    IngestNames {
        python_channel: open(&settings.python_channel),
        node_prefix: open(&settings.node_prefix),
        node_stream: open(&settings.node_stream),
        own_stream: open(&settings.stream),
    }
}

async fn stand_by(worker: &Rc<Worker>, ingest: &Ingest) {
    loop {
        let look_again = match ingest.renew_lease().await {
            Ok(LeaderLease::Ours) => {
                info!("external ingest lease acquired");
                worker.metrics.ingest_leader.set_count(1);
                let reason = tokio::select! {
                    reason = keep_lease(ingest) => reason,
                    Err(error) = channels(worker, ingest) => error.to_string(),
                    Err(error) = streams(worker, ingest) => error.to_string(),
                };
                worker.metrics.ingest_leader.set_count(0);
                debug!(reason, "external ingest lease given up");
                Ingest::RENEW
            }
            Ok(LeaderLease::Anothers(left)) => left,
            Err(error) => {
                debug!(%error, "holder of the external ingest lease not known");
                Ingest::RENEW
            }
        };
        tokio::select! {
            () = sleep(look_again) => {}
            () = ingest.lease_free() => {}
        }
    }
}

/// Ends when the leader lease is lost; says why.
async fn keep_lease(ingest: &Ingest) -> String {
    let mut renew = interval(Ingest::RENEW);
    loop {
        renew.tick().await;
        match ingest.renew_lease().await {
            Ok(LeaderLease::Ours) => {}
            Ok(LeaderLease::Anothers(_)) => return "another worker leads".to_owned(),
            Err(error) if !ingest.holds_lease() => return error.to_string(),
            Err(_) => {}
        }
    }
}

/// Pub/sub: what cannot be appended now is lost, and said so.
async fn channels(worker: &Rc<Worker>, ingest: &Ingest) -> Result<(), StoreError> {
    let opened = loop {
        match ingest.channels().await {
            // The streams are open all the same.
            Err(error @ (StoreError::Refused { .. } | StoreError::Unauthorized { .. })) => {
                warn!(%error, "ingest channels not subscribed");
                sleep(REFUSED_PAUSE).await;
            }
            opened => break opened?,
        }
    };
    let Some(mut channels) = opened else {
        return pending().await;
    };
    loop {
        let Some(messages) = channels.next().await else {
            if worker.store.ping().await.is_ok() {
                warn!(
                    "ingest channels closed by redis: a message larger than client-output-buffer-limit allows was lost"
                );
            }
            return Err(StoreError::Unavailable {
                op: "ingest",
                reason: "the connection was closed".to_owned(),
            });
        };
        if !ingest.holds_lease() {
            return Err(overslept());
        }
        // Queued in this order, whatever the order of the answers.
        let mut appended = Vec::new();
        let mut work = Work::default();
        for (channel, payload) in messages {
            work.pause_after(payload.len()).await;
            if is_refused_unread(worker, &channel, payload.len()) {
                continue;
            }
            let order = read(&worker.settings.emit, &channel, &payload);
            if let Some(append) = take(worker, &channel, order, None) {
                appended.push(async move { (channel, append.await) });
            }
        }
        for (channel, outcome) in join_all(appended).await {
            if let Err(error) = outcome {
                warn!(channel, %error, "external event lost");
            }
        }
    }
}

/// The loop was paused for so long that another worker may have taken the lease: what was read meanwhile is that one's, and
/// all begins anew.
fn overslept() -> StoreError {
    StoreError::Unavailable {
        op: "ingest",
        reason: "the leader lease has run out".to_owned(),
    }
}

/// What can never be an entry is not read, which would take its time.
fn is_refused_unread(worker: &Worker, source: &str, bytes: usize) -> bool {
    let max = worker.settings.log.entry_bytes_max;
    let refused = bytes > max.saturating_mul(ESCAPED_BYTES);
    if refused {
        worker.metrics.ingested.one(Ingested::Refused);
        warn!(
            source,
            bytes, max, "external event refused: larger than log.entry_bytes_max allows"
        );
    }
    refused
}

/// Reading is work: after some of it others have their turn, and the lease is renewed.
#[derive(Default)]
struct Work(usize);

impl Work {
    async fn pause_after(&mut self, bytes: usize) {
        self.0 += bytes;
        if self.0 > WORK_BYTES {
            self.0 = 0;
            yield_now().await;
        }
    }
}

fn read(settings: &Emit, channel: &str, payload: &Bytes) -> Result<Order, ForeignError> {
    if channel == settings.python_channel {
        return foreign::python(payload);
    }
    let requests = format!("{}-request", settings.node_prefix);
    match foreign::channel_namespace(channel, &requests) {
        Some(nsp) => foreign::request(nsp, payload),
        None => foreign::broadcast(payload),
    }
}

/// Streams: an item stays until it is in the log.
async fn streams(worker: &Rc<Worker>, ingest: &Ingest) -> Result<(), StoreError> {
    let Some(mut streams) = ingest.streams().await? else {
        return pending().await;
    };
    loop {
        let items = streams.next().await?;
        if !ingest.holds_lease() {
            return Err(overslept());
        }
        let mut appended = Vec::new();
        let mut work = Work::default();
        for item in &items {
            work.pause_after(item.bytes()).await;
            if is_refused_unread(worker, &item.stream, item.bytes()) {
                continue;
            }
            note_lag(worker, item);
            let own = item.stream == worker.settings.emit.stream;
            let id = Dedupe::item(&item.stream, &item.id);
            appended.extend(take(worker, &item.stream, read_item(own, item), Some(id)));
        }
        let mut again = false;
        for outcome in join_all(appended).await {
            match outcome {
                Ok(_) => {}
                Err(error @ (AppendError::Refused { .. } | AppendError::TooLarge { .. })) => {
                    refuse(worker, "stream", &error);
                }
                Err(
                    error @ (AppendError::Closed
                    | AppendError::TooManyIds
                    | AppendError::QueueFull { .. }
                    | AppendError::Timeout { .. }),
                ) => {
                    debug!(%error, "external events wait");
                    again = true;
                }
            }
        }
        if again {
            // All of them once more: what is in the log already is known by its id.
            sleep(RETRY).await;
        } else {
            streams.done(&items).await?;
        }
    }
}

/// The id of an item begins with the time of its birth, by the clock of Redis (milliseconds since 1970).
fn note_lag(worker: &Worker, item: &Item) {
    let born = item.id.split_once('-').and_then(|(ms, _)| ms.parse::<u64>().ok());
    let lag = born.map(|born| Duration::from_millis(unix_ms().saturating_sub(born)));
    if let Some(lag) = lag {
        worker.metrics.ingest_lag.observe(lag.as_secs_f64());
    }
}

fn read_item(own: bool, item: &Item) -> Result<Order, ForeignError> {
    if own {
        let text = item.field(PLAIN_FIELD).ok_or(ForeignError::Shape(
            "the item has no field `event` with the JSON of an event",
        ))?;
        foreign::plain(text.as_bytes())
    } else {
        foreign::stream_item(|name| item.field(name))
    }
}

/// Queues what an order means for the log.
fn take(
    worker: &Worker,
    source: &str,
    order: Result<Order, ForeignError>,
    id: Option<Dedupe>,
) -> Option<impl Future<Output = Result<store::Appended, AppendError>> + use<>> {
    let entry = order.and_then(|order| Ok(entry_of(order, &worker.limits)?));
    match entry {
        Ok(entry) => {
            let (entry, named) = entry?;
            worker.metrics.ingested.one(Ingested::Taken);
            Some(worker.store.append(entry, named.or(id)))
        }
        Err(error) => {
            refuse(worker, source, &error);
            None
        }
    }
}

/// Counts what is refused, and says why.
fn refuse(worker: &Worker, source: &str, error: &dyn std::fmt::Display) {
    worker.metrics.ingested.one(Ingested::Refused);
    match worker.unreadable.line(Instant::now()) {
        Some(0) => warn!(source, %error, "external event refused"),
        Some(untold) => warn!(source, %error, untold, "external event refused, others were before"),
        None => debug!(source, %error, "external event refused"),
    }
}
