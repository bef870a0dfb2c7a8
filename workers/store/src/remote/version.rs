//! Which Redis it is.

use super::Shared;
use super::inspect::Info;
use super::link::ConnectionClass;
use super::reply;
use crate::error::StoreError;
use crate::limits::REDIS_MAJOR_MIN;

/// The first part of a version such as `7.0.15`.
#[must_use]
pub fn redis_major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// The first question of a worker: is there a Redis, is it new enough, and is it no cluster? A Redis that does not tell its version, because
/// `INFO` is renamed or forbidden, is taken as it is.
pub(super) async fn check(shared: &Shared) -> Result<(), StoreError> {
    let op = "info";
    let text = match shared
        .link
        .run(ConnectionClass::Requests, op, redis::cmd("INFO").arg("server"))
        .await
    {
        Ok(value) => reply::text(op, value).unwrap_or_default(),
        Err(error) if error.passing() => return Err(error),
        Err(_) => return Ok(()),
    };
    let info = Info::parse(&text);
    if info.text("redis_mode") == Some("cluster") {
        return Err(StoreError::Clustered);
    }
    let version = info.text("redis_version").unwrap_or_default();
    match redis_major(version) {
        Some(major) if major < REDIS_MAJOR_MIN => Err(StoreError::TooOld {
            found: version.to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}
