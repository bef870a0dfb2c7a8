//! The application link, as a worker uses it.

use crate::application::{Due, LinkTerms, Put, Unit};
use crate::error::StoreError;
use crate::remote::Remote;
use std::rc::Rc;
use std::time::Duration;

/// The link, as a worker uses it.
#[derive(Clone, Debug)]
pub struct Applications(pub(super) Rc<Remote>);

impl Applications {
    /// Stores what clients did. It is queued by the call itself: the order of calls is the order in the inbox, and those
    /// of one call are not separated. Answers one by one; what is [`Put::Full`] may be put again.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not known how much of it was stored.
    pub fn put(&self, units: Vec<Unit>) -> impl Future<Output = Result<Vec<Put>, StoreError>> + use<> {
        self.0.put(units)
    }

    /// Publishes scripts, names and terms for the processes: a Redis that has restarted may have lost them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish(&self, terms: &LinkTerms) -> Result<(), StoreError> {
        self.0.publish_link(terms).await
    }

    /// Sockets that are to be looked after. No other worker gets them before `again`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self, again: Duration) -> Result<Vec<Due>, StoreError> {
        self.0.due(again).await
    }
}
