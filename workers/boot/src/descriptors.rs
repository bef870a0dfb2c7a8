//! Descriptors of a worker: how many are kept from clients, and how many connections that leaves. Without a reserve clients
//! take the last one, and a worker whose Redis was restarted never reaches it again.

use crate::Settings;

/// What a worker has open at its start: standard streams, control socket, listeners (up to 16 addresses, and more of a
/// socket unit), those of the runtime (epoll, eventfd, signals, timers). Also room for what comes and goes: names that are looked up, paths
/// that are tried, a handover's channel.
const OWN: u64 = 64;
/// Connections to Redis besides the pool: one that hears the log, two of the ingest leader (channels, streams), one that
/// asks why a login failed; and as many again while broken ones are being replaced.
const REDIS: u64 = 8;
/// Visitors of the admin listener (16), each with a memfd of what the fleet has counted.
const ADMIN: u64 = 32;
/// A unit of a handover comes in one message: 128 connections, its token, its states (`handover/unit.rs`).
pub const HANDOVER_UNIT: u64 = 130;

/// So many descriptors of a worker are not for clients.
#[must_use]
pub fn reserve(settings: &Settings) -> u64 {
    let pool = settings.redis.as_ref().map_or(0, |redis| 2 * redis.pool_size as u64);
    OWN + REDIS + ADMIN + HANDOVER_UNIT + pool + settings.checks.len() as u64
}

/// So many connections a worker takes that may open `limit` files: as configured, or as the reserve leaves. Of a very small
/// limit half is for clients: such a worker serves, and its connections do not move to others.
#[must_use]
pub fn connections(settings: &Settings, limit: u64) -> u64 {
    let left = limit.saturating_sub(reserve(settings)).max(limit / 2);
    left.min(settings.limits.connections_max as u64)
}
