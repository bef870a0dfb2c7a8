//! The fleet against a world that crashes, hangs, lies and reloads at random. A failure prints its
//! seed; `SEED=n cargo test -p anyworker fleet` replays it.

use super::*;
use boot::{Beat, Handover};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

const RUNS: u64 = 100;
/// Simulated time after which faults end.
const TROUBLE: Duration = Duration::from_secs(200);
/// So long after that, all must be well.
const CALM: Duration = Duration::from_secs(150);

/// What the world will do to the fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Beat(u64),
    Boot(u64),
    Die(u64, i32),
    Give(u64),
    HangUp(u64),
    Operator,
}

/// A worker as the simulated system sees it.
#[derive(Debug)]
struct Process {
    slot: SlotId,
    generation: Generation,
    ready: bool,
    hung: bool,
    /// It ignores drains, stops and aborts.
    silent: bool,
    /// It was told to go, in whatever way; it must be gone by then.
    gone_by: Option<Moment>,
    /// It was told to go at once.
    hurried: bool,
}

struct World {
    rng: fastrand::Rng,
    now: Moment,
    fleet: Fleet,
    agenda: BinaryHeap<Reverse<(Moment, u64, Happening)>>,
    happenings: u64,
    processes: BTreeMap<u64, Process>,
    spawned: BTreeSet<u64>,
    generations: BTreeSet<Generation>,
    /// Generations whose workers never get ready.
    bad: BTreeSet<Generation>,
    next_is_bad: bool,
    slots: u16,
    tickets: u64,
    open_tickets: BTreeSet<Ticket>,
    ended: Option<Exit>,
    stopping: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = policy(rng.u16(1..6));
        Self {
            now: Moment::ZERO,
            fleet: Fleet::new(policy, rng.u64(..)),
            agenda: BinaryHeap::new(),
            happenings: 0,
            processes: BTreeMap::new(),
            spawned: BTreeSet::new(),
            generations: BTreeSet::from([Generation::FIRST]),
            bad: BTreeSet::new(),
            next_is_bad: false,
            slots: policy.workers,
            tickets: 0,
            open_tickets: BTreeSet::new(),
            ended: None,
            stopping: false,
            rng,
        }
    }

    fn plan(&mut self, after_ms: u64, happening: Happening) {
        self.happenings += 1;
        let at = self.now + Duration::from_millis(after_ms);
        self.agenda.push(Reverse((at, self.happenings, happening)));
    }

    fn trouble(&self) -> bool {
        self.now < TROUBLE
    }

    fn run(&mut self) {
        self.feed(Event::Begin);
        self.plan(1_000, Happening::Operator);
        self.run_until(TROUBLE + CALM);
        let snapshot = self.fleet.snapshot();
        assert_eq!(snapshot.state, FleetState::Serving, "after the calm: {snapshot:?}");
        assert_eq!(
            self.fleet.active(),
            usize::from(self.fleet.target),
            "after the calm: {snapshot:?}"
        );
        assert_eq!(self.slots, self.fleet.target);
        assert!(self.open_tickets.is_empty(), "unanswered: {:?}", self.open_tickets);
        self.stopping = true;
        let pace = if self.rng.bool() {
            Pace::Graceful { last: true }
        } else {
            Pace::Fast
        };
        self.feed(Event::Stop(pace));
        let limit = self.now + policy(1).grace + KILL_MARGIN + Duration::from_secs(5);
        self.run_until(limit);
        assert_eq!(self.ended, Some(Exit::Done));
        assert!(self.processes.is_empty());
    }

    fn run_until(&mut self, end: Moment) {
        let mut ticks = 0;
        while self.now < end && self.ended.is_none() {
            let next = self.agenda.peek().map_or(end, |Reverse((at, ..))| *at);
            let deadline = self.fleet.deadline().unwrap_or(end);
            if deadline < next {
                ticks = if deadline <= self.now { ticks + 1 } else { 0 };
                assert!(ticks < 5, "the loop spins: {:?}", self.fleet);
                self.now = self.now.max(deadline).min(end);
                self.feed(Event::Tick);
            } else if let Some(Reverse((at, _, happening))) = self.agenda.pop() {
                self.now = self.now.max(at);
                self.happen(happening);
            } else {
                return;
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Beat(id) => {
                if self.processes.get(&id).is_some_and(|process| !process.hung) {
                    self.plan(Beat::EVERY_MS, Happening::Beat(id));
                    let message = ToSupervisor::Beat(Beat {
                        ready: true,
                        ..Beat::default()
                    });
                    self.feed(Event::Message {
                        worker: WorkerId(id),
                        message,
                    });
                }
            }
            Happening::Boot(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.ready = true;
                    self.feed(Event::Message {
                        worker: WorkerId(id),
                        message: ToSupervisor::ready(),
                    });
                    self.plan(1, Happening::Beat(id));
                    self.perhaps_plan_trouble(id);
                }
            }
            Happening::Die(id, code) => {
                if self.processes.remove(&id).is_some() {
                    if self.rng.bool() {
                        self.feed(Event::HungUp { worker: WorkerId(id) });
                    }
                    self.feed(Event::Exited {
                        worker: WorkerId(id),
                        end: End::Code(code),
                    });
                }
            }
            Happening::HangUp(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.hurried = true;
                    self.feed(Event::HungUp { worker: WorkerId(id) });
                }
            }
            Happening::Give(id) => {
                if self.processes.contains_key(&id) {
                    self.feed(Event::Message {
                        worker: WorkerId(id),
                        message: ToSupervisor::Given(Handover::default()),
                    });
                }
            }
            Happening::Operator => self.operate(),
        }
    }

    fn perhaps_plan_trouble(&mut self, id: u64) {
        if !self.trouble() {
            return;
        }
        let after = self.rng.u64(0..60_000);
        match self.rng.u8(0..10) {
            0..=2 => self.plan(after, Happening::Die(id, 70)),
            3 => self.plan(after, Happening::HangUp(id)),
            4..=5 => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.hung = true;
                    process.silent = self.rng.bool();
                }
            }
            _ => {}
        }
    }

    fn operate(&mut self) {
        if !self.trouble() {
            return;
        }
        let again = self.rng.u64(10..15_000);
        self.plan(again, Happening::Operator);
        let workers = self.rng.u16(1..6);
        match self.rng.u8(0..8) {
            0..=3 => {
                self.tickets += 1;
                self.open_tickets.insert(Ticket(self.tickets));
                self.next_is_bad = self.rng.u8(0..3) == 0;
                self.feed(Event::Reload {
                    tickets: vec![Ticket(self.tickets)],
                    policy: policy(workers),
                });
            }
            4 => self.feed(Event::Scale(workers)),
            5 => self.feed(Event::More),
            6 => self.feed(Event::Fewer),
            _ => {
                let by = Duration::from_millis(self.rng.u64(500..20_000));
                self.now += by;
                // A late supervisor kills late.
                self.processes
                    .values_mut()
                    .filter_map(|process| process.gone_by.as_mut())
                    .for_each(|at| *at += by);
                self.feed(Event::Late { by });
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            let active: BTreeSet<u16> = self.active_slots();
            let actions = self.fleet.step(self.now, event);
            let mut drained = BTreeSet::new();
            for action in actions {
                self.obey(action, &mut events, &mut drained);
            }
            // No worker drains before another one serves in its place.
            if !self.stopping {
                let lost = active
                    .difference(&self.active_slots())
                    .copied()
                    .collect::<BTreeSet<_>>();
                let bad = lost.intersection(&drained).find(|slot| **slot < self.fleet.target);
                assert_eq!(bad, None, "a slot in use was drained empty");
            }
            self.check();
        }
    }

    fn active_slots(&self) -> BTreeSet<u16> {
        self.fleet
            .slots
            .iter()
            .filter(|slot| slot.active() && slot.retire_at.is_none())
            .map(|slot| slot.id.number())
            .collect()
    }

    fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        assert!(from != to && self.processes.contains_key(&to.0));
        // An older build does not answer.
        if self.rng.u8(..4) > 0 {
            let after = self.rng.u64(1..3_000);
            self.plan(after, Happening::Give(from.0));
        }
    }

    fn obey(&mut self, action: Action, events: &mut Vec<Event>, drained: &mut BTreeSet<u16>) {
        match action {
            Action::Spawn {
                worker,
                slot,
                generation,
                workers,
            } => {
                assert!(self.spawned.insert(worker.0), "{worker} twice");
                assert!(self.generations.contains(&generation), "{generation} is forgotten");
                assert!(slot.number() < self.slots && workers >= 1 && !self.stopping);
                self.give_birth(worker.0, slot, generation, events);
            }
            Action::Send { worker, message } => {
                let slot = self.processes.get(&worker.0).map(|process| process.slot.number());
                match message {
                    ToWorker::Drain { grace_ms, .. } => {
                        drained.extend(slot);
                        self.tell_to_go(worker.0, Duration::from_millis(grace_ms) + KILL_MARGIN, grace_ms, false);
                    }
                    ToWorker::Stop => self.tell_to_go(worker.0, FAST_GRACE, 1_000, true),
                    ToWorker::Recall { .. } => {}
                    ToWorker::Give { .. }
                    | ToWorker::Lend { .. }
                    | ToWorker::Scraped { .. }
                    | ToWorker::Take
                    | ToWorker::WorkerGone { .. } => panic!("the shell says that"),
                }
            }
            Action::Abort { worker } => self.tell_to_go(worker.0, ABORT_GRACE, 500, true),
            Action::Kill { worker } => {
                if let Some(process) = self.processes.get_mut(&worker.0) {
                    process.hurried = true;
                    process.gone_by = Some(self.now + Duration::from_secs(1));
                    self.plan(5, Happening::Die(worker.0, 9));
                }
            }
            Action::Adopt { generation } => {
                assert!(self.generations.insert(generation));
                if self.next_is_bad && self.trouble() {
                    self.bad.insert(generation);
                }
            }
            Action::Forget { generation } => assert!(self.generations.remove(&generation)),
            Action::Open { slot } => {
                assert_eq!(slot.number(), self.slots);
                self.slots += 1;
            }
            Action::Close { slot } => {
                self.slots -= 1;
                assert_eq!(slot.number(), self.slots, "only the highest slot is closed");
                assert!(self.processes.values().all(|process| process.slot != slot));
            }
            Action::HandOver { from, to, .. } => self.hand_over(from, to),
            Action::ReloadEnded { tickets, .. } | Action::RebalanceEnded { tickets, .. } => {
                for ticket in tickets {
                    assert!(self.open_tickets.remove(&ticket), "{ticket:?} answered twice");
                }
            }
            Action::Exit { code, .. } => {
                assert_eq!(self.ended, None);
                self.ended = Some(code);
            }
            Action::Lend { slot, worker } => {
                assert!(slot.number() < self.slots && !self.stopping);
                assert!(self.processes.contains_key(&worker.0), "lent to the dead {worker}");
            }
            Action::Steer { slots } => assert!(slots.iter().all(|(slot, _)| slot.number() < self.slots)),
            Action::AnnounceGone { worker, .. } => assert!(!self.processes.contains_key(&worker.0)),
            Action::ReloadStarted | Action::Serving | Action::Tell(_) => {}
        }
    }

    fn give_birth(&mut self, id: u64, slot: SlotId, generation: Generation, events: &mut Vec<Event>) {
        let worker = WorkerId(id);
        if self.trouble() && self.rng.u8(0..50) == 0 {
            return events.push(Event::SpawnFailed {
                worker,
                reason: "fork".to_owned(),
            });
        }
        events.push(Event::Spawned { worker, pid: 1 });
        let process = Process {
            slot,
            generation,
            ready: false,
            hung: false,
            silent: false,
            gone_by: None,
            hurried: false,
        };
        self.processes.insert(id, process);
        let after = self.rng.u64(1..2_000);
        let luck = if self.trouble() { self.rng.u8(0..20) } else { 19 };
        match luck {
            _ if self.bad.contains(&generation) && luck % 2 == 0 => self.plan(after, Happening::Die(id, 78)),
            _ if self.bad.contains(&generation) && luck % 3 == 0 => {} // never ready
            _ if self.bad.contains(&generation) => {
                // Ready, and dead within the soak.
                self.plan(after, Happening::Boot(id));
                self.plan(after + 1_500, Happening::Die(id, 70));
            }
            0 => self.plan(after, Happening::Die(id, 75)),
            1..=3 => self.plan(after, Happening::Die(id, 70)),
            4 => {}
            _ => self.plan(after, Happening::Boot(id)),
        }
    }

    fn tell_to_go(&mut self, id: u64, limit: Duration, usual_ms: u64, hurried: bool) {
        let takes = self.rng.u64(1..=usual_ms.max(1));
        let silent = self.rng.u8(0..5) == 0;
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        process.gone_by = Some(self.now + limit + Duration::from_secs(1));
        process.hurried |= hurried;
        if !silent && !process.silent {
            self.plan(takes, Happening::Die(id, 0));
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        let mut serving = BTreeMap::new();
        let mut generations = BTreeSet::new();
        for (id, process) in &self.processes {
            // A canary soaks beside the old worker of its slot.
            let soaks = self
                .fleet
                .slots
                .iter()
                .any(|slot| slot.incoming.as_ref().is_some_and(|worker| worker.id.0 == *id));
            if process.ready && !soaks && process.gone_by.is_none() && !process.hurried {
                let other = serving.insert(process.slot, id);
                assert_eq!(other, None, "two workers serve in slot {}", process.slot);
            }
            if !process.hurried {
                generations.insert(process.generation);
            }
            assert!(
                process.gone_by.is_none_or(|by| self.now <= by),
                "{id} outlived its deadline: {process:?}"
            );
        }
        if self.fleet.phase == machine::Phase::Serving && !self.fleet.steered.is_empty() {
            for slot in &self.fleet.slots {
                let served = slot.steerable() || slot.retire_at.is_some();
                let borrowers = self.fleet.lent.iter().filter(|(id, _)| *id == slot.id).count();
                assert_eq!(borrowers, usize::from(!served), "queue of slot {}", slot.id);
            }
        }
        assert!(generations.len() <= 2, "alive: {generations:?}");
        assert!(self.fleet.target >= 1 && self.fleet.slots.len() == usize::from(self.slots));
    }
}

fn policy(workers: u16) -> Policy {
    Policy {
        workers,
        grace: Duration::from_secs(5),
        boot_timeout: Duration::from_secs(4),
        soak: Duration::from_secs(2),
        notice: Duration::ZERO,
        max_age: Duration::from_secs(40),
        max_rss_bytes: 0,
    }
}

#[test]
fn the_fleet_survives_any_world() {
    let given = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let first = given.unwrap_or_else(|| fastrand::u64(..));
    let runs = if given.is_some() { 1 } else { RUNS };
    for seed in (0..runs).map(|run| first.wrapping_add(run)) {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        assert!(outcome.is_ok(), "replay with SEED={seed}");
    }
}
