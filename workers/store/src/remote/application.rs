//! The application link in Redis: batches of what clients did, with numbers as those of the log (`writer.rs`); what is
//! published; sockets that are to be looked after.

use super::canary::jittered;
use super::link::{ConnectionClass, Failure};
use super::{Remote, Shared, millis};
use crate::application::{Due, LINK_VERSION, LinkTerms, Put, Unit};
use crate::error::StoreError;
use redis::Value;
use session::{Pid, Sid};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

const OP: &str = "app_put";
/// Units of one batch: Redis serves nothing else meanwhile.
const BATCH_UNITS_MAX: usize = 256;
/// Bytes of one batch, unless what is put by one call is larger.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// First pause before a batch is tried again, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long Redis remembers a worker's latest batch: longer than any retry.
const BATCH_REMEMBERED: Duration = Duration::from_secs(600);
/// How long one worker alone looks after sockets.
const DUE_LOCK: Duration = Duration::from_millis(500);
/// Sockets looked after at a time.
const DUE_MAX: u32 = 256;

type Outcome = Result<Vec<Put>, StoreError>;

struct Pending {
    units: Vec<Unit>,
    bytes: usize,
    deadline: Instant,
    done: oneshot::Sender<Outcome>,
}

/// What waits to be put.
#[derive(Default)]
pub(super) struct Puts {
    pending: RefCell<VecDeque<Pending>>,
    /// Bytes waiting or on their way.
    bytes: Cell<usize>,
    some: Notify,
    closed: Cell<bool>,
    /// Terms that were published last.
    terms: Cell<LinkTerms>,
}

impl std::fmt::Debug for Puts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puts")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Puts {
    pub(super) fn start(shared: &Rc<Shared>) -> Rc<Self> {
        let puts = Rc::new(Self::default());
        let committer = Committer {
            shared: Rc::clone(shared),
            puts: Rc::clone(&puts),
            number: 0,
        };
        drop(tokio::task::spawn_local(committer.run()));
        puts
    }

    /// The task finishes what is queued, then ends.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.some.notify_one();
    }

    fn take(&self) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let (mut batch, mut bytes, mut units) = (Vec::new(), 0, 0);
        while let Some(next) = pending.front() {
            let full = units + next.units.len() > BATCH_UNITS_MAX || bytes + next.bytes > BATCH_BYTES_MAX;
            if full && !batch.is_empty() {
                break;
            }
            (bytes, units) = (bytes + next.bytes, units + next.units.len());
            batch.extend(pending.pop_front());
        }
        batch
    }

    fn finish(&self, pending: Pending, outcome: Outcome) {
        self.bytes.set(self.bytes.get().saturating_sub(pending.bytes));
        // The caller may not be interested any more.
        drop(pending.done.send(outcome));
    }
}

impl Remote {
    pub(crate) fn put(&self, units: Vec<Unit>) -> impl Future<Output = Outcome> + use<> {
        let (puts, options) = (&self.puts, &self.shared.options);
        let bytes = units.iter().map(Unit::size).sum();
        let (after, queued) = (options.publish_timeout, puts.bytes.get());
        let deadline = Instant::now() + after;
        let (done, outcome) = oneshot::channel();
        // A single call is always let in, or a small limit would refuse it for ever.
        let full = queued > 0 && queued + bytes > options.queue_bytes_max;
        if !full {
            puts.bytes.set(queued + bytes);
            let pending = Pending {
                units,
                bytes,
                deadline,
                done,
            };
            puts.pending.borrow_mut().push_back(pending);
            puts.some.notify_one();
        }
        async move {
            if full {
                let reason = format!("{queued} bytes of records wait already");
                return Err(StoreError::Unavailable { op: OP, reason });
            }
            match timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(StoreError::Unavailable {
                    op: OP,
                    reason: "the store was closed".to_owned(),
                }),
                Err(_) => Err(StoreError::Timeout { op: OP, after }),
            }
        }
    }

    pub(crate) async fn publish_link(&self, terms: &LinkTerms) -> Result<(), StoreError> {
        self.puts.terms.set(*terms);
        let Shared {
            keys, scripts, options, ..
        } = &*self.shared;
        let mut cmd = redis::cmd("HSET");
        cmd.arg(keys.app_link(LINK_VERSION));
        let number = |n: u64| n.to_string();
        for (name, value) in [
            ("prefix", keys.app_prefix()),
            ("version", LINK_VERSION.to_string()),
            ("partitions", terms.partitions.to_string()),
            ("lease_ms", number(millis(terms.lease))),
            ("attempts_max", terms.attempts_max.to_string()),
            ("dead_max", number(terms.dead_max)),
            ("dedupe_ms", number(millis(options.dedupe_window))),
            ("log_meta", keys.log_meta()),
            ("log_entries_max", number(options.log_entries_max)),
            ("log_bytes_max", number(options.log_bytes_max)),
            ("log_channel", keys.log_channel()),
            ("inbox", keys.app("inbox:")),
            ("keys_begin", names(&[keys.app("process"), keys.app_link(LINK_VERSION)])),
            ("begin", scripts.app_begin.text().to_owned()),
            (
                "keys_lease",
                names(&[keys.app("owner"), keys.app("processes"), keys.app_link(LINK_VERSION)]),
            ),
            ("lease", scripts.app_lease.text().to_owned()),
            (
                "keys_write",
                names(&[
                    keys.log_meta(),
                    keys.log(),
                    keys.log_sizes(),
                    keys.app_link(LINK_VERSION),
                ]),
            ),
            ("write", scripts.app_write.text().to_owned()),
            ("keys_read", names(&[keys.app_link(LINK_VERSION)])),
            ("read", scripts.app_read.text().to_owned()),
        ] {
            cmd.arg(name).arg(value);
        }
        self.shared
            .link
            .run(ConnectionClass::Bulk, "app_publish", &cmd)
            .await
            .map(drop)
    }

    pub(crate) async fn due(&self, again: Duration) -> Result<Vec<Due>, StoreError> {
        let Shared {
            keys, scripts, options, ..
        } = &*self.shared;
        let script = &scripts.app_due;
        let mut cmd = script.call(&[keys.app("members"), keys.app("looks")]);
        cmd.arg(&options.me)
            .arg(millis(DUE_LOCK))
            .arg(DUE_MAX)
            .arg(millis(again))
            .arg(keys.app_prefix());
        let value = self.shared.link.script(ConnectionClass::Bulk, script, &cmd).await?;
        let words: Vec<String> = redis::from_redis_value(value).map_err(|e| StoreError::Corrupt {
            what: script.op,
            reason: e.to_string(),
        })?;
        let due = words.chunks_exact(4).filter_map(|words| match words {
            [sid, nsp, pid, session] => Some(Due {
                sid: Sid::parse(sid).ok()?,
                nsp: nsp.clone(),
                pid: Pid::parse(pid).ok(),
                session: Sid::parse(session).ok(),
            }),
            _ => None,
        });
        Ok(due.collect())
    }
}

