//! The only code that knows a Redis key or command; and its in-memory twin. Both do the same under
//! the same tests (`tests/`).
//!
//! No worker owns a session: every call names a session and does all of its step at once, so
//! that any worker may make the next one. What must reach a session on another worker goes through
//! the log ([`Store::append`], [`Tail`]); what concerns one polling session alone goes through its
//! mail and a wake.
//!
//! For a current-thread runtime: [`Store`] is a cheap clone, its futures are not `Send`, and
//! [`Store::open`] must be called inside a `LocalRuntime` or `LocalSet`.

mod answer;
mod application;
mod counts;
mod dedupe;
mod error;
mod ingest;
mod limits;
mod memory;
mod notes;
mod options;
mod presence;
mod remote;
mod store;
mod tail;

pub use answer::{
    Amended, Appended, CREATED_REVISION, Evictions, Mail, Part, Poll, PollMode, PostBegin, PostDone, PostEffects,
    RequestId, Restored, Saved, Settling, Touched, UpgradeBegin, UpgradeFinish, UpgradeStep,
};
pub use application::{Due, LINK_VERSION, LinkTerms, Put, Unit};
pub use counts::Counts;
pub use dedupe::Dedupe;
pub use error::{AppendError, Cure, Speaks, StoreError, Unwritable};
pub use ingest::{IngestNames, Item, LeaderLease};
pub use limits::REDIS_MAJOR_MIN;
pub use notes::{Batch, NoteBounds, Notes};
pub use options::{Backend, Endpoint, Options, RedisOptions};
pub use remote::{
    Channels, Detail, Follow, Followed, Greeting, Info, Ingest, Inspector, Latency, LogState, Missing, Polling, Rights,
    Served, Spread, Streams, Trial, redis_major,
};
pub use session::{Entry, EntryKind, Joined, Offset, Record, Sid, Transport, trace};
pub use store::{Applications, Store, Tail};
pub use tail::{ResetReason, TailEvent};
