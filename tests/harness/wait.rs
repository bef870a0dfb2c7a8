//! Waiting for conditions, with deadlines.

use std::future::Future;
use std::time::{Duration, Instant};

/// What a server under test may need for anything that is not about time, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Between two looks at a condition.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The outcome of `work`, which must come within [`PATIENCE`].
#[track_caller]
pub fn soon<F: Future>(what: &str, work: F) -> impl Future<Output = F::Output> {
    within(PATIENCE, what, work)
}

/// The outcome of `work`, which must come within `limit`.
#[track_caller]
pub fn within<F: Future>(limit: Duration, what: &str, work: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(limit, work).await {
            Ok(output) => output,
            Err(_) => panic!("{what}: not within {limit:?} (at {caller})"),
        }
    }
}

/// Looks until `look` finds something; it must within [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    until_within(PATIENCE, what, look)
}

/// Looks until `look` finds something; it must within `limit`.
#[track_caller]
pub fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: not within {limit:?} (at {caller})");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Lets `span` pass: for tests that show that something does *not* happen in that time, or that
/// are about a timer. Nothing is to be awaited with it.
pub async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Milliseconds, for readable tests.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
