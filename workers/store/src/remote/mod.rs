//! The store in Redis or Valkey.

mod application;
mod canary;
mod clock;
mod ends;
mod evictions;
mod follow;
mod inbox;
mod ingest;
mod inspect;
mod keys;
mod link;
mod login;
mod notes;
mod operate;
mod pace;
mod polls;
mod push;
mod refusal;
mod reply;
mod script;
mod sessions;
mod spoken;
mod stream;
mod tailer;
mod trust;
mod version;
mod writer;

pub use follow::{Follow, Followed};
pub use ingest::{Channels, Ingest, Streams};
pub use inspect::{Greeting, Info, Inspector, Latency, LogState, Missing, Rights, Served, Spread, Trial};
pub use operate::{Detail, Polling};
pub(crate) use tailer::RemoteTail;
pub use version::redis_major;

use crate::answer::Appended;
use crate::counts::Counts;
use crate::dedupe::Dedupe;
use crate::error::{AppendError, StoreError};
use crate::ingest::IngestNames;
use crate::options::{Options, RedisOptions};
use crate::presence::Presence;
use bytes::Bytes;
use keys::Keys;
use link::{ConnectionClass, Link};
use script::Scripts;
use session::Offset;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What everything in here shares.
struct Shared {
    options: Options,
    keys: Keys,
    link: Link,
    counts: Rc<Counts>,
    scripts: Scripts,
    /// The latest position of the log that this worker has heard of: it shows whether Redis lost data.
    known: Cell<Offset>,
    canaries: canary::Canaries,
    clock: clock::Clock,
    /// The ingest may have no leader.
    lease_free: Notify,
    /// Sessions that are to end, until one task ends them all.
    ends: RefCell<Vec<ends::Pending>>,
}

impl Shared {
    /// Heard of a position.
    fn saw(&self, position: Offset) {
        self.known.set(self.known.get().max(position));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// The store in Redis.
#[derive(Debug)]
pub(crate) struct Remote {
    shared: Rc<Shared>,
    writer: writer::Writer,
    /// What clients did, for applications.
    puts: Rc<application::Puts>,
    /// Others on this machine learn of it that we live.
    _presence: Option<Presence>,
}

impl Remote {
    pub(crate) async fn open(
        options: Options,
        redis: RedisOptions,
        counts: &Rc<Counts>,
    ) -> Result<(Self, RemoteTail), StoreError> {
        let shared = Rc::new(Shared {
            keys: Keys::new(&options.prefix, redis.db),
            link: Link::new(redis, counts)?,
            counts: counts.clone(),
            scripts: Scripts::new(),
            known: Cell::new(Offset::ZERO),
            canaries: canary::Canaries::default(),
            clock: clock::Clock::default(),
            lease_free: Notify::new(),
            ends: RefCell::default(),
            options,
        });
        let tail = RemoteTail::open(&shared).await?;
        let writer = writer::Writer::start(&shared);
        let puts = application::Puts::start(&shared);
        let remote = Self {
            puts,
            _presence: Presence::announce(&shared.options.me),
            shared,
            writer,
        };
        Ok((remote, tail))
    }

    pub(crate) fn ingest(&self, names: IngestNames) -> Ingest {
        Ingest::new(&self.shared, names)
    }

    /// Counts what is not counted when it happens.
    pub(crate) fn look(&self) {
        self.shared.counts.queue.set_count(self.writer.queued_bytes() as u64);
    }

    pub(crate) fn available(&self) -> bool {
        self.shared.link.healthy() && self.shared.canaries.are_written()
    }

    pub(crate) async fn clock_jumped(&self, ttl: Duration) -> bool {
        self.shared.clock_jumped(ttl).await
    }

    pub(crate) async fn ping(&self) -> Result<Duration, StoreError> {
        let start = Instant::now();
        self.shared
            .link
            .run(ConnectionClass::Requests, "ping", &redis::cmd("PING"))
            .await?;
        Ok(start.elapsed())
    }

    pub(crate) fn append(
        &self,
        entry: Bytes,
        dedupe: Option<Dedupe>,
    ) -> impl Future<Output = Result<Appended, AppendError>> + use<> {
        self.writer.append(entry, dedupe)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.puts.close();
    }
}

/// Milliseconds for Redis, which refuses a TTL of 0.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, MILLIS_MAX)
}

/// A longer time makes Redis refuse the expiry, and is never meant.
const MILLIS_MAX: u64 = 1 << 50;

/// A unique name.
fn random_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}
