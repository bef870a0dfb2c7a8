//! Live connections move between workers: which worker gives to which, and the outcome.

use super::machine::{Fleet, Phase};
use super::notice::{FleetNotice, Notice, WorkerNotice};
use super::slot::Slot;
use super::{Action, GIVE_PATIENCE, Moment, SlotId, Ticket, WorkerId};
use boot::Handover;

/// Connections are being evened out.
#[derive(Debug)]
pub(super) struct Rebalance {
    tickets: Vec<Ticket>,
    /// Whose reports are still to come, once for each worker that they give to.
    awaited: Vec<WorkerId>,
    until: Moment,
}

impl Rebalance {
    pub(super) const fn until(&self) -> Moment {
        self.until
    }
}

impl Fleet {
    /// A draining worker gives its connections to these workers, at most this many to each.
    pub(super) fn hand_over(&mut self, now: Moment, from: WorkerId, successors: &[(WorkerId, u64)]) {
        for (to, most) in successors {
            self.actions.push(Action::HandOver {
                from,
                to: *to,
                most: *most,
                leaving: true,
            });
        }
        if let Some(worker) = self.worker_mut(from).filter(|_| !successors.is_empty()) {
            worker.giving = Some(now + GIVE_PATIENCE);
        }
    }

    /// The workers that serve beside this slot, with an equal share each of the connections of its workers.
    pub(super) fn successors_beside(&self, id: SlotId) -> Vec<(WorkerId, u64)> {
        let target = usize::from(self.target);
        let others = self
            .slots
            .iter()
            .take(target)
            .filter(|slot| slot.id != id && slot.steerable());
        let mut successors: Vec<_> = others
            .filter_map(|slot| slot.current())
            .map(|worker| (worker.id, 0))
            .collect();
        let workers = self.slots.iter().filter(|slot| slot.id == id).flat_map(Slot::workers);
        let all: u64 = workers.map(|worker| worker.beat.sockets).sum();
        let share = all.div_ceil(u64::try_from(successors.len()).unwrap_or(1).max(1)).max(1);
        successors.iter_mut().for_each(|(_, most)| *most = share);
        if let Some((_, most)) = successors.last_mut() {
            *most = u64::MAX;
        }
        successors
    }

    /// Workers that were giving to a worker of this slot, and have not reported that they are done, give to these instead.
    pub(super) fn hand_over_again(&mut self, now: Moment, id: SlotId, successors: &[(WorkerId, u64)]) {
        let slot = self.slots.iter().find(|slot| slot.id == id);
        let leaving = slot.into_iter().flat_map(|slot| &slot.leaving);
        let givers: Vec<_> = leaving
            .filter(|worker| worker.giving.is_some())
            .map(|worker| worker.id)
            .collect();
        for giver in givers {
            self.hand_over(now, giver, successors);
        }
    }

    /// Whether a worker hands its connections over before it exits.
    pub(super) fn is_giving(&self) -> bool {
        self.slots
            .iter()
            .flat_map(Slot::workers)
            .any(|worker| worker.giving.is_some())
    }

    /// When a worker that gives has had its time.
    pub(super) fn giving_until(&self) -> Option<Moment> {
        let giving = self
            .slots
            .iter()
            .flat_map(Slot::workers)
            .filter_map(|worker| worker.giving);
        giving.chain(self.rebalance.as_ref().map(Rebalance::until)).min()
    }

    /// A worker has given what it could.
    pub(super) fn given(&mut self, now: Moment, from: WorkerId, report: &Handover) {
        self.handover.get_or_insert_default().add(report);
        if let Some(worker) = self.worker_mut(from) {
            worker.giving = None;
        }
        self.not_awaited(now, from);
    }

    /// Ends the wait for workers that do not give.
    pub(super) fn expire_handovers(&mut self, now: Moment) {
        for slot in &mut self.slots {
            let id = slot.id;
            for worker in slot.workers_mut() {
                if worker.giving.is_some_and(|until| now >= until) {
                    worker.giving = None;
                    self.actions.push(Action::Tell(Notice::Worker(
                        id,
                        worker.pid,
                        WorkerNotice::SilentAboutHandover,
                    )));
                }
            }
        }
        if let Some(rebalance) = self.rebalance.take_if(|rebalance| now >= rebalance.until) {
            self.end_rebalance(rebalance);
        }
    }

