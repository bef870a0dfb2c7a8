//! The table: states × events.

use super::*;
use boot::Beat;
use std::collections::BTreeSet;

mod soak;

const SECOND: Duration = Duration::from_secs(1);

/// A fleet with a script's worth of convenience.
struct Script {
    fleet: Fleet,
    now: Moment,
    spawned: Vec<(WorkerId, SlotId, Generation)>,
    /// Whether workers say at once what they handed over.
    prompt: bool,
}

impl Script {
    fn new(workers: u16) -> Self {
        let policy = policy(workers);
        Self {
            fleet: Fleet::new(policy, 42),
            now: Moment::ZERO,
            spawned: Vec::new(),
            prompt: true,
        }
    }

    /// All slots serve.
    fn serving(workers: u16) -> Self {
        let mut script = Self::new(workers);
        script.step(Event::Begin);
        for number in 0..workers {
            script.ready(script.latest(number));
        }
        assert_eq!(script.fleet.snapshot().state, FleetState::Serving);
        script
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.fleet.step(self.now, event);
        actions.retain(|action| !matches!(action, Action::Tell(_)));
        let mut giving = BTreeSet::new();
        for action in &actions {
            if let Action::Spawn {
                worker,
                slot,
                generation,
                ..
            } = action
            {
                self.spawned.push((*worker, *slot, *generation));
            }
            if let Action::HandOver { from, .. } = action {
                giving.insert(*from);
            }
        }
        if self.prompt {
            for worker in giving {
                actions.extend(self.step(message(worker, given(1))));
            }
        }
        actions
    }

    /// Lets time pass, deadline by deadline; beats of `alive` workers arrive.
    fn pass(&mut self, span: Duration, alive: &[WorkerId]) -> Vec<Action> {
        let end = self.now + span;
        let mut actions = Vec::new();
        while self.now < end {
            self.now = (self.now + Duration::from_millis(Beat::EVERY_MS)).min(end);
            for worker in alive {
                actions.extend(self.step(message(*worker, ToSupervisor::Beat(beat()))));
            }
            actions.extend(self.step(Event::Tick));
        }
        actions
    }

    fn latest(&self, slot: u16) -> WorkerId {
        self.spawned
            .iter()
            .rev()
            .find(|(_, of, _)| of.number() == slot)
            .unwrap()
            .0
    }

    fn ready(&mut self, worker: WorkerId) -> Vec<Action> {
        self.step(message(worker, ToSupervisor::ready()))
    }

    fn exit(&mut self, worker: WorkerId, code: i32) -> Vec<Action> {
        self.step(Event::Exited {
            worker,
            end: End::Code(code),
        })
    }

    fn states(&self) -> Vec<(u16, &'static str)> {
        self.fleet
            .snapshot()
            .rows
            .iter()
            .map(|row| (row.slot, row.state))
            .collect()
    }
}

fn policy(workers: u16) -> Policy {
    Policy {
        workers,
        grace: SECOND * 30,
        boot_timeout: SECOND * 30,
        soak: Duration::ZERO,
        notice: Duration::ZERO,
        max_age: Duration::ZERO,
        max_rss_bytes: 0,
    }
}

/// Even shares of these slots.
fn shares(slots: &[u16]) -> Vec<(SlotId, u8)> {
    slots.iter().map(|number| (SlotId::new(*number), WEIGHT)).collect()
}

fn beat() -> Beat {
    Beat {
        ready: true,
        ..Beat::default()
    }
}

fn message(worker: WorkerId, message: ToSupervisor) -> Event {
    Event::Message { worker, message }
}

fn given(moved: u64) -> ToSupervisor {
    ToSupervisor::Given(Handover {
        moved,
        ..Handover::default()
    })
}

fn drains(actions: &[Action], worker: WorkerId) -> bool {
    drains_and(actions, worker, false)
}

