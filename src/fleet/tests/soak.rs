//! A reload's first worker, and what it says of itself.

use super::*;

/// A reload with a soak of two seconds, its canary ready.
fn soaking(script: &mut Script) -> (WorkerId, WorkerId) {
    let old = script.latest(0);
    let policy = Policy {
        soak: SECOND * 2,
        ..policy(2)
    };
    script.step(Event::Reload {
        tickets: vec![Ticket(7)],
        policy,
    });
    let canary = script.latest(0);
    assert!(!drains(&script.ready(canary), old), "it soaks first");
    (old, canary)
}

#[test]
fn a_canary_that_soaked_takes_its_place() {
    let mut script = Script::serving(2);
    let (old, canary) = soaking(&mut script);
    let alive = [old, canary, script.latest(1)];
    script.pass(Duration::from_millis(1_900), &alive);
    assert_eq!(script.spawned.len(), 3, "the other slot waits");
    let actions = script.pass(Duration::from_millis(200), &alive);
    assert!(drains(&actions, old));
    // Only the first one soaks.
    let other = script.latest(1);
    assert!(drains(&script.ready(other), alive[2]));
    assert_eq!(script.fleet.snapshot().generation, 2);
}

#[test]
fn a_canary_that_dies_in_the_soak_changes_nothing() {
    let mut script = Script::serving(2);
    let (old, canary) = soaking(&mut script);
    script.pass(SECOND, &[old, canary, script.latest(1)]);
    let actions = script.exit(canary, 70);
    assert!(actions.contains(&Action::ReloadEnded {
        tickets: vec![Ticket(7)],
        outcome: Err("slot 0, generation 2: exit 70".to_owned())
    }));
    assert!(!drains(&actions, old));
    assert_eq!(script.states(), [(0, "ready"), (1, "ready")]);
    assert_eq!(script.spawned.len(), 3, "no worker was replaced");
}

/// What comes of a reload whose canary, and the workers that serve, say that these checks fail.
fn outcome_of(canary_says: &Beat, others_say: &Beat) -> Result<(), String> {
    let mut script = Script::serving(2);
    let (old, canary) = soaking(&mut script);
    let others = [old, script.latest(1)];
    let mut actions = Vec::new();
    for _ in 0..140 {
        for other in others {
            actions.extend(script.step(message(other, ToSupervisor::Beat(others_say.clone()))));
        }
        actions.extend(script.step(message(canary, ToSupervisor::Beat(canary_says.clone()))));
        actions.extend(script.pass(Duration::from_millis(250), &[]));
    }
    if drains(&actions, old) {
        return Ok(());
    }
    assert!(actions.contains(&Action::Abort { worker: canary }));
    let ended = actions.into_iter().find_map(|action| {
        if let Action::ReloadEnded { outcome, .. } = action {
            outcome.err()
        } else {
            None
        }
    });
    Err(ended.expect("an outcome"))
}

fn failing(ready: bool, names: &[&str]) -> Beat {
    Beat {
        ready,
        failing: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Beat::default()
    }
}

#[test]
fn a_canary_that_does_not_stay_ready_is_given_up() {
    let failed = |names| {
        Err(format!(
            "slot 0, generation 2: did not stay ready, /api/ready fails: {names}"
        ))
    };
    let good = failing(true, &[]);
    assert_eq!(outcome_of(&Beat::default(), &good), failed("redis or log"));
    assert_eq!(outcome_of(&failing(false, &["redis"]), &good), failed("redis"));
    // Without Redis no client is served, whichever other worker says so.
    assert_eq!(
        outcome_of(&failing(false, &["redis"]), &failing(false, &["redis"])),
        failed("redis")
    );
}

#[test]
fn a_check_that_fails_counts_if_it_passes_beside_it() {
    let failed = |names| {
        Err(format!(
            "slot 0, generation 2: did not stay ready, /api/ready fails: {names}"
        ))
    };
    let (both, one) = (failing(true, &["database", "ollama"]), failing(true, &["ollama"]));
    assert_eq!(outcome_of(&both, &failing(true, &[])), failed("database, ollama"));
    assert_eq!(outcome_of(&both, &one), failed("database"));
    assert_eq!(outcome_of(&one, &both), Ok(()));
    assert_eq!(outcome_of(&both, &both), Ok(()));
}

#[test]
fn a_worker_that_is_not_ready_is_shown() {
    let mut script = Script::serving(2);
    let sick = script.latest(1);
    script.step(message(sick, ToSupervisor::Beat(failing(true, &["database"]))));
    assert_eq!(script.states(), [(0, "ready"), (1, "unready")]);
    script.step(message(sick, ToSupervisor::Beat(beat())));
    assert_eq!(script.states(), [(0, "ready"), (1, "ready")]);
}

#[test]
fn a_worker_that_is_not_ready_in_time_says_why() {
    let mut script = Script::serving(2);
    let policy = policy(2);
    script.step(Event::Reload {
        tickets: vec![Ticket(7)],
        policy,
    });
    let (canary, alive) = (script.latest(0), [script.spawned[0].0, script.latest(1)]);
    let reason = "redis://127.0.0.1:1/0: connection refused".to_owned();
    script.step(message(canary, ToSupervisor::Waiting { reason }));
    let actions = script.pass(SECOND * 31, &alive);
    let outcome = "slot 0, generation 2: not ready within 30000 ms: redis://127.0.0.1:1/0: connection refused";
    assert!(
        actions.contains(&Action::ReloadEnded {
            tickets: vec![Ticket(7)],
            outcome: Err(outcome.to_owned())
        }),
        "{actions:?}"
    );
}
