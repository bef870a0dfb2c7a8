//! Recycling: a worker past its age or memory, or one whose log has stalled, is replaced as a reload would
//! replace it, by one of the same generation, and never two at a time.

use super::machine::{Fleet, Phase};
use super::notice::{FleetNotice, Notice, WorkerNotice};
use super::slot::{State, Worker};
use super::{Action, LOG_STALLED_PATIENCE, Moment, RECYCLE_AGE_MIN, RECYCLE_RETRY, SlotId};

impl Fleet {
    /// Starts the successor of a worker whose log has stalled, or of the oldest one that is past its time.
    pub(super) fn recycle(&mut self, now: Moment) {
        let busy = self.phase != Phase::Serving
            || self.reload.is_running()
            || self.breaker.is_open()
            || now < self.recycle_after
            || self.slots.iter().any(|slot| slot.incoming.is_some());
        if busy {
            return;
        }
        let Some(id) = self.log_stalled(now).or_else(|| self.past_its_time(now)) else {
            return;
        };
        self.handover = Some(boot::Handover::default());
        let (generation, boot_timeout) = (self.generation, self.policy.boot_timeout);
        let worker = self.spawn(now, id, generation, boot_timeout);
        if let Some(slot) = self.slot_mut(id) {
            slot.incoming = Some(worker);
        }
    }

    /// Whether a worker hears the log: then one that does not is itself at fault, and not Redis.
    pub(super) fn log_is_heard(&self) -> bool {
        let hears = |worker: &Worker| matches!(worker.state, State::Ready { .. }) && !worker.quiet && worker.beat.ready;
        self.slots.iter().filter_map(|slot| slot.current()).any(hears)
    }

    /// A worker that was given time to mend itself, and did not.
    fn log_stalled(&mut self, now: Moment) -> Option<SlotId> {
        let stalled = self.slots.iter().find(|slot| {
            let over = slot
                .log_stalled_since
                .is_some_and(|since| now >= since + LOG_STALLED_PATIENCE);
            over && slot.active() && slot.retire_at.is_none()
        })?;
        let (id, since, worker) = (stalled.id, stalled.log_stalled_since?, stalled.current()?);
        let stalled = now.saturating_sub(since);
        self.actions.push(Action::Tell(Notice::Worker(
            id,
            worker.pid,
            WorkerNotice::LogStalled { stalled },
        )));
        if now.saturating_sub(worker.born) < RECYCLE_RETRY {
            // Its successor may fare no better.
            self.recycle_after = now + RECYCLE_RETRY;
        }
        Some(id)
    }

    /// The oldest worker that is too old or too large.
    fn past_its_time(&mut self, now: Moment) -> Option<SlotId> {
        let (max_age, max_rss) = (self.policy.max_age, self.policy.max_rss_bytes);
        let past = self.slots.iter().filter(|slot| slot.steerable()).filter_map(|slot| {
            let worker = slot.current()?;
            let age = now.saturating_sub(worker.born);
            let old = !max_age.is_zero() && age >= max_age.mul_f64(worker.jitter);
            let fat = max_rss > 0 && worker.beat.rss_bytes > max_rss && age >= RECYCLE_AGE_MIN;
            (old || fat).then_some((age, slot.id, worker.pid, worker.beat.rss_bytes))
        });
        let (age, id, pid, rss_bytes) = past.max()?;
        self.actions.push(Action::Tell(Notice::Worker(
            id,
            pid,
            WorkerNotice::Recycled { age, rss_bytes },
        )));
        Some(id)
    }

    /// The successor did not become ready: the old worker continues for a while.
    pub(super) fn not_recycled(&mut self, now: Moment, id: SlotId, reason: &str) {
        let (slot, reason) = (id, reason.to_owned());
        self.actions
            .push(Action::Tell(Notice::Fleet(FleetNotice::RecycleFailed { slot, reason })));
        self.recycle_after = now + RECYCLE_RETRY;
    }
}
