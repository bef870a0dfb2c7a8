//! The log is bounded in bytes.
#![allow(
    clippy::indexing_slicing,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code"
)]

mod support;

use bytes::Bytes;
use meter::Snapshot;
use session::Offset;
use std::time::Duration;
use store::*;
use support::*;

contract!(the_log_has_no_more_bytes_than_it_may, one_entry_that_is_larger_is_kept);

/// `log.bytes_max` of these tests.
const MAX: usize = 1_000_000;

async fn bounded(world: &World) -> (Store, Tail) {
    let small = |options: &mut Options| {
        options.log_bytes_max = MAX as u64;
        options.entry_bytes_max = 2 * MAX;
    };
    match world {
        World::Memory(_) => {
            let mut options = options("a");
            small(&mut options);
            Store::open(options).await.unwrap()
        }
        World::Redis(_) => world.worker_with("a", small).await,
    }
}

/// Appends an entry of so many bytes; its position.
async fn append(store: &Store, bytes: usize) -> Offset {
    store.append(Bytes::from(vec![b'x'; bytes]), None).await.unwrap().offset
}

/// Bytes of the entries that can be read, from the first that is there to `last`.
async fn kept(store: &Store, last: Offset) -> usize {
    let mut before = Offset::new(last.epoch(), 0);
    while before < last && store.part(before, last).await.unwrap() == Part::Trimmed {
        before = before.next();
    }
    let mut bytes = 0;
    while before < last {
        let Part::Entries(some) = store.part(before, last).await.unwrap() else {
            panic!("a gap after {before}")
        };
        bytes += some.iter().map(|(_, entry)| entry.len()).sum::<usize>();
        before = some.last().unwrap().0;
    }
    bytes
}

/// What the store says of it.
fn told(store: &Store) -> f64 {
    let mut snapshot = Snapshot::default();
    store.counts().read(&mut snapshot);
    snapshot.gauges().get("gw_log_bytes").copied().unwrap_or_default()
}

async fn the_log_has_no_more_bytes_than_it_may(world: World) {
    let (a, _tail) = bounded(&world).await;
    for n in 0..200_usize {
        let size = [1_000, 50_000, 10, 30_000][n % 4];
        let last = append(&a, size).await;
        if n > 150 && n % 7 == 0 {
            let kept = kept(&a, last).await;
            assert!((MAX * 13 / 16..=MAX + 50_000).contains(&kept), "{kept} after {n}");
        }
    }
}

async fn one_entry_that_is_larger_is_kept(world: World) {
    let (a, _tail) = bounded(&world).await;
    for _ in 0..3 {
        append(&a, 10).await;
        let last = append(&a, 2 * MAX).await;
        let kept = kept(&a, last).await;
        assert!((2 * MAX..2 * MAX + MAX / 16).contains(&kept), "{kept}");
    }
}

#[test]
fn batches_of_a_build_that_does_not_count_make_trimming_late_and_no_more() {
    on_redis(async |world: World| {
        let (a, _tail) = bounded(&world).await;
        let World::Redis(redis) = &world else { panic!() };
        let mut last = Offset::ZERO;
        for n in 0..60 {
            last = append(&a, 50_000).await;
            if n % 3 == 0 {
                // As the script of that build does it.
                last = last.next();
                let (id, seq) = (last.to_string(), last.seq().to_string());
                let entry = "y".repeat(10_000);
                redis.run::<String>(&["XADD", "socketio:log", &id, "l", "10000", "e", &entry]);
                redis.run::<u64>(&["HSET", "socketio:log:meta", "seq", &seq, "old", &format!("1 {id} ")]);
            }
        }
        let kept = kept(&a, last).await;
        assert!((MAX * 13 / 16..=MAX * 5 / 4).contains(&kept), "{kept}");
    });
}

#[test]
fn sums_that_were_lost_are_begun_anew() {
    on_redis(async |world: World| {
        let (a, _tail) = bounded(&world).await;
        let World::Redis(redis) = &world else { panic!() };
        for _ in 0..30 {
            append(&a, 50_000).await;
        }
        redis.run::<u64>(&["HDEL", "socketio:log:meta", "bytes", "trimmed"]);
        let mut last = Offset::ZERO;
        for _ in 0..30 {
            last = append(&a, 50_000).await;
        }
        let kept = kept(&a, last).await;
        assert!((MAX * 13 / 16..=MAX + 50_000).contains(&kept), "{kept}");
        let marks: u64 = redis.run(&["LLEN", "socketio:log:sizes"]);
        assert!(marks < 140, "{marks}");
    });
}

#[test]
fn what_is_told_of_it_is_what_is_there() {
    on_redis(async |world: World| {
        let change = |options: &mut Options| {
            options.log_bytes_max = MAX as u64;
            options.log_age_max = Duration::from_secs(1);
            options.canary_interval = Duration::from_millis(50);
        };
        let (a, _tail) = world.worker_with("a", change).await;
        let (b, _other) = world.worker_with("b", change).await;
        for _ in 0..40 {
            append(&a, 50_000).await;
        }
        let range = 750_000.0..=1_050_000.0;
        // Whichever of the two wrote the canary.
        for store in [&a, &b] {
            eventually("bounded", async || range.contains(&told(store))).await;
        }
        // By age as well.
        for store in [&a, &b] {
            eventually("empty", async || told(store) < 1.0).await;
        }
    });
}
