//! The end of the log as this worker sees it: every entry once, in order.

use crate::memory::MemoryTail;
use crate::remote::RemoteTail;
use crate::tail::TailEvent;
use session::Offset;
use std::time::Instant;

/// The tailer. There is one per worker.
#[derive(Debug)]
pub struct Tail(pub(super) TailInner);

#[derive(Debug)]
pub(super) enum TailInner {
    Memory(MemoryTail),
    Remote(RemoteTail),
}

impl Tail {
    /// The last position handed out by [`Self::next`].
    #[must_use]
    pub fn position(&self) -> Offset {
        match &self.0 {
            TailInner::Memory(tail) => tail.position(),
            TailInner::Remote(tail) => tail.position(),
        }
    }

    /// When something was last pushed: what was read from the stream because it was missed does not count.
    #[must_use]
    pub fn heard(&self) -> Instant {
        match &self.0 {
            TailInner::Memory(_) => Instant::now(),
            TailInner::Remote(tail) => tail.heard(),
        }
    }

    /// The next event. Cancel-safe: nothing is lost when the future is dropped. Never ends.
    pub async fn next(&mut self) -> TailEvent {
        match &mut self.0 {
            TailInner::Memory(tail) => tail.next().await,
            TailInner::Remote(tail) => tail.next().await,
        }
    }
}
