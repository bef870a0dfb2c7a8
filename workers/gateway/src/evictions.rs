//! A Redis that throws keys away when it is full: it is said, because a key may be a session, or the log.

use crate::worker::Worker;
use std::rc::Rc;
use store::Evictions;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Looks as often as a canary passes; in one worker of a fleet, so that it is said once.
pub(crate) async fn watch(worker: Rc<Worker>) {
    if worker.slot != 0 {
        return;
    }
    let mut before = None;
    loop {
        match worker.store.evictions().await {
            Ok(Some(now)) => {
                compare(&worker, before.as_ref(), &now);
                before = Some(now);
            }
            Ok(None) => return,
            Err(error) if error.passing() => {}
            Err(error) => {
                debug!(%error, "eviction policy of redis not known");
                return;
            }
        }
        sleep(worker.settings.log.canary_interval).await;
    }
}

/// With the look before; what happened before the first one, others have told.
fn compare(worker: &Worker, before: Option<&Evictions>, now: &Evictions) {
    let policy = now.policy.as_str();
    if now.endangers() && !before.is_some_and(Evictions::endangers) {
        warn!(
            policy,
            "redis may evict sessions and the log when it is full: set maxmemory-policy to noeviction"
        );
    }
    // A Redis that was started again counts from zero.
    let keys = before.map_or(0, |before| now.keys.saturating_sub(before.keys));
    if keys > 0 {
        worker.metrics.evicted.add(keys);
        warn!(
            policy,
            keys, "redis was full and evicted keys: the affected clients lose their sessions or messages"
        );
    }
}
