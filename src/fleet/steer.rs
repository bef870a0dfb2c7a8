//! Where new connections go, and which worker serves those that already wait at a slot without one.

use super::machine::{Fleet, Phase};
use super::slot::Slot;
use super::{Action, Moment, SlotId, WEIGH_EVERY, WEIGHED_CONNECTIONS_MIN, WEIGHT, WEIGHTS, WorkerId};
use boot::ToWorker;

impl Fleet {
    /// New connections go to slots whose worker is ready and heard; more of them to those that have
    /// fewer, so that long-lived ones even out. When all leave, to those that are still there to say so.
    pub(super) fn steer(&mut self, now: Moment) {
        let stopping = matches!(self.phase, Phase::Stopping(_));
        let loads: Vec<(SlotId, u64)> = self
            .slots
            .iter()
            .filter(|slot| if stopping { slot.drains() } else { slot.steerable() })
            .filter_map(|slot| Some((slot.id, slot.current()?.beat.connections)))
            .collect();
        if stopping && loads.is_empty() {
            return;
        }
        let same = loads.iter().map(|(id, _)| id).eq(self.steered.iter().map(|(id, _)| id));
        if same && now < self.weighed_at + WEIGH_EVERY {
            return;
        }
        self.weighed_at = now;
        let slots = weights(&loads);
        if slots != self.steered {
            self.steered.clone_from(&slots);
            self.actions.push(Action::Steer { slots });
        }
    }

    /// What is in the queue of a slot without such a worker came before it was steered away. It is
    /// not left to wait for the respawn: the slot's listeners are lent to a worker that serves. The
    /// one of the slot, when it is back, has them too; then they are recalled.
    pub(super) fn lend(&mut self) {
        let lenders = |slot: &Slot| !slot.steerable() && slot.retire_at.is_none();
        let serving: Vec<WorkerId> = self
            .slots
            .iter()
            .filter(|slot| slot.steerable())
            .filter_map(|slot| slot.current().map(|worker| worker.id))
            .collect();
        let mut lent = std::mem::take(&mut self.lent);
        lent.retain(|(id, borrower)| {
            let needed = self.slots.iter().any(|slot| slot.id == *id && lenders(slot));
            let kept = needed && serving.contains(borrower);
            if !kept && self.seat(*borrower).is_some() {
                let message = ToWorker::Recall { slot: id.number() };
                self.actions.push(Action::Send {
                    worker: *borrower,
                    message,
                });
            }
            kept
        });
        if matches!(self.phase, Phase::Booting { .. } | Phase::Serving) {
            for slot in self.slots.iter().filter(|slot| lenders(slot)) {
                // At the start the workers come within moments.
                let comes = self.phase != Phase::Serving && slot.current().is_some();
                if comes || lent.iter().any(|(id, _)| *id == slot.id) {
                    continue;
                }
                let burden = |worker: &&WorkerId| lent.iter().filter(|(_, borrower)| borrower == *worker).count();
                if let Some(borrower) = serving.iter().min_by_key(burden) {
                    lent.push((slot.id, *borrower));
                    self.actions.push(Action::Lend {
                        slot: slot.id,
                        worker: *borrower,
                    });
                }
            }
        }
        self.lent = lent;
    }
}

/// Each slot's share of new connections: `WEIGHT` at the average, less above it, more below.
fn weights(loads: &[(SlotId, u64)]) -> Vec<(SlotId, u8)> {
    let count = u64::try_from(loads.len()).unwrap_or(1).max(1);
    let average = loads.iter().map(|(_, connections)| connections).sum::<u64>() / count;
    let scale = i128::from(average.max(WEIGHED_CONNECTIONS_MIN));
    let weight = |connections: u64| {
        let missing = i128::from(average) - i128::from(connections);
        let weight = i128::from(WEIGHT) + i128::from(WEIGHT) * missing / scale;
        let (least, most) = (i128::from(*WEIGHTS.start()), i128::from(*WEIGHTS.end()));
        u8::try_from(weight.clamp(least, most)).unwrap_or(WEIGHT)
    };
    loads
        .iter()
        .map(|(id, connections)| (*id, weight(*connections)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_with_fewer_connections_get_more() {
        let cases: [(&[u64], &[u8]); 6] = [
            (&[0, 0, 0], &[16, 16, 16]),
            (&[1_000, 1_000], &[16, 16]),
            (&[3, 9], &[16, 16]),
            (&[0, 1_000, 1_000, 1_000], &[32, 11, 11, 11]),
            (&[0, 0, 0, 1_000], &[32, 32, 32, 4]),
            (&[1_100, 900], &[15, 17]),
        ];
        for (loads, expected) in cases {
            let loads: Vec<(SlotId, u64)> = (0..).map(SlotId::new).zip(loads.iter().copied()).collect();
            let weights: Vec<u8> = weights(&loads).into_iter().map(|(_, weight)| weight).collect();
            assert_eq!(weights, expected, "{loads:?}");
        }
    }
}