/// The same for the last that its listeners will see.
fn drains_and(actions: &[Action], worker: WorkerId, last: bool) -> bool {
    let drain = Action::Send {
        worker,
        message: ToWorker::Drain {
            grace_ms: 30_000,
            notice_ms: 0,
            last,
        },
    };
    actions.contains(&drain)
}

#[test]
fn the_first_respawn_comes_within_a_quarter_second() {
    for uptime in [0, 1, 59, 61, 600] {
        let mut script = Script::serving(1);
        let worker = script.latest(0);
        script.pass(SECOND * uptime, &[worker]);
        let actions = script.exit(worker, 70);
        assert!(actions.contains(&Action::AnnounceGone {
            worker,
            slot: SlotId::new(0)
        }));
        assert!(script.fleet.deadline().unwrap() <= script.now + Duration::from_millis(250));
        script.pass(Duration::from_millis(250), &[]);
        assert_ne!(script.latest(0), worker, "after {uptime} s");
    }
}

#[test]
fn exit_codes_of_the_first_boot() {
    for (code, ends) in [(0, None), (70, None), (75, None), (78, Some(Exit::Config))] {
        let mut script = Script::new(2);
        script.step(Event::Begin);
        let (first, second) = (script.latest(0), script.latest(1));
        let reason = "because".to_owned();
        script.step(message(first, ToSupervisor::Failed { code: 0, reason }));
        script.exit(first, code);
        let actions = script.exit(second, 0);
        let exit = actions.iter().find_map(|action| {
            let Action::Exit { code, reason } = action else {
                return None;
            };
            Some((*code, reason.clone().unwrap_or_default()))
        });
        assert_eq!(
            exit,
            ends.map(|exit| (exit, format!("exit {code}: because"))),
            "code {code}"
        );
    }
}

#[test]
fn a_configuration_that_once_worked_does_not_end_the_fleet() {
    let mut script = Script::serving(2);
    script.exit(script.latest(0), 78);
    assert_eq!(script.states(), [(0, "backoff"), (1, "ready")]);
}

#[test]
fn silence_is_lagging_then_hung_then_killed() {
    let mut script = Script::serving(3);
    let (silent, others) = (script.latest(1), [script.latest(0), script.latest(2)]);
    let actions = script.pass(SECOND * 2, &others);
    assert!(actions.contains(&Action::Steer { slots: shares(&[0, 2]) }));
    assert_eq!(script.states()[1], (1, "lagging"));
    assert!(
        !script
            .pass(SECOND * 7, &others)
            .contains(&Action::Abort { worker: silent })
    );
    assert!(script.pass(SECOND, &others).contains(&Action::Abort { worker: silent }));
    assert!(
        script
            .pass(ABORT_GRACE, &others)
            .contains(&Action::Kill { worker: silent })
    );
    assert_eq!(script.states()[1], (1, "killed"));
}

#[test]
fn a_late_beat_brings_a_worker_back() {
    let mut script = Script::serving(2);
    let (worker, other) = (script.latest(0), script.latest(1));
    script.pass(SECOND * 5, &[other]);
    let actions = script.step(message(worker, ToSupervisor::Beat(beat())));
    assert_eq!(
        actions,
        [
            Action::Steer { slots: shares(&[0, 1]) },
            Action::Send {
                worker: other,
                message: ToWorker::Recall { slot: 0 }
            }
        ]
    );
}

#[test]
fn a_stalled_host_is_given_three_times_as_long() {
    let mut script = Script::serving(3);
    let actions = script.pass(SECOND * 29, &[script.latest(0)]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Abort { .. })));
    let actions = script.pass(SECOND * 2, &[script.latest(0)]);
    assert_eq!(
        actions
            .iter()
            .filter(|action| matches!(action, Action::Abort { .. }))
            .count(),
        2
    );
}

#[test]
fn a_late_supervisor_blames_no_worker() {
    let mut script = Script::serving(2);
    script.now += SECOND * 60;
    assert_eq!(script.step(Event::Late { by: SECOND * 60 }), []);
    assert_eq!(script.states(), [(0, "ready"), (1, "ready")]);
}

