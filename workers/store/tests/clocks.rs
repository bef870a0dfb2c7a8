//! Redis' clock is set back: keys and leases say then that they have more time left than they were given. What a test sees
//! of that is made here by giving them more; `tests/faults/clock.rs` sets a real clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod support;

use session::Transport;
use std::time::Duration;
use store::{LeaderLease, Poll, PollMode, PostBegin, TailEvent};
use support::{PING_INTERVAL, PING_TIMEOUT, Redis, TTL, World, entries, record, run, sid};
use tokio::time::{Instant, timeout};

const HOUR_MS: i64 = 3_600_000;

fn redis(world: &World) -> &Redis {
    match world {
        World::Redis(redis) => redis,
        World::Memory(_) => panic!("in Redis"),
    }
}

/// The key has an hour left.
fn prolong(world: &World, key: &str) {
    let set: i64 = redis(world).run(&["PEXPIRE", key, &HOUR_MS.to_string()]);
    assert_eq!(set, 1, "{key}");
}

/// A time that stands in a hash is an hour later.
fn postpone(world: &World, key: &str, field: &str) {
    let _: i64 = redis(world).run(&["HINCRBY", key, field, &HOUR_MS.to_string()]);
}

fn poll_key(n: u8) -> String {
    format!("socketio:poll:{{{}}}", sid(n).as_str())
}

