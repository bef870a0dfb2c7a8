//! Group commit: one batch is on its way to Redis while the next one collects. A batch has a number,
//! and Redis remembers each worker's latest, so that one whose answer was lost is sent again without
//! being appended twice.

use super::Shared;
use super::canary::jittered;
use super::link::{ConnectionClass, Failure};
use super::pace::Pace;
use crate::answer::Appended;
use crate::counts::{Counts, Published};
use crate::dedupe::Dedupe;
use crate::error::{AppendError, StoreError};
use bytes::Bytes;
use redis::Value;
use session::Offset;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

/// Entries of one batch.
const BATCH_ENTRIES_MAX: usize = 512;
/// Bytes of one batch, unless a single entry is larger: Redis serves no other client meanwhile, and a client that
/// reads the log reads whole batches.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// First pause before a batch is tried again, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A worker counts the bytes that it appends to the log when they come to this part of `log.bytes_max`, not at each batch:
/// counting costs Redis a tenth of a batch.
const COUNTED_PART: u64 = 128;
/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD: usize = 64;

struct Pending {
    entry: Bytes,
    dedupe: Option<Dedupe>,
    since: Instant,
    deadline: Instant,
    done: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Pending {
    fn size(&self) -> usize {
        ENTRY_OVERHEAD + self.entry.len()
    }
}

#[derive(Default)]
struct Queue {
    pending: RefCell<VecDeque<Pending>>,
    /// Bytes waiting or on their way.
    bytes: Cell<usize>,
    some: Notify,
    closed: Cell<bool>,
    /// Why the latest batch has to wait; `None` once one was written.
    obstacle: Cell<Option<&'static str>>,
    counts: Rc<Counts>,
}

/// The end that entries are given to.
pub(super) struct Writer {
    queue: Rc<Queue>,
    entry_bytes_max: usize,
    queue_bytes_max: usize,
    patience: Duration,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("queued_bytes", &self.queue.bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for Writer {
    /// The task finishes what is queued, then ends.
    fn drop(&mut self) {
        self.queue.closed.set(true);
        self.queue.some.notify_one();
    }
}

impl Writer {
    pub(super) fn start(shared: &Rc<Shared>) -> Self {
        let queue = Rc::new(Queue {
            counts: shared.counts.clone(),
            ..Queue::default()
        });
        let options = &shared.options;
        let committer = Committer {
            shared: Rc::clone(shared),
            queue: Rc::clone(&queue),
            number: 0,
            uncounted: 0,
            pace: Pace::new(),
        };
        drop(tokio::task::spawn_local(committer.run()));
        Self {
            queue,
            entry_bytes_max: options.entry_bytes_max,
            queue_bytes_max: options.queue_bytes_max,
            patience: options.publish_timeout,
        }
    }

    pub(super) fn append(
        &self,
        entry: Bytes,
        dedupe: Option<Dedupe>,
    ) -> impl Future<Output = Result<Appended, AppendError>> + use<> {
        let after = self.patience;
        let now = Instant::now();
        let deadline = now + after;
        let queue = Rc::clone(&self.queue);
        let queued = self.enqueue(entry, dedupe, now);
        if let Err(error) = &queued {
            self.queue.counts.published.one(Published::failed(error));
        }
        async move {
            match timeout_at(deadline, queued?).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(AppendError::Closed),
                Err(_) => Err(queue.timeout(after)),
            }
        }
    }

    /// Bytes waiting or on their way.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.bytes.get()
    }

    fn enqueue(
        &self,
        entry: Bytes,
        dedupe: Option<Dedupe>,
        since: Instant,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        if entry.len() > self.entry_bytes_max {
            return Err(AppendError::TooLarge {
                bytes: entry.len(),
                max: self.entry_bytes_max,
            });
        }
        let (done, outcome) = oneshot::channel();
        let pending = Pending {
            entry,
            dedupe,
            since,
            deadline: since + self.patience,
            done,
        };
        let queued = self.queue.bytes.get();
        // A single entry is always let in, or a small limit would refuse it for ever.
        if queued > 0 && queued + pending.size() > self.queue_bytes_max {
            return Err(AppendError::QueueFull {
                queued,
                max: self.queue_bytes_max,
            });
        }
        self.queue.bytes.set(queued + pending.size());
        self.queue.pending.borrow_mut().push_back(pending);
        self.queue.some.notify_one();
        Ok(outcome)
    }
}

impl Queue {
    fn timeout(&self, after: Duration) -> AppendError {
        let obstacle = self.obstacle.get();
        AppendError::Timeout { after, obstacle }
    }