#[test]
fn a_reload_goes_slot_by_slot() {
    let mut script = Script::serving(2);
    let old = [script.latest(0), script.latest(1)];
    let actions = script.step(Event::Reload {
        tickets: vec![Ticket(7)],
        policy: policy(2),
    });
    let to = Generation(2);
    assert_eq!(actions[..2], [Action::Adopt { generation: to }, Action::ReloadStarted]);
    assert_eq!(script.states(), [(0, "ready"), (0, "booting"), (1, "ready")]);
    let actions = script.ready(script.latest(0));
    assert!(drains(&actions, old[0]));
    assert_eq!(
        script.states(),
        [(0, "ready"), (0, "draining"), (1, "ready"), (1, "booting")]
    );
    let actions = script.ready(script.latest(1));
    assert!(drains(&actions, old[1]));
    assert!(actions.contains(&Action::ReloadEnded {
        tickets: vec![Ticket(7)],
        outcome: Ok(to)
    }));
    assert!(actions.contains(&Action::Forget {
        generation: Generation::FIRST
    }));
    assert_eq!(script.fleet.snapshot().generation, 2);
}

#[test]
fn a_failed_reload_goes_back() {
    let mut script = Script::serving(2);
    let old = script.latest(1);
    script.step(Event::Reload {
        tickets: vec![Ticket(7)],
        policy: policy(2),
    });
    script.ready(script.latest(0));
    let (replaced, failing) = (script.latest(0), script.latest(1));
    script.exit(failing, 70);
    assert_eq!(script.spawned.last().unwrap().1, SlotId::new(0));
    assert_eq!(script.spawned.last().unwrap().2, Generation::FIRST);
    let actions = script.ready(script.latest(0));
    assert!(drains(&actions, replaced));
    let reason = "slot 1, generation 2: exit 70".to_owned();
    assert!(actions.contains(&Action::ReloadEnded {
        tickets: vec![Ticket(7)],
        outcome: Err(reason)
    }));
    assert!(actions.contains(&Action::Forget {
        generation: Generation(2)
    }));
    assert_eq!(script.latest(1), failing, "slot 1 was never touched");
    assert!(
        script
            .fleet
            .snapshot()
            .rows
            .iter()
            .any(|row| row.slot == 1 && row.state == "ready")
    );
    assert_ne!(old, failing);
}

#[test]
fn requests_during_a_reload_make_one_more() {
    let mut script = Script::serving(1);
    for ticket in 1..=4 {
        script.step(Event::Reload {
            tickets: vec![Ticket(ticket)],
            policy: policy(1),
        });
    }
    let actions = script.ready(script.latest(0));
    assert!(actions.contains(&Action::ReloadEnded {
        tickets: vec![Ticket(1)],
        outcome: Ok(Generation(2))
    }));
    // The third generation waits until the first is gone.
    let first = script.spawned[0].0;
    assert_eq!(script.spawned.len(), 2);
    script.exit(first, 0);
    let actions = script.ready(script.latest(0));
    let tickets = vec![Ticket(2), Ticket(3), Ticket(4)];
    assert!(actions.contains(&Action::ReloadEnded {
        tickets,
        outcome: Ok(Generation(3))
    }));
}

#[test]
fn a_reload_does_not_cut_short_what_the_one_before_sent_away() {
    let mut script = Script::serving(1);
    let first = script.latest(0);
    let reload = || Event::Reload {
        tickets: vec![],
        policy: policy(1),
    };
    script.step(reload());
    script.ready(script.latest(0));
    let second = script.latest(0);
    let stop = Action::Send {
        worker: first,
        message: ToWorker::Stop,
    };
    let mut actions = script.step(reload());
    actions.extend(script.pass(LEAVING_PATIENCE - SECOND, &[first, second]));
    assert!(!actions.contains(&stop), "{actions:?}");
    assert_eq!(script.latest(0), second, "a third generation beside two");
    let actions = script.pass(2 * SECOND, &[first, second]);
    assert!(actions.contains(&stop), "{actions:?}");
    script.exit(first, 0);
    assert_ne!(script.latest(0), second);
}