#[test]
fn canaries_pass_whatever_their_lock_says() {
    run(async {
        let world = World::Redis(Redis::volatile());
        let (_store, mut tail) = world.worker("a").await;
        for change in ["PEXPIRE", "PERSIST"] {
            // Between two canaries the lock may be gone for a moment.
            loop {
                let words = ["PEXPIRE", "socketio:log:canary", "3600000"];
                let words = if change == "PERSIST" {
                    vec![change, words[1]]
                } else {
                    words.to_vec()
                };
                if redis(&world).run::<i64>(&words) == 1 {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let heard = async { while !matches!(tail.next().await, TailEvent::Canary { .. }) {} };
            // The interval is 200 ms here. One canary may have been on its way.
            timeout(Duration::from_secs(2), heard).await.expect(change);
            let heard = async { while !matches!(tail.next().await, TailEvent::Canary { .. }) {} };
            timeout(Duration::from_secs(2), heard).await.expect(change);
        }
    });
}

#[test]
fn a_lease_without_an_owner_ends_in_time() {
    run(async {
        let world = World::Redis(Redis::volatile());
        let (a, _tail_a) = world.worker("a").await;
        let (b, _tail_b) = world.worker("b").await;
        let ingest = |store: &store::Store| store.ingest(store::IngestNames::default()).unwrap();
        let (first, second) = (ingest(&a), ingest(&b));
        assert!(matches!(first.renew_lease().await.unwrap(), LeaderLease::Ours));
        prolong(&world, "socketio:ingest:leader");
        let begun = Instant::now();
        // It may live, so it is given its time: no other worker leads beside it.
        assert!(matches!(second.renew_lease().await.unwrap(), LeaderLease::Anothers(_)));
        support::eventually("the lease is free", async || {
            matches!(second.renew_lease().await.unwrap(), LeaderLease::Ours)
        })
        .await;
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(1000) && took < Duration::from_secs(4),
            "{took:?}"
        );
    });
}

/// No ping is due while a test waits for an overlap.
const CALM: Duration = Duration::from_secs(20);

fn calm(options: &mut store::Options) {
    (options.ping_interval, options.ping_timeout, options.session_ttl) = (CALM, CALM, 2 * CALM);
}

#[test]
fn leases_without_a_holder_end() {
    run(async {
        let world = World::Redis(Redis::volatile());
        let (a, tail) = world.worker_with("a", calm).await;
        let (b, _tail_b) = world.worker_with("b", calm).await;
        let head = tail.position();
        let session = record(1, Transport::Polling, "a");
        let id = session.sid.clone();
        a.create(&session, head, 2 * CALM).await.unwrap();
        // A POST and a GET that never end.
        assert!(matches!(
            a.post_begin(&id, a.request(), None).await.unwrap(),
            PostBegin::Go { .. }
        ));
        let parked = a.poll(&id, a.request(), PollMode::Begin, head, None).await.unwrap();
        assert!(matches!(parked, Poll::Parked { .. }), "{parked:?}");
        let overlap = b.post_begin(&id, b.request(), None).await.unwrap();
        assert!(matches!(overlap, PostBegin::Overlap), "{overlap:?}");
        let key = poll_key(1);
        for field in ["postd", "getd"] {
            postpone(&world, &key, field);
        }
        let begun = b.post_begin(&id, b.request(), None).await.unwrap();
        assert!(matches!(begun, PostBegin::Go { .. }), "{begun:?}");
        let parked = b.poll(&id, b.request(), PollMode::Begin, head, None).await.unwrap();
        assert!(matches!(parked, Poll::Parked { .. }), "{parked:?}");
    });
}

#[test]
fn a_ping_is_not_late() {
    run(async {
        let world = World::Redis(Redis::volatile());
        let (a, tail) = world.worker("a").await;
        let head = tail.position();
        let session = record(1, Transport::Polling, "a");
        let id = session.sid.clone();
        a.create(&session, head, TTL).await.unwrap();
        let key = poll_key(1);
        postpone(&world, &key, "ping");
        prolong(&world, &key);
        let poll = a.poll(&id, a.request(), PollMode::Begin, head, None).await.unwrap();
        assert!(matches!(poll, Poll::Answer { ping: true, .. }), "{poll:?}");
        // The session does not outlive its client for an hour.
        let left: i64 = redis(&world).run(&["PTTL", &key]);
        let liveness = PING_INTERVAL + PING_TIMEOUT;
        assert!(
            left > 0 && left <= i64::try_from(liveness.as_millis()).unwrap(),
            "{left}"
        );
    });
}

/// A clock that goes back by less than a ping's interval cannot be told from one that is right.
#[test]
fn a_ping_that_is_due_by_the_workers_clock_is_sent() {
    run(async {
        let world = World::Redis(Redis::volatile());
        let (a, tail) = world.worker("a").await;
        let head = tail.position();
        let session = record(1, Transport::Polling, "a");
        let id = session.sid.clone();
        a.create(&session, head, TTL).await.unwrap();
        let request = a.request();
        let parked = a.poll(&id, request, PollMode::Begin, head, None).await.unwrap();
        assert!(matches!(parked, Poll::Parked { .. }), "{parked:?}");
        let poll = a.poll(&id, request, PollMode::Ping, head, None).await.unwrap();
        assert!(matches!(poll, Poll::Answer { ping: true, .. }), "{poll:?}");
        // One that is out is not sent twice.
        let request = a.request();
        let parked = a.poll(&id, request, PollMode::Begin, head, None).await.unwrap();
        assert!(matches!(parked, Poll::Parked { ping_in: None, .. }), "{parked:?}");
        let poll = a.poll(&id, request, PollMode::Ping, head, None).await.unwrap();
        assert!(matches!(poll, Poll::Answer { ping: false, .. }), "{poll:?}");
    });
}

/// Marks of another clock tell no age: nothing is taken from the log by them.
#[test]
fn a_clock_that_is_set_takes_nothing_from_the_log() {
    for by in [-HOUR_MS, HOUR_MS] {
        run(async {
            let world = World::Redis(Redis::volatile());
            let (a, mut tail) = world.worker("a").await;
            a.append("recent".into(), None).await.unwrap();
            entries(&mut tail, 1).await;
            // Two marks at least: the former one would be trimmed up to.
            let marks = || redis(&world).run::<Vec<String>>(&["LRANGE", "socketio:log:marks", "0", "-1"]);
            support::eventually("a mark behind the entry", async || {
                marks().last().is_some_and(|mark| mark.ends_with(" 1"))
            })
            .await;
            let moved: Vec<String> = marks()
                .iter()
                .map(|mark| {
                    let (time, rest) = mark.split_once(' ').unwrap();
                    format!("{} {rest}", time.parse::<i64>().unwrap() - by)
                })
                .collect();
            let mut words = vec!["RPUSH", "socketio:log:marks"];
            words.extend(moved.iter().map(String::as_str));
            let _: i64 = redis(&world).run(&["DEL", "socketio:log:marks"]);
            let _: i64 = redis(&world).run(&words);
            support::eventually("marks of the new clock alone", async || {
                let marks = marks();
                marks.len() >= 2 && !marks.iter().any(|mark| moved.contains(mark))
            })
            .await;
            assert_eq!(redis(&world).run::<i64>(&["XLEN", "socketio:log"]), 1, "{by}");
        });
    }
}