/// A list of keys as the link has it.
fn names(keys: &[String]) -> String {
    serde_json::Value::from(keys).to_string()
}

/// The task that writes.
struct Committer {
    shared: Rc<Shared>,
    puts: Rc<Puts>,
    number: u64,
}

impl Committer {
    async fn run(mut self) {
        loop {
            while self.puts.pending.borrow().is_empty() {
                if self.puts.closed.get() {
                    return;
                }
                self.puts.some.notified().await;
                // What else is put in this turn of the loop goes along.
                tokio::task::yield_now().await;
            }
            let batch = self.puts.take();
            self.number += 1;
            self.commit(batch).await;
        }
    }

    /// Sees a batch through: done, or failed for good.
    async fn commit(&self, batch: Vec<Pending>) {
        let mut pause = RETRY_MIN;
        // Its callers have given up by then.
        let deadline = batch.iter().map(|pending| pending.deadline).max();
        let outcome = loop {
            let error = match self.send(&batch).await {
                Ok(words) => break Ok(words),
                Err(failure) => failure.error,
            };
            if !error.passing() || deadline.is_none_or(|deadline| deadline <= Instant::now()) {
                warn!(%error, calls = batch.len(), "batch of records for the application failed");
                break Err(error);
            }
            debug!(%error, "batch of records for the application waits");
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        };
        let mut words = match &outcome {
            Ok(words) => words.iter().copied(),
            Err(_) => [].iter().copied(),
        };
        for pending in batch {
            let said = match &outcome {
                Ok(_) => Ok(words.by_ref().take(pending.units.len()).collect()),
                Err(error) => Err(error.clone()),
            };
            self.puts.finish(pending, said);
        }
    }

    async fn send(&self, batch: &[Pending]) -> Result<Vec<Put>, Failure> {
        let Shared {
            keys, scripts, options, ..
        } = &*self.shared;
        let (script, terms) = (&scripts.app_put, self.puts.terms.get());
        let mut cmd = script.call(&[keys.app_batch(&options.me)]);
        cmd.arg(self.number)
            .arg(keys.app_prefix())
            .arg(terms.backlog_max)
            .arg(millis(BATCH_REMEMBERED))
            .arg(millis(terms.forget_after));
        let mut units = 0;
        for unit in batch.iter().flat_map(|pending| &pending.units) {
            units += 1;
            cmd.arg(unit.kind)
                .arg(unit.to)
                .arg(&unit.sid)
                .arg(unit.due.as_millis().min(u128::from(u64::MAX)).to_string())
                .arg(unit.fields.len() * 2);
            for (name, value) in &unit.fields {
                cmd.arg(name).arg(&value[..]);
            }
        }
        let value = self.shared.link.script_once(ConnectionClass::Log, script, &cmd).await?;
        read(&value, units).map_err(Failure::from)
    }
}

/// `<batch> <a letter for each unit>`.
fn read(value: &Value, units: usize) -> Result<Vec<Put>, StoreError> {
    let corrupt = || StoreError::Corrupt {
        what: OP,
        reason: "the result of a batch".to_owned(),
    };
    let Value::BulkString(bytes) = value else {
        return Err(corrupt());
    };
    let at = bytes.iter().position(|b| *b == b' ').ok_or_else(corrupt)?;
    let words = bytes.get(at + 1..).unwrap_or_default();
    let put = |b: &u8| match b {
        b'o' => Ok(Put::Done),
        b'x' => Ok(Put::Full),
        b'n' => Ok(Put::Nothing),
        _ => Err(corrupt()),
    };
    let words = words.iter().map(put).collect::<Result<Vec<_>, _>>()?;
    if words.len() == units {
        Ok(words)
    } else {
        Err(corrupt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_letter_for_each_unit() {
        let said = |text: &str, units| read(&Value::BulkString(text.into()), units).ok();
        assert_eq!(said("7 oxn", 3), Some(vec![Put::Done, Put::Full, Put::Nothing]));
        for (bad, units) in [("7", 0), ("7 o", 2), ("7 oo", 1), ("7 ?", 1)] {
            assert_eq!(said(bad, units), None, "{bad}");
        }
    }
}