#[test]
fn asking_again_stops_harder() {
    let cases = [
        (vec![Pace::Graceful { last: true }], "draining"),
        (
            vec![Pace::Graceful { last: true }, Pace::Graceful { last: true }],
            "stopping",
        ),
        (vec![Pace::Fast], "stopping"),
        (vec![Pace::Graceful { last: true }, Pace::Fast], "stopping"),
        (
            vec![
                Pace::Graceful { last: true },
                Pace::Graceful { last: true },
                Pace::Graceful { last: true },
            ],
            "killed",
        ),
        (vec![Pace::Fast, Pace::Graceful { last: true }], "killed"),
    ];
    for (paces, state) in cases {
        let mut script = Script::serving(1);
        for pace in &paces {
            script.step(Event::Stop(*pace));
        }
        assert_eq!(script.states(), [(0, state)], "{paces:?}");
        let actions = script.exit(script.latest(0), 0);
        assert!(actions.contains(&Action::Exit {
            code: Exit::Done,
            reason: None
        }));
    }
}

#[test]
fn while_all_leave_connections_go_to_those_still_there() {
    let mut script = Script::serving(2);
    let actions = script.step(Event::Stop(Pace::Graceful { last: true }));
    let workers = [0, 1].map(|slot| script.latest(slot));
    assert!(workers.iter().all(|worker| drains_and(&actions, *worker, true)));
    let steers = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Steer { .. }));
    assert!(!steers(&actions), "as before");
    let actions = script.exit(workers[0], 0);
    assert!(actions.contains(&Action::Steer { slots: shares(&[1]) }), "{actions:?}");
    assert!(!steers(&script.exit(workers[1], 0)), "no worker is there");
}

#[test]
fn a_stop_before_the_begin_ends_at_once() {
    let mut script = Script::new(3);
    let actions = script.step(Event::Stop(Pace::Graceful { last: true }));
    assert_eq!(
        actions,
        [Action::Exit {
            code: Exit::Done,
            reason: None
        }]
    );
}

#[test]
fn a_drain_ends_by_its_deadline() {
    let mut script = Script::serving(1);
    let worker = script.latest(0);
    script.step(Event::Stop(Pace::Graceful { last: true }));
    assert!(!script.pass(SECOND * 31, &[]).contains(&Action::Kill { worker }));
    assert!(script.pass(SECOND, &[]).contains(&Action::Kill { worker }));
}

#[test]
fn a_retiring_slot_empties_its_queue_first() {
    let mut script = Script::serving(2);
    let worker = script.latest(1);
    let actions = script.step(Event::Fewer);
    assert_eq!(actions, [Action::Steer { slots: shares(&[0]) }]);
    script.now += RETIRE_SETTLE;
    assert!(drains(&script.step(Event::Tick), worker));
    assert!(script.exit(worker, 0).contains(&Action::Close { slot: SlotId::new(1) }));
    assert_eq!(script.step(Event::Fewer), [], "the last slot stays");
}

#[test]
fn a_slot_that_is_wanted_again_stays() {
    let mut script = Script::serving(2);
    script.step(Event::Fewer);
    let actions = script.step(Event::More);
    assert_eq!(actions, [Action::Steer { slots: shares(&[0, 1]) }]);
    assert_eq!(script.states(), [(0, "ready"), (1, "ready")]);
}