    fn finish(&self, pending: Pending, outcome: Result<Appended, AppendError>) {
        self.counts.published.one(Published::of(&outcome));
        self.counts.publish.observe(pending.since.elapsed().as_secs_f64());
        self.bytes.set(self.bytes.get().saturating_sub(pending.size()));
        // The caller may have given up waiting.
        drop(pending.done.send(outcome));
    }

    fn take(&self) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = pending.front() {
            let full = batch.len() >= BATCH_ENTRIES_MAX || bytes + next.size() > BATCH_BYTES_MAX;
            if full && !batch.is_empty() {
                break;
            }
            bytes += next.size();
            batch.extend(pending.pop_front());
        }
        batch
    }

    /// Takes out what is too late, which is at the front.
    fn expired(&self, now: Instant) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let late = pending.iter().take_while(|p| p.deadline <= now).count();
        pending.drain(..late).collect()
    }
}

/// The task that writes.
struct Committer {
    shared: Rc<Shared>,
    queue: Rc<Queue>,
    number: u64,
    /// Bytes that were appended and not counted yet.
    uncounted: u64,
    pace: Pace,
}

impl Committer {
    async fn run(mut self) {
        loop {
            while self.queue.pending.borrow().is_empty() {
                if self.queue.closed.get() {
                    return;
                }
                self.queue.some.notified().await;
                // Whatever else is appended in this turn of the loop goes along.
                tokio::task::yield_now().await;
            }
            self.pace.turn().await;
            let batch = self.queue.take();
            self.number += 1;
            self.shared.counts.batches.one();
            let readers = self.commit(batch).await;
            self.pace.answered(readers);
        }
    }

