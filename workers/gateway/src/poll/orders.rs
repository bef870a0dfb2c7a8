//! Orders from outside, for polling sessions.

use crate::lines::line;
use crate::orders::apply_polling;
use crate::ring::Logged;
use crate::worker::Worker;
use session::Record;
use std::rc::Rc;
use std::time::Duration;
use store::Amended;
use tokio::time::sleep;
use tracing::debug;

/// A record that another writer changes is tried again after this long, and this often.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
const TRIES: usize = 50;

/// Stores what orders change of a polling session, whatever its client changes meanwhile. `before` is its record as it
/// was read.
pub(crate) async fn store(worker: &Worker, before: &Record, orders: &[Rc<Logged>]) {
    let rooms_max = worker.settings.socket.rooms_max;
    let mut before = before.clone();
    for _ in 0..TRIES {
        let mut record = before.clone();
        for logged in orders {
            apply_polling(&mut record, logged, rooms_max);
        }
        match worker.store.amend(&before, &record).await {
            Ok(Amended::Done | Amended::Gone) => return,
            Ok(Amended::Again) => sleep(AGAIN_AFTER).await,
            Err(error) => {
                line!(warn, %error, "external command not stored");
                return;
            }
        }
        match worker.store.load(&before.sid).await {
            Ok(Some(current)) => before = current,
            Ok(None) => return,
            Err(error) => debug!(%error, "record not read"),
        }
    }
    line!(warn, "external command gave up: the session record changed too often");
}