#[test]
fn a_crash_loop_leaves_one_probe() {
    let mut script = Script::serving(3);
    let healthy = script.latest(0);
    for _ in 0..60 {
        for slot in [1, 2] {
            let worker = script.latest(slot);
            if script
                .fleet
                .snapshot()
                .rows
                .iter()
                .any(|row| row.slot == slot && row.state != "backoff")
            {
                script.exit(worker, 70);
            }
        }
        script.pass(SECOND, &[healthy]);
        if script.fleet.snapshot().state == FleetState::Degraded {
            break;
        }
    }
    let states = script.states();
    assert_eq!(states[0], (0, "ready"));
    assert_eq!(
        states.iter().filter(|(_, state)| *state == "parked").count(),
        1,
        "{states:?}"
    );
    let spawns = script.spawned.len();
    script.pass(BACKOFF_MAX, &[healthy]);
    assert_eq!(script.spawned.len(), spawns + 1, "one probe");
    let probe = script.spawned.last().unwrap().0;
    script.ready(probe);
    script.pass(PROBE_STABLE_AFTER + SECOND, &[healthy, probe]);
    assert_eq!(script.fleet.snapshot().state, FleetState::Serving);
    assert_eq!(script.spawned.len(), spawns + 2, "the other slot is back");
}

#[test]
fn last_words_outlive_the_hang_up() {
    let mut script = Script::serving(2);
    let worker = script.latest(0);
    let reason = "redis is gone".to_owned();
    script.step(message(worker, ToSupervisor::Failed { code: 75, reason }));
    let actions = script.step(Event::HungUp { worker });
    assert_eq!(
        actions,
        [
            Action::Steer { slots: shares(&[1]) },
            Action::Lend {
                slot: SlotId::new(0),
                worker: script.latest(1)
            }
        ]
    );
    script.exit(worker, 75);
    let row = script.fleet.snapshot().rows[0].clone();
    assert_eq!(
        (row.last_exit.as_deref(), row.restarts),
        (Some("exit 75: redis is gone"), 1)
    );
}

#[test]
fn a_newcomer_that_dies_turns_the_reload_round() {
    let mut script = Script::serving(3);
    script.step(Event::Reload {
        tickets: vec![Ticket(7)],
        policy: policy(3),
    });
    script.ready(script.latest(0));
    let seated = script.latest(0);
    script.exit(seated, 70);
    // Slot 1 boots the new generation still; when it is there, all slots go back.
    script.ready(script.latest(1));
    script.ready(script.latest(0));
    let actions = script.ready(script.latest(1));
    assert!(actions.contains(&Action::ReloadEnded {
        tickets: vec![Ticket(7)],
        outcome: Err("slot 0, generation 2: exit 70".to_owned())
    }));
    assert!(
        script
            .fleet
            .snapshot()
            .rows
            .iter()
            .all(|row| row.generation == 1 || row.state == "draining")
    );
}

#[test]
fn the_queue_of_a_silent_worker_is_lent_in_time() {
    let mut script = Script::serving(3);
    let (silent, alive) = (script.latest(1), [script.latest(0), script.latest(2)]);
    let actions = script.pass(Duration::from_millis(750), &alive);
    let lend = |slot, worker| Action::Lend {
        slot: SlotId::new(slot),
        worker,
    };
    assert!(actions.contains(&lend(1, alive[0])), "{actions:?}");
    assert_eq!(script.states()[1], (1, "ready"), "it is not reported yet");
    // The borrower dies: another one takes both queues.
    let actions = script.exit(alive[0], 70);
    assert!(
        actions.contains(&lend(0, alive[1])) && actions.contains(&lend(1, alive[1])),
        "{actions:?}"
    );
    let actions = script.step(message(silent, ToSupervisor::Beat(beat())));
    let recall = |slot, worker| Action::Send {
        worker,
        message: ToWorker::Recall { slot },
    };
    assert!(actions.contains(&recall(1, alive[1])), "{actions:?}");
}

