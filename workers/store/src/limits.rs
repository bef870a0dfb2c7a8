//! Limits of the store.

use std::time::Duration;

/// The oldest major version of Redis that will do: its scripts replicate effects, and its users have rights of their own.
pub const REDIS_MAJOR_MIN: u32 = 6;
/// How long a POST holds its lease. Longer than a request body takes, unless `http.body_timeout_ms` lets one take more: then
/// a second POST in the meantime is no overlap, and of the two the later one counts.
pub(crate) const POST_LEASE: Duration = Duration::from_secs(60);
/// An overlap with a lease of a worker that does not say that it lives (`presence`: it is dead, or on another host)
/// counts after this time: by then a worker that died was declared dead by its supervisor.
pub(crate) const HOLDER_GRACE: Duration = Duration::from_millis(300);
/// Between two looks at such a lease.
pub(crate) const HOLDER_LOOK: Duration = Duration::from_millis(20);
/// For how long `upgrade_finish` can be repeated.
pub(crate) const UPGRADE_REPEATABLE: Duration = Duration::from_secs(60);
/// Packets in the mail of a session that posts but does not poll; with one more it is ended.
pub(crate) const MAIL_ITEMS_MAX: usize = 4096;
/// Their bytes, with their offsets. Larger than one POST can lead to.
pub(crate) const MAIL_BYTES_MAX: usize = 8 << 20;
/// Bytes of entries that one reading of the log returns, unless the first batch alone is larger: as much as a batch may have.
/// Redis serves no other client while it reads, and holds what it has read until the worker takes it.
pub(crate) const PART_BYTES_MAX: usize = 256 << 10;
/// Bytes of events that wait for the worker to take them from its tail; what comes then stays in
/// Redis until there is room.
pub(crate) const TAIL_BYTES_MAX: usize = 16 << 20;