    /// Sees a batch through: done, or failed for good. Says to how many workers it was pushed, if Redis said so.
    async fn commit(&mut self, mut batch: Vec<Pending>) -> Option<u32> {
        let mut pause = RETRY_MIN;
        // Once Redis may have it, the batch is sent again as it was or not at all.
        let mut maybe_done = false;
        loop {
            let now = Instant::now();
            self.fail_late(&mut batch, now, maybe_done);
            if batch.iter().all(|p| p.deadline <= now) {
                self.fail(batch, &self.queue.timeout(self.shared.options.publish_timeout));
                return None;
            }
            let failure = match self.send(&batch).await {
                Ok(answer) => {
                    self.queue.obstacle.set(None);
                    self.succeed(batch, &answer);
                    return answer.readers;
                }
                Err(failure) => failure,
            };
            if !failure.error.passing() {
                warn!(error = %failure.error, entries = batch.len(), "log batch refused by redis");
                self.fail(
                    batch,
                    &AppendError::Refused {
                        reason: failure.error.to_string(),
                    },
                );
                return None;
            }
            debug!(error = %failure.error, entries = batch.len(), "log batch waits");
            self.queue.obstacle.set(failure.error.obstacle());
            maybe_done |= failure.sent;
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn send(&self, batch: &[Pending]) -> Result<Answer, Failure> {
        let (keys, script, options) = (&self.shared.keys, &self.shared.scripts.append, &self.shared.options);
        let known = self.shared.known.get();
        let lengths: Vec<String> = batch.iter().map(|p| p.entry.len().to_string()).collect();
        let mut cmd = script.call(&[keys.log_meta(), keys.log(), keys.log_sizes()]);
        cmd.arg(self.number)
            .arg(known.epoch())
            .arg(known.seq())
            .arg(options.log_entries_max)
            .arg(self.count(batch))
            .arg(keys.log_channel())
            .arg(&options.me)
            .arg(batch.len())
            .arg(lengths.join(","));
        match batch {
            [only] => cmd.arg(&only.entry[..]),
            several => cmd.arg(several.iter().map(|p| &p.entry[..]).collect::<Vec<_>>().concat()),
        };
        cmd.arg(keys.dedupe_prefix()).arg(super::millis(options.dedupe_window));
        for (index, pending) in batch.iter().enumerate() {
            if let Some(id) = &pending.dedupe {
                cmd.arg(index).arg(id.id()).arg(id.former().unwrap_or_default());
            }
        }
        let value = self.shared.link.script_once(ConnectionClass::Log, script, &cmd).await?;
        Answer::read(script.op, &value).map_err(Failure::from)
    }

    /// What the script has to count: nothing until there is enough.
    fn count(&self, batch: &[Pending]) -> String {
        let max = self.shared.options.log_bytes_max;
        if self.uncounted + bytes_of(batch) < max / COUNTED_PART {
            return String::new();
        }
        format!("{max} {}", self.uncounted)
    }

    fn succeed(&mut self, batch: Vec<Pending>, answer: &Answer) {
        let counted = !self.count(&batch).is_empty();
        self.uncounted = if counted { 0 } else { self.uncounted + bytes_of(&batch) };
        let mut offset = answer.first;
        for (index, pending) in batch.into_iter().enumerate() {
            let appended = match answer.duplicates.iter().find(|(i, _)| *i == index) {
                Some((_, offset)) => Appended {
                    offset: *offset,
                    duplicate: true,
                },
                None => {
                    let appended = Appended {
                        offset,
                        duplicate: false,
                    };
                    self.shared.saw(offset);
                    offset = offset.next();
                    appended
                }
            };
            self.queue.finish(pending, Ok(appended));
        }
    }

    fn fail(&self, batch: Vec<Pending>, error: &AppendError) {
        for pending in batch {
            self.queue.finish(pending, Err(error.clone()));
        }
    }

    /// Fails what is too late: in the queue, and in the batch if it can still be changed.
    fn fail_late(&self, batch: &mut Vec<Pending>, now: Instant, frozen: bool) {
        let late = self.queue.expired(now);
        let of_batch = if frozen {
            Vec::new()
        } else {
            batch.extract_if(.., |p| p.deadline <= now).collect()
        };
        let error = self.queue.timeout(self.shared.options.publish_timeout);
        self.fail(of_batch, &error);
        self.fail(late, &error);
    }
}

fn bytes_of(batch: &[Pending]) -> u64 {
    batch.iter().map(|pending| pending.entry.len() as u64).sum()
}

/// `<batch> <epoch> <first seq> <index>=<offset>;…`, and ` <readers>` unless nothing was pushed, or in an earlier attempt.
struct Answer {
    first: Offset,
    duplicates: Vec<(usize, Offset)>,
    readers: Option<u32>,
}

impl Answer {
    fn read(op: &'static str, value: &Value) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt {
            what: op,
            reason: "the result of a batch".to_owned(),
        };
        let Value::BulkString(bytes) = value else {
            return Err(corrupt());
        };
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt())?;
        let mut words = text.split(' ').skip(1);
        let epoch = words.next().and_then(|w| w.parse().ok()).ok_or_else(corrupt)?;
        let seq = words.next().and_then(|w| w.parse().ok()).ok_or_else(corrupt)?;
        let mut duplicates = Vec::new();
        for item in words.next().unwrap_or_default().split_terminator(';') {
            let (index, offset) = item.split_once('=').ok_or_else(corrupt)?;
            let index = index.parse().map_err(|_| corrupt())?;
            duplicates.push((index, offset.parse().map_err(|_| corrupt())?));
        }
        let readers = words.next().map(str::parse).transpose().map_err(|_| corrupt())?;
        Ok(Self {
            first: Offset::new(epoch, seq),
            duplicates,
            readers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_duplicates_and_readers() {
        let read = |text: &str| {
            let answer = Answer::read("append", &Value::BulkString(text.into()))?;
            Ok::<_, StoreError>((answer.first, answer.duplicates, answer.readers))
        };
        let offset = |seq| Offset::new(5, seq);
        assert_eq!(read("1 5 9 ").unwrap(), (offset(9), vec![], None));
        assert_eq!(read("1 5 9  4").unwrap(), (offset(9), vec![], Some(4)));
        assert_eq!(read("1 5 9 0=5-7;").unwrap(), (offset(9), vec![(0, offset(7))], None));
        assert_eq!(
            read("1 5 9 0=5-7; 12").unwrap(),
            (offset(9), vec![(0, offset(7))], Some(12))
        );
        for bad in ["", "1 5", "1 5 x ", "1 5 9 0", "1 5 9  many"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