#[test]
fn workers_past_their_age_are_replaced_one_by_one() {
    let mut script = Script::serving(3);
    script.fleet.policy.max_age = SECOND * 100;
    let first: Vec<WorkerId> = (0..3).map(|slot| script.latest(slot)).collect();
    script.pass(SECOND * 89, &first);
    assert_eq!(script.spawned.len(), 3, "no worker is old yet");
    let mut alive = first.clone();
    let mut drained = Vec::new();
    for _ in 0..23 {
        let actions = script.pass(SECOND, &alive);
        drained.extend(first.iter().copied().filter(|worker| drains(&actions, *worker)));
        let booting: Vec<u16> = script
            .states()
            .into_iter()
            .filter(|(_, state)| *state == "booting")
            .map(|(slot, _)| slot)
            .collect();
        assert!(booting.len() <= 1, "one at a time");
        for slot in booting {
            let successor = script.latest(slot);
            let actions = script.ready(successor);
            drained.extend(first.iter().copied().filter(|worker| drains(&actions, *worker)));
            alive.push(successor);
        }
    }
    drained.sort_unstable();
    assert_eq!(drained, first, "all of them, give or take a tenth");
    assert_eq!(script.fleet.snapshot().generation, 1);
}

#[test]
fn a_large_worker_is_replaced_unless_its_successor_fails() {
    let mut script = Script::serving(2);
    script.fleet.policy.max_rss_bytes = 1_000;
    let (large, other) = (script.latest(0), script.latest(1));
    let size = |rss_bytes| Beat { rss_bytes, ..beat() };
    script.pass(RECYCLE_AGE_MIN - SECOND, &[large, other]);
    script.step(message(large, ToSupervisor::Beat(size(1_001))));
    assert_eq!(script.spawned.len(), 2, "it is too young");
    script.pass(SECOND, &[other]);
    script.step(message(large, ToSupervisor::Beat(size(1_001))));
    assert_eq!(script.spawned.len(), 3);
    let actions = script.exit(script.latest(0), 70);
    assert!(!drains(&actions, large));
    assert_eq!(script.states(), [(0, "ready"), (1, "ready")]);
    // A reload that comes meanwhile is not blamed for it.
    script.pass(SECOND, &[other]);
    script.step(message(large, ToSupervisor::Beat(size(1_001))));
    assert_eq!(script.spawned.len(), 3, "not at once again");
}

#[test]
fn a_worker_whose_log_stalls_is_replaced_while_others_hear() {
    let mut script = Script::serving(2);
    let (stalled, other) = (script.latest(0), script.latest(1));
    let six_seconds = |script: &mut Script, other_hears: bool| {
        let mut actions = Vec::new();
        for beat_of in [(stalled, false), (other, other_hears)].repeat(24) {
            let (ready, log_stalled) = (beat_of.1, !beat_of.1);
            script.now += Duration::from_millis(Beat::EVERY_MS / 2);
            let beat = Beat {
                ready,
                log_stalled,
                ..beat()
            };
            actions.extend(script.step(message(beat_of.0, ToSupervisor::Beat(beat))));
        }
        actions
    };
    six_seconds(&mut script, false);
    assert_eq!(script.spawned.len(), 2, "it is Redis that is silent");
    let actions = six_seconds(&mut script, true);
    let aside = |action: &Action| matches!(action, Action::Steer { slots } if slots.iter().all(|(id, _)| id.0 == 1));
    assert!(actions.iter().any(aside), "{actions:?}");
    assert_eq!(script.spawned.len(), 3);
    let successor = script.latest(0);
    let actions = script.ready(successor);
    assert_eq!(handoffs(&actions), [(stalled, successor, u64::MAX, true)]);
    assert!(drains(&actions, stalled));
}

/// Which worker gives to which, and whether before leaving.
fn handoffs(actions: &[Action]) -> Vec<(WorkerId, WorkerId, u64, bool)> {
    let handoff = |action: &Action| {
        let Action::HandOver {
            from,
            to,
            most,
            leaving,
        } = action
        else {
            return None;
        };
        Some((*from, *to, *most, *leaving))
    };
    actions.iter().filter_map(handoff).collect()
}

