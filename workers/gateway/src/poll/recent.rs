//! Records of polling sessions that this worker has met lately. Redis says whether one is still right: its
//! revision goes along with the next request, and only another one is sent again.

use crate::worker::Worker;
use lru::LruCache;
use session::{Record, Sid};
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Records that are kept; the one that was used least lately goes.
const RECORDS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Rooms of a record, and bytes of what else may be large in it; a larger one is not kept.
const ROOMS_MAX: usize = 64;
const DATA_BYTES_MAX: usize = 1024;

/// A record, and which revision of it this is.
#[derive(Clone)]
pub(crate) struct Known {
    pub(super) revision: u64,
    pub(super) record: Rc<Record>,
}

/// The records.
pub(crate) struct Recent(LruCache<Sid, Known>);

impl Default for Recent {
    fn default() -> Self {
        Self(LruCache::new(RECORDS_MAX))
    }
}

/// What was known of the session when it was here last.
pub(super) fn known(worker: &Worker, sid: &Sid) -> Option<Known> {
    worker.recent.borrow_mut().0.get(sid).cloned()
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
    let mut recent = worker.recent.borrow_mut();
    if is_small(record) {
        let record = Rc::clone(record);
        recent.0.put(record.sid.clone(), Known { revision, record });
    } else {
        recent.0.pop(&record.sid);
    }
}

/// The session is over.
pub(super) fn forget(worker: &Worker, sid: &Sid) {
    worker.recent.borrow_mut().0.pop(sid);
    worker.unsettled.borrow_mut().end(sid);
}

fn is_small(record: &Record) -> bool {
    let rooms: usize = record.namespaces.values().map(|joined| joined.rooms.len()).sum();
    let data = |joined: &session::Joined| joined.data.as_ref().map_or(0, |data| data.get().len());
    let bytes: usize = record.namespaces.values().map(data).sum();
    rooms <= ROOMS_MAX && bytes <= DATA_BYTES_MAX && record.partial.is_none()
}
