//! What this worker knows of the polling sessions that it has met lately.

use crate::recent::Known;
use crate::worker::Worker;
use session::{Record, Sid};
use std::rc::Rc;

/// What was known of the session when it was here last.
pub(super) fn known(worker: &Worker, sid: &Sid) -> Option<Known> {
    worker.recent.borrow_mut().get(sid)
}

/// The record as it is now: what Redis sent, or what was known if it sent nothing.
pub(super) fn learn(
    worker: &Worker,
    known: Option<Rc<Record>>,
    sent: Option<Record>,
    revision: u64,
) -> Option<Rc<Record>> {
    let Some(record) = sent.map(Rc::new) else {
        return known;
    };
    remember(worker, revision, &record);
    Some(record)
}

/// Redis has this.
pub(crate) fn remember(worker: &Worker, revision: u64, record: &Rc<Record>) {
    if record.settled {
        worker.unsettled.borrow_mut().end(&record.sid);
    }
    worker.recent.borrow_mut().put(revision, record);
}

/// The session is over.
pub(super) fn forget(worker: &Worker, sid: &Sid) {
    worker.recent.borrow_mut().remove(sid);
    worker.unsettled.borrow_mut().end(sid);
}
