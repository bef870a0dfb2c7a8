//! The log, and the notes about sessions, as they come: for an operator who watches. Both streams are read by one
//! command that waits; a slow reader reads later, and one that is too slow continues at the end.

use super::inspect::Inspector;
use super::notes::batches;
use super::reply::{self, Reply};
use super::{millis, stream};
use crate::error::StoreError;
use crate::notes::Batch;
use bytes::Bytes;
use redis::Value;
use redis::aio::MultiplexedConnection;
use session::Offset;
use std::time::Duration;
use tokio::time::timeout;

/// Items of each stream read at a time.
const ITEMS_MAX: usize = 16;
/// How long a read waits for something new.
const BLOCK: Duration = Duration::from_millis(500);
/// After this many entries in one read the reader asks how many more there are.
const MANY: usize = 64;
/// A reader that is this many entries of the log behind continues at its end.
const BEHIND_MAX: u64 = 5_000;
const OP: &str = "follow";

/// A place in both streams.
#[derive(Debug)]
pub struct Follow<'a> {
    inspector: &'a Inspector,
    /// A read that waits would hold up other commands. `None` after one that failed.
    connection: Option<MultiplexedConnection>,
    log: Offset,
    notes: String,
}

/// What has come.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// Entries of the log.
    pub entries: Vec<(Offset, Bytes)>,
    /// Entries that were passed over before these: there were too many, or they are gone.
    pub missed: u64,
    /// Notes about sessions.
    pub notes: Vec<Batch>,
}

impl Inspector {
    /// Everything from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn follow(&self) -> Result<Follow<'_>, StoreError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(self.keys.trace()).arg("+").arg("-").arg("COUNT").arg(1);
        let last = batches(OP, self.run(OP, &cmd).await?)?.pop();
        Ok(Follow {
            inspector: self,
            connection: None,
            log: self.log_end().await?.unwrap_or_default(),
            notes: last.map_or_else(|| "0-0".to_owned(), |batch| batch.id),
        })
    }

    /// Where the log ends; `None` if there is none yet.
    async fn log_end(&self) -> Result<Option<Offset>, StoreError> {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.log_meta()).arg("epoch").arg("seq");
        let mut answer = Reply::new(OP, self.run(OP, &cmd).await?)?;
        let epoch = answer.value()?;
        if epoch == Value::Nil {
            return Ok(None);
        }
        Ok(Some(Offset::new(reply::number(OP, epoch)?, answer.number()?)))
    }
}

impl Follow<'_> {
    /// What comes next; nothing, if for a moment there was nothing.
    ///
    /// # Errors
    /// [`StoreError`]. The place is kept: call it again.
    pub async fn next(&mut self) -> Result<Followed, StoreError> {
        let link = &self.inspector.link;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => link.connection_of_its_own().await?,
        };
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT")
            .arg(ITEMS_MAX)
            .arg("BLOCK")
            .arg(millis(BLOCK))
            .arg("STREAMS")
            .arg(self.inspector.keys.log())
            .arg(self.inspector.keys.trace())
            .arg(self.log.to_string())
            .arg(&self.notes);
        let patience = BLOCK + link.response_timeout();
        let value = match timeout(patience, cmd.query_async::<Value>(&mut connection)).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => return Err(link.error(OP, &error)),
            Err(_) => {
                return Err(StoreError::Timeout {
                    op: OP,
                    after: patience,
                });
            }
        };
        self.connection = Some(connection);
        if value == Value::Nil {
            return Ok(Followed::default());
        }
        self.take(value).await
    }

    async fn take(&mut self, value: Value) -> Result<Followed, StoreError> {
        let mut followed = Followed::default();
        let mut streams = Reply::new(OP, value)?;
        while !streams.is_empty() {
            let mut stream = Reply::new(OP, streams.value()?)?;
            if stream.text()? == self.inspector.keys.trace() {
                followed.notes = batches(OP, stream.value()?)?;
                if let Some(last) = followed.notes.last() {
                    self.notes.clone_from(&last.id);
                }
                continue;
            }
            let mut items = Reply::new(OP, stream.value()?)?;
            while !items.is_empty() {
                let mut item = Reply::new(OP, items.value()?)?;
                let last = item.offset()?;
                followed.entries.extend(stream::batch(OP, last, item.value()?)?);
            }
            followed.missed = self.advance(&followed.entries);
            if followed.entries.len() >= MANY {
                followed.missed += self.keep_up().await?;
            }
        }
        Ok(followed)
    }

    /// Stands behind these; how many before them are gone.
    fn advance(&mut self, entries: &[(Offset, Bytes)]) -> u64 {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return 0;
        };
        let former = std::mem::replace(&mut self.log, *last);
        if former.epoch() == first.epoch() {
            first.seq().saturating_sub(former.seq() + 1)
        } else {
            0
        }
    }

    /// Goes on at the end of the log if that is far away; how many entries were passed over.
    async fn keep_up(&mut self) -> Result<u64, StoreError> {
        let Some(end) = self.inspector.log_end().await? else {
            return Ok(0);
        };
        let behind = end.seq().saturating_sub(self.log.seq());
        if end.epoch() != self.log.epoch() || behind <= BEHIND_MAX {
            return Ok(0);
        }
        self.log = end;
        Ok(behind)
    }
}
