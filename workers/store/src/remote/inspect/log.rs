//! The log as it stands in Redis.

use super::super::link::ConnectionClass;
use super::super::reply::Reply;
use super::Inspector;
use crate::error::StoreError;
use session::Offset;
use std::time::Duration;

/// Where the log is.
#[derive(Clone, Debug)]
pub struct LogState {
    /// Of the latest entry; zero if there never was one.
    pub head: Offset,
    /// Entries from the first that is kept to the head, approximately: to a batch.
    pub entries: u64,
    /// Items of the stream: what was written in one step.
    pub batches: u64,
    /// How long ago the latest canary passed, by the clock of Redis; none if there was none.
    pub canary_age: Option<Duration>,
    /// How long ago the oldest canary that is remembered passed: what is older is trimmed.
    pub reach: Option<Duration>,
}

impl Inspector {
    /// Where the log is. Begins no epoch and leaves no trace.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log(&self) -> Result<LogState, StoreError> {
        let (keys, script) = (&self.keys, &self.scripts.look);
        let cmd = script.call(&[keys.log_meta(), keys.log(), keys.log_marks()]);
        let value = self.link.script(ConnectionClass::Requests, script, &cmd).await?;
        let mut answer = Reply::new(script.op, value)?;
        let head = answer.offset()?;
        let batches = answer.number()?;
        let first = answer.offset()?;
        let canary_age = super::millis_of(answer.value()?);
        let reach = super::millis_of(answer.value()?);
        let entries = if first.epoch() == head.epoch() && batches > 0 {
            head.seq().saturating_sub(first.seq()).saturating_add(1)
        } else {
            batches
        };
        Ok(LogState {
            head,
            entries,
            batches,
            canary_age,
            reach,
        })
    }
}