    /// Evens connections out: workers with more than the average give to those with less.
    pub(super) fn rebalance(&mut self, now: Moment, tickets: Vec<Ticket>) {
        let busy = if self.phase != Phase::Serving {
            Some("the fleet does not serve yet, or stops")
        } else if self.reload.is_running() || self.is_giving() || self.rebalance.is_some() {
            Some("connections are being moved already; try again when that is over")
        } else {
            None
        };
        if let Some(why) = busy {
            let outcome = Err(why.to_owned());
            return self.actions.push(Action::RebalanceEnded { tickets, outcome });
        }
        let loads: Vec<(WorkerId, u64)> = self
            .slots
            .iter()
            .filter(|slot| slot.steerable())
            .filter_map(|slot| slot.current().map(|worker| (worker.id, worker.beat.sockets)))
            .collect();
        self.handover = Some(Handover::default());
        let mut rebalance = Rebalance {
            tickets,
            awaited: Vec::new(),
            until: now + GIVE_PATIENCE,
        };
        for (from, to, most) in transfers(&loads) {
            rebalance.awaited.push(from);
            self.actions.push(Action::HandOver {
                from,
                to,
                most,
                leaving: false,
            });
        }
        let transfers = rebalance.awaited.len();
        self.actions
            .push(Action::Tell(Notice::Fleet(FleetNotice::Rebalances { transfers })));
        if rebalance.awaited.is_empty() {
            self.end_rebalance(rebalance);
        } else {
            self.rebalance = Some(rebalance);
        }
    }

    /// A worker has reported, or is no more.
    pub(super) fn not_awaited(&mut self, now: Moment, from: WorkerId) {
        if let Some(rebalance) = &mut self.rebalance
            && let Some(at) = rebalance.awaited.iter().position(|worker| *worker == from)
        {
            rebalance.awaited.swap_remove(at);
            if rebalance.awaited.is_empty() {
                rebalance.until = now;
            }
        }
    }

    fn end_rebalance(&mut self, rebalance: Rebalance) {
        let outcome = Ok(self.handover.clone().unwrap_or_default());
        let tickets = rebalance.tickets;
        self.actions.push(Action::RebalanceEnded { tickets, outcome });
    }
}

/// How many each worker gives to which other, until all have the average or one more.
pub(super) fn transfers(loads: &[(WorkerId, u64)]) -> Vec<(WorkerId, WorkerId, u64)> {
    let count = u64::try_from(loads.len()).unwrap_or(1).max(1);
    let all: u64 = loads.iter().map(|(_, load)| load).sum();
    let (average, mut rest) = (all / count, all % count);
    let mut sorted = loads.to_vec();
    // The fullest keep what does not divide.
    sorted.sort_by_key(|(worker, load)| (std::cmp::Reverse(*load), *worker));
    let (mut fat, mut thin) = (Vec::new(), Vec::new());
    for (worker, load) in sorted {
        let goal = average + u64::from(rest > 0);
        rest = rest.saturating_sub(1);
        if load > goal {
            fat.push((worker, load - goal));
        } else if load < goal {
            thin.push((worker, goal - load));
        }
    }
    let mut list = Vec::new();
    for (from, mut surplus) in fat {
        while surplus > 0
            && let Some((to, missing)) = thin.last_mut()
        {
            let most = surplus.min(*missing);
            list.push((from, *to, most));
            surplus -= most;
            *missing -= most;
            if *missing == 0 {
                thin.pop();
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_ends_with_the_average() {
        let check = |loads: &[u64], moved: u64| {
            let mut after: Vec<(WorkerId, u64)> = (1..).map(WorkerId).zip(loads.iter().copied()).collect();
            let list = transfers(&after);
            for (from, to, most) in &list {
                for (worker, load) in &mut after {
                    *load = *load + if worker == to { *most } else { 0 } - if worker == from { *most } else { 0 };
                }
            }
            let sum: u64 = list.iter().map(|(.., most)| most).sum();
            assert_eq!(sum, moved, "{loads:?}");
            let (least, most) = (
                after.iter().map(|(_, load)| load).min(),
                after.iter().map(|(_, load)| load).max(),
            );
            assert!(most.unwrap() - least.unwrap() <= 1, "{loads:?} became {after:?}");
            assert!(list.len() < loads.len(), "{list:?}");
        };
        check(&[7], 0);
        check(&[5, 5, 6], 0);
        check(&[10, 0], 5);
        check(&[300, 300, 0, 0, 0, 0], 400);
        check(&[1, 2, 3, 4, 5], 3);
        check(&[0, 0, 100], 66);
    }
}
