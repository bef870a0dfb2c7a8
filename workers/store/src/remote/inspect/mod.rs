//! What operators ask. Over one connection, and never with `KEYS` or `CONFIG`.

mod ask;
mod log;
mod rights;
mod trial;

pub use ask::{Greeting, Info};
pub use log::LogState;
pub use rights::{Missing, Rights};
pub use trial::{Latency, Served, Spread, Trial};

use super::keys::Keys;
use super::link::{ConnectionClass, Link};
use super::reply::Reply;
use super::script::Scripts;
use crate::error::StoreError;
use crate::options::RedisOptions;
use redis::Value;
use session::Record;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Sessions of one step of [`Inspector::sessions`], about: what Redis looks through before it serves other clients.
const STEP_KEYS: usize = 1024;
/// Records read by one command: they may be large.
const RECORDS_MAX: usize = 256;

/// The view of an operator on the Redis of a fleet.
///
/// It is no worker: it takes no lease, sends no canary and begins no epoch.
pub struct Inspector {
    pub(super) keys: Keys,
    pub(super) link: Link,
    redis: RedisOptions,
    pub(super) scripts: Scripts,
}

impl Inspector {
    /// Prepares; connects to nothing yet. `prefix` is the first part of every key.
    ///
    /// # Errors
    /// When the address makes no sense.
    pub fn new(redis: RedisOptions, prefix: &str) -> Result<Self, StoreError> {
        let keys = Keys::new(prefix, redis.db);
        // One connection: lanes share it, and an operator counts as one client.
        let redis = RedisOptions { pool_size: 1, ..redis };
        let link = Link::new(redis.clone(), &Rc::default())?;
        Ok(Self {
            keys,
            link,
            redis,
            scripts: Scripts::new(),
        })
    }

    /// Asks for a sign of life; answers with the time it took.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        let start = Instant::now();
        self.run("ping", &redis::cmd("PING")).await?;
        Ok(start.elapsed())
    }

    /// A step over the records of all sessions: pass 0 first, then what came with the latest answer,
    /// until that is 0. One may come twice, and one that begins or ends meanwhile may be missing.
    ///
    /// # Errors
    /// [`StoreError`]; a record that cannot be read is left out.
    pub async fn sessions(&self, cursor: u64) -> Result<(u64, Vec<Record>), StoreError> {
        let op = "scan";
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(cursor)
            .arg("MATCH")
            .arg(self.keys.session_pattern())
            .arg("COUNT")
            .arg(STEP_KEYS);
        let mut answer = Reply::new(op, self.run(op, &cmd).await?)?;
        let next = answer.number()?;
        let mut list = Reply::new(op, answer.value()?)?;
        let mut found = Vec::new();
        while !list.is_empty() {
            let key = list.text()?;
            if self.keys.sid_of(&key).is_some() {
                found.push(key);
            }
        }
        let mut records = Vec::with_capacity(found.len());
        for some in found.chunks(RECORDS_MAX) {
            let mut values = Reply::new(op, self.run("records", redis::cmd("MGET").arg(some)).await?)?;
            while !values.is_empty() {
                records.extend(values.record().ok().flatten());
            }
        }
        Ok((next, records))
    }

    /// Runs a command that may be run twice.
    pub(super) async fn run(&self, op: &'static str, cmd: &redis::Cmd) -> Result<Value, StoreError> {
        self.link.run(ConnectionClass::Requests, op, cmd).await
    }
}

/// Milliseconds; `None` if negative, or no number.
fn millis_of(value: Value) -> Option<Duration> {
    if let Value::Int(millis) = value {
        u64::try_from(millis).ok().map(Duration::from_millis)
    } else {
        None
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector")
            .field("redis", &self.redis)
            .finish_non_exhaustive()
    }
}
