//! Notes about sessions in Redis: what is kept of them, what is read.
#![allow(
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code"
)]

mod support;

use std::time::Duration;
use store::*;
use support::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn notes(number: u64, bytes: usize) -> Notes {
    Notes {
        number,
        began_ms: 1_000 + number,
        lost: 0,
        count: 1,
        text: "x".repeat(bytes),
    }
}

fn inspector(redis: &Redis) -> Inspector {
    let Backend::Redis(options) = redis.options("operator").backend else {
        panic!("redis");
    };
    Inspector::new(options, "socketio").unwrap()
}

/// All that is there.
async fn all(inspector: &Inspector) -> Vec<Batch> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let some = inspector.notes(&after).await.unwrap();
        let Some(last) = some.last() else { return all };
        after.clone_from(&last.id);
        all.extend(some);
    }
}

#[test]
fn what_is_too_much_or_too_old_goes() {
    run(async {
        let redis = Redis::volatile();
        let (store, _tail) = Store::open(redis.options("a-0.1")).await.unwrap();
        let bounds = NoteBounds {
            bytes_max: 1 << 20,
            age_max: HOUR,
        };
        for number in 1..=100 {
            store.trace(&notes(number, 32 * 1024), bounds).await.unwrap();
        }
        let inspector = inspector(&redis);
        let kept = all(&inspector).await;
        // The latest, as many as there is room for.
        assert_eq!(kept.len(), 32, "{:?}", kept.len());
        assert_eq!(kept[31].notes.number, 100);
        assert_eq!(kept[0].notes.number, 69);
        assert!(kept.iter().all(|batch| batch.worker == "a-0.1"));
        assert_eq!(redis.run::<u64>(&["LLEN", "socketio:trace:sizes"]), 32);
        for key in ["socketio:trace", "socketio:trace:sizes"] {
            assert!(redis.run::<i64>(&["PTTL", key]) > 0);
        }

        // The list of sizes was evicted: items of unknown size go, except those that others may just have added.
        for number in 101..=400 {
            store.trace(&notes(number, 10), bounds).await.unwrap();
        }
        assert_eq!(all(&inspector).await.len(), 331);
        redis.run::<u64>(&["DEL", "socketio:trace:sizes"]);
        store.trace(&notes(401, 10), bounds).await.unwrap();
        assert_eq!(all(&inspector).await.len(), 256);
        redis.run::<u64>(&["DEL", "socketio:trace"]);

        // Older than the bound.
        let moment = NoteBounds {
            age_max: Duration::from_millis(100),
            ..bounds
        };
        store.trace(&notes(402, 10), bounds).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        store.trace(&notes(403, 10), moment).await.unwrap();
        let kept = all(&inspector).await;
        assert_eq!(kept.len(), 1);
        assert_eq!(
            kept[0].notes,
            Notes {
                count: 0,
                ..notes(403, 10)
            }
        );
        // And the last ones go by themselves.
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(
            redis.run::<Vec<String>>(&["KEYS", "socketio:trace*"]),
            Vec::<String>::new()
        );
    });
}

#[test]
fn new_notes_are_heard() {
    run(async {
        let redis = Redis::volatile();
        let (store, _tail) = Store::open(redis.options("a-0.1")).await.unwrap();
        let bounds = NoteBounds {
            bytes_max: 1 << 20,
            age_max: HOUR,
        };
        store.trace(&notes(1, 10), bounds).await.unwrap();
        let inspector = inspector(&redis);
        let mut new = inspector.follow().await.unwrap();
        let writing = async {
            for number in 2..=4 {
                store.trace(&notes(number, 10), bounds).await.unwrap();
            }
        };
        let reading = async {
            let mut heard = Vec::new();
            while heard.len() < 3 {
                let followed = new.next().await.unwrap();
                heard.extend(followed.notes.into_iter().map(|batch| batch.notes.number));
            }
            heard
        };
        assert_eq!(tokio::join!(writing, reading).1, [2, 3, 4]);
    });
}
