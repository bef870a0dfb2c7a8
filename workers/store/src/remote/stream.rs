//! Reading the log's stream.

use super::link::ConnectionClass;
use super::reply::{self, Reply};
use super::{Remote, Shared, push};
use crate::answer::Part;
use crate::error::StoreError;
use crate::limits::PART_BYTES_MAX;
use bytes::Bytes;
use redis::Value;
use session::Offset;

/// Batches read at a time, however small.
const CHUNK_BATCHES: u64 = 512;

impl Shared {
    /// The head of the log, which begins a new epoch if Redis lost what this worker has seen.
    pub(super) async fn head(&self) -> Result<Offset, StoreError> {
        let script = &self.scripts.head;
        let known = self.known.get();
        let mut cmd = script.call(&[self.keys.log_meta(), self.keys.log()]);
        cmd.arg(known.epoch()).arg(known.seq());
        let value = self.link.script(ConnectionClass::Bulk, script, &cmd).await?;
        let head = reply::offset(script.op, &reply::text(script.op, value)?)?;
        self.saw(head);
        Ok(head)
    }

    /// The next entries after `after` of the same epoch, up to `upto`, and whether that was all there are.
    pub(super) async fn chunk(&self, after: Offset, upto: Option<Offset>) -> Result<Chunk, StoreError> {
        let script = &self.scripts.range;
        let op = script.op;
        // A batch has the offset of its last entry: the one with `upto` in it may be numbered higher.
        let last = Offset::new(after.epoch(), u64::MAX);
        let upto = upto.unwrap_or(last);
        let most = upto.seq().saturating_sub(after.seq()).min(CHUNK_BATCHES);
        let mut cmd = script.call(&[self.keys.log()]);
        cmd.arg(after.next().to_string())
            .arg(last.to_string())
            .arg(PART_BYTES_MAX)
            .arg(most);
        let value = self.link.script(ConnectionClass::Bulk, script, &cmd).await?;
        let mut list = Reply::new(op, value)?;
        let complete = list.number()? == 1;
        let mut entries = Vec::new();
        while !list.is_empty() {
            let mut item = Reply::new(op, list.value()?)?;
            let last = item.offset()?;
            entries.extend(batch(op, last, item.value()?)?);
        }
        entries.retain(|(offset, _)| (after.next()..=upto).contains(offset));
        Ok(Chunk { entries, complete })
    }

    /// Epoch and sequence number of the head, as they stand.
    async fn meta(&self) -> Result<Option<Offset>, StoreError> {
        let op = "range";
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.log_meta()).arg("epoch").arg("seq");
        let mut answer = Reply::new(op, self.link.run(ConnectionClass::Bulk, op, &cmd).await?)?;
        let epoch = answer.value()?;
        if epoch == Value::Nil {
            return Ok(None);
        }
        Ok(Some(Offset::new(reply::number(op, epoch)?, answer.number()?)))
    }
}

/// A piece of the log.
pub(super) struct Chunk {
    pub(super) entries: Vec<(Offset, Bytes)>,
    pub(super) complete: bool,
}

/// The entries of a batch of the stream.
pub(super) fn batch(op: &'static str, last: Offset, value: Value) -> Result<Vec<(Offset, Bytes)>, StoreError> {
    let mut fields = Reply::new(op, value)?;
    fields.value()?;
    let lengths = fields.text()?;
    fields.value()?;
    let entries = reply::bytes(op, fields.value()?)?;
    let before_last = lengths.bytes().filter(|b| *b == b',').count() as u64;
    let first = last
        .seq()
        .checked_sub(before_last)
        .map(|seq| Offset::new(last.epoch(), seq));
    first
        .and_then(|first| push::batch(first, &lengths, entries))
        .ok_or_else(|| StoreError::Corrupt {
            what: op,
            reason: format!("batch {last} of the log is not as long as it says"),
        })
}

impl Remote {
    pub(crate) async fn end_of_log(&self) -> Result<Offset, StoreError> {
        Ok(self.shared.meta().await?.unwrap_or(Offset::ZERO))
    }

    pub(crate) async fn part(&self, after: Offset, upto: Offset) -> Result<Part, StoreError> {
        if after.epoch() != upto.epoch() {
            return Ok(Part::Trimmed);
        }
        if after >= upto {
            return Ok(Part::Entries(Vec::new()));
        }
        let entries = self.shared.chunk(after, Some(upto)).await?.entries;
        let mut expected = after;
        let is_dense = entries.iter().all(|(offset, _)| {
            expected = expected.next();
            *offset == expected
        });
        Ok(if is_dense && !entries.is_empty() {
            Part::Entries(entries)
        } else {
            Part::Trimmed
        })
    }
}
