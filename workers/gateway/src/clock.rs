//! The time of day.

use crate::fault;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, for people. Only how long a client may take to join a first namespace goes by it, because
/// it may do so on another worker.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX) + fault::clock_ahead_ms()
}
