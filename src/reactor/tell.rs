//! What the fleet tells an operator, written to the log.

use crate::fleet::{Exited, FleetNotice, Notice, SlotId, WorkerNotice};
use std::time::Duration;
use tracing::{error, info, warn};

/// Writes a line.
pub(super) fn tell(notice: Notice) {
    match notice {
        Notice::Fleet(notice) => of_fleet(notice),
        Notice::Worker(slot, pid, notice) => of_worker(slot, pid, notice),
    }
}

fn of_fleet(notice: FleetNotice) {
    match notice {
        FleetNotice::CanarySoaks { slot } => info!(slot = slot.number(), "first new worker soaks"),
        FleetNotice::ConfigurationCannotWork { reason } => error!(reason, "configuration rejected by the workers"),
        FleetNotice::CrashLoop { reason } => error!(reason, "crash loop: fleet degraded, retrying one slot"),
        FleetNotice::CrashLoopOver => info!("crash loop ended"),
        FleetNotice::FormerGenerationRuns { generation } => {
            warn!(generation = generation.number(), "reload rolled back")
        }
        FleetNotice::Rebalances { transfers } => info!(transfers, "rebalance started"),
        FleetNotice::RecycleFailed { slot, reason } => {
            warn!(slot = slot.number(), reason, "worker not recycled, trying again later")
        }
        FleetNotice::ReloadBegins { from, to } => info!(from = from.number(), to = to.number(), "reload started"),
        FleetNotice::ReloadCompleted { generation } => info!(generation = generation.number(), "reload completed"),
        FleetNotice::ReloadFailed { reason } => error!(reason, "reload failed: rolling back"),
        FleetNotice::ReloadWaits => info!("reload queued behind the running one"),
        FleetNotice::RespawnDue { slot, wait } => info!(slot = slot.number(), wait_ms = ms(wait), "respawn scheduled"),
        FleetNotice::RollbackRetried { reason } => error!(reason, "rollback failed: trying again"),
        FleetNotice::SlotProbes { slot, wait } => {
            warn!(
                slot = slot.number(),
                wait_ms = ms(wait),
                "crash loop: retrying this slot"
            )
        }
        FleetNotice::SlotsChange { from, to } => info!(from, to, "number of slots changed"),
        FleetNotice::Stops { level } => info!(%level, "stop started"),
        FleetNotice::UnknownWorkerExited { worker } => error!(worker, "unknown worker exited"),
    }
}

fn of_worker(slot: SlotId, pid: Option<i32>, notice: WorkerNotice) {
    let slot = slot.number();
    match notice {
        WorkerNotice::BeatsAgain { lagged } => info!(slot, pid, lagged_ms = ms(lagged), "worker recovered"),
        WorkerNotice::BootsTooLong { reason } => error!(slot, pid, reason, "worker not ready in time"),
        WorkerNotice::CutShort => warn!(slot, pid, "worker of an old generation stopped"),
        WorkerNotice::Drained { closed, cut } => info!(slot, pid, closed, cut, "worker drained"),
        WorkerNotice::Exited {
            generation,
            reason,
            how,
        } => {
            let generation = generation.number();
            match how {
                Exited::AsAsked => info!(slot, generation, pid, reason, "worker exited"),
                Exited::Killed => warn!(
                    slot,
                    generation,
                    pid,
                    reason,
                    hint = "killed by someone else; out of memory?",
                    "worker exited"
                ),
                Exited::Unasked => warn!(slot, generation, pid, reason, "worker exited"),
            }
        }
        WorkerNotice::GivesUp { code, reason } => {
            warn!(slot, pid, code, reason, "worker reported that it cannot serve")
        }
        WorkerNotice::Hung { silent } => error!(slot, pid, silent_ms = ms(silent), "worker hung"),
        WorkerNotice::KilledAtDeadline { state } => warn!(slot, pid, state, "worker killed at its deadline"),
        WorkerNotice::Lags { silent } => warn!(slot, pid, silent_ms = ms(silent), "worker lags"),
        WorkerNotice::LogStalled { stalled } => warn!(
            slot,
            pid,
            stalled_ms = ms(stalled),
            "log of a worker stalled: worker is replaced"
        ),
        WorkerNotice::Ready { generation, boot } => info!(
            slot,
            generation = generation.number(),
            pid,
            boot_ms = ms(boot),
            "worker ready"
        ),
        WorkerNotice::Recycled { age, rss_bytes } => {
            info!(slot, pid, age_ms = ms(age), rss_bytes, "worker recycling started");
        }
        WorkerNotice::SilentAboutHandover => warn!(pid, "worker did not report its handover"),
    }
}

/// Whole milliseconds.
fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
