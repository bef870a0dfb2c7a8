//! Recycling: a worker past its age or memory is replaced as a reload would replace it, by one of
//! the same generation, and never two at a time.

use super::machine::{Fleet, Phase, saturating_ms};
use super::{Moment, RECYCLE_AGE_MIN, RECYCLE_RETRY, SlotId};
use tracing::{info, warn};

impl Fleet {
    /// Starts the successor of the oldest worker that is past its time.
    pub(super) fn recycle(&mut self, now: Moment) {
        let busy = self.phase != Phase::Serving
            || self.reload.is_running()
            || self.breaker.is_open()
            || now < self.recycle_after
            || self.slots.iter().any(|slot| slot.incoming.is_some());
        if busy {
            return;
        }
        let (max_age, max_rss) = (self.policy.max_age, self.policy.max_rss_bytes);
        let past = self.slots.iter().filter(|slot| slot.steerable()).filter_map(|slot| {
            let worker = slot.current()?;
            let age = now.saturating_sub(worker.born);
            let old = !max_age.is_zero() && age >= max_age.mul_f64(worker.jitter);
            let fat = max_rss > 0 && worker.beat.rss_bytes > max_rss && age >= RECYCLE_AGE_MIN;
            (old || fat).then_some((age, slot.id, worker.pid, worker.beat.rss_bytes))
        });
        let Some((age, id, pid, rss_bytes)) = past.max() else {
            return;
        };
        let (slot, age_ms) = (id.number(), saturating_ms(age));
        info!(slot, pid, age_ms, rss_bytes, "worker is recycled");
        self.handover = Some(boot::Handover::default());
        let (generation, boot_timeout) = (self.generation, self.policy.boot_timeout);
        let worker = self.spawn(now, id, generation, boot_timeout);
        if let Some(slot) = self.slot_mut(id) {
            slot.incoming = Some(worker);
        }
    }

    /// The successor did not get ready: the old worker goes on for a while.
    pub(super) fn not_recycled(&mut self, now: Moment, id: SlotId, reason: &str) {
        warn!(slot = id.number(), reason, "worker is not recycled, tried again later");
        self.recycle_after = now + RECYCLE_RETRY;
    }
}