#[test]
fn a_reload_waits_for_the_connections_to_move() {
    let mut script = Script::serving(1);
    script.prompt = false;
    let old = script.latest(0);
    script.step(Event::Reload {
        tickets: vec![Ticket(1)],
        policy: policy(1),
    });
    let new = script.latest(0);
    let actions = script.ready(new);
    assert_eq!(handoffs(&actions), [(old, new, u64::MAX, true)]);
    assert!(drains(&actions, old));
    assert!(!actions.iter().any(|a| matches!(a, Action::ReloadEnded { .. })));
    let actions = script.step(message(old, given(7)));
    assert!(
        actions
            .iter()
            .any(|a| matches!(a, Action::ReloadEnded { outcome: Ok(_), .. }))
    );
    assert_eq!(script.fleet.snapshot().handover.unwrap().moved, 7);
    // One that never says so is not waited for in vain.
    script.step(Event::Reload {
        tickets: vec![Ticket(2)],
        policy: policy(1),
    });
    script.exit(old, 0);
    let newest = script.latest(0);
    script.ready(newest);
    let actions = script.pass(GIVE_PATIENCE + SECOND, &[new, newest]);
    assert!(
        actions
            .iter()
            .any(|a| matches!(a, Action::ReloadEnded { outcome: Ok(_), .. }))
    );
}

#[test]
fn connections_of_a_dead_successor_go_to_others() {
    let mut script = Script::serving(2);
    script.prompt = false;
    let (old, other) = (script.latest(0), script.latest(1));
    script.step(Event::Reload {
        tickets: vec![],
        policy: policy(2),
    });
    let successor = script.latest(0);
    script.ready(successor);
    let actions = script.exit(successor, 70);
    assert_eq!(handoffs(&actions), [(old, other, u64::MAX, true)]);
    // The reload is rolled back: the next worker of the slot takes the rest.
    let next = script.latest(0);
    let actions = script.ready(next);
    assert_eq!(handoffs(&actions), [(old, next, u64::MAX, true)]);
    script.step(message(old, given(1)));
    assert_eq!(script.states(), [(0, "ready"), (0, "draining"), (1, "ready")]);
}

#[test]
fn slots_are_evened_out_and_a_retiring_one_gives_to_all() {
    let mut script = Script::serving(3);
    script.prompt = false;
    let workers: Vec<_> = (0..3).map(|slot| script.latest(slot)).collect();
    for (worker, sockets) in workers.iter().zip([90, 30, 0]) {
        let beat = Beat { sockets, ..beat() };
        script.step(message(*worker, ToSupervisor::Beat(beat)));
    }
    let rebalance = |number| Event::Rebalance {
        tickets: vec![Ticket(number)],
    };
    let actions = script.step(rebalance(1));
    assert_eq!(
        handoffs(&actions),
        [(workers[0], workers[2], 40, false), (workers[0], workers[1], 10, false)]
    );
    let refused = |actions: &[Action]| {
        actions
            .iter()
            .any(|a| matches!(a, Action::RebalanceEnded { outcome: Err(_), .. }))
    };
    assert!(refused(&script.step(rebalance(2))), "one at a time");
    let ended = |actions: Vec<Action>| {
        actions
            .iter()
            .any(|a| matches!(a, Action::RebalanceEnded { outcome: Ok(_), .. }))
    };
    assert!(!ended(script.step(message(workers[0], given(40)))));
    assert!(ended(script.step(message(workers[0], given(10)))));
    assert_eq!(script.fleet.snapshot().handover.unwrap().moved, 50);
    script.step(Event::Scale(2));
    let actions = script.pass(RETIRE_SETTLE + SECOND, &workers);
    // A beat without connections came meanwhile.
    assert_eq!(
        handoffs(&actions),
        [
            (workers[2], workers[0], 1, true),
            (workers[2], workers[1], u64::MAX, true)
        ]
    );
    assert!(drains(&actions, workers[2]));
    assert!(refused(&script.step(rebalance(3))), "not while a worker gives");
}
