//! Records of polling sessions that this worker has met lately. Redis says whether one is still right: its
//! revision goes along with the next request, and only another one is sent again.

use lru::LruCache;
use session::{Joined, Record, Sid};
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
    pub(crate) revision: u64,
    pub(crate) record: Rc<Record>,
}

/// The records.
pub(crate) struct Recent(LruCache<Sid, Known>);

impl Default for Recent {
    fn default() -> Self {
        Self(LruCache::new(RECORDS_MAX))
    }
}

impl Recent {
    /// What was known of a session when it was here last.
    pub(crate) fn get(&mut self, sid: &Sid) -> Option<Known> {
        self.0.get(sid).cloned()
    }

    /// Redis has this.
    pub(crate) fn put(&mut self, revision: u64, record: &Rc<Record>) {
        if is_small(record) {
            let record = Rc::clone(record);
            self.0.put(record.sid.clone(), Known { revision, record });
        } else {
            self.remove(&record.sid);
        }
    }

    /// The session is over, or its record too large.
    pub(crate) fn remove(&mut self, sid: &Sid) {
        self.0.pop(sid);
    }
}

fn is_small(record: &Record) -> bool {
    let rooms: usize = record.namespaces.values().map(|joined| joined.rooms.len()).sum();
    let data = |joined: &Joined| joined.data.as_ref().map_or(0, |data| data.get().len());
    let bytes: usize = record.namespaces.values().map(data).sum();
    rooms <= ROOMS_MAX && bytes <= DATA_BYTES_MAX && record.partial.is_none()
}
