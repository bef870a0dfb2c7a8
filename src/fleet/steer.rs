//! Where new connections go, and who serves those that already wait where nobody does.

use super::machine::{Fleet, Phase};
use super::slot::Slot;
use super::{Action, SlotId, WorkerId};
use boot::ToWorker;

impl Fleet {
    /// New connections go to slots whose worker is ready and heard.
    pub(super) fn steer(&mut self) {
        let slots: Vec<SlotId> = self
            .slots
            .iter()
            .filter(|slot| slot.steerable())
            .map(|slot| slot.id)
            .collect();
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
