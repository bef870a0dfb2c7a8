//! What an application wants to emit, on its way into the log.

use crate::entries::event;
use crate::metrics::Limit;
use crate::worker::Worker;
use bytes::Bytes;
use futures_util::future::{Either, ready};
use session::{EntryKind, Sid, Target};
use store::{AppendError, Appended, Dedupe};
use tokio::time::Instant;

/// What an emit needs.
pub(crate) struct Emit {
    pub(crate) nsp: String,
    pub(crate) rooms: Vec<String>,
    /// The whole JSON array.
    pub(crate) args: String,
    pub(crate) attachments: Vec<Bytes>,
    pub(crate) id: Option<String>,
}

impl Emit {
    /// Queues the entry of a client's session; the future is done when it is in the log.
    pub(crate) fn append(
        self,
        worker: &Worker,
        sender: &Sid,
    ) -> impl Future<Output = Result<Appended, AppendError>> + use<> {
        if self.id.is_some() && !worker.ids.take(sender, Instant::now()) {
            worker.metrics.limits.one(Limit::Ids);
            return Either::Right(ready(Err(AppendError::TooManyIds)));
        }
        let dedupe = self.id.map(|id| Dedupe::event(&self.nsp, &self.rooms, &id));
        let target = Target {
            nsp: self.nsp,
            rooms: self.rooms,
            except: Vec::new(),
        };
        match event(EntryKind::Emit, target, &self.args, self.attachments, &worker.limits) {
            Ok(entry) => Either::Left(worker.store.append(entry, dedupe)),
            Err(error) => Either::Right(ready(Err(AppendError::Refused {
                reason: error.to_string(),
            }))),
        }
    }
}

/// What a sender is told about a publish that did not get into the log.
pub(crate) fn refusal(result: Result<Appended, AppendError>) -> Option<String> {
    result.err().map(|error| match error {
        // Redis' own words are for the log.
        AppendError::Refused { .. } => "the message log refused it".to_owned(),
        AppendError::Closed
        | AppendError::QueueFull { .. }
        | AppendError::Timeout { .. }
        | AppendError::TooLarge { .. }
        | AppendError::TooManyIds => error.to_string(),
    })
}
