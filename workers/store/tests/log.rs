//! The log, over both backends: order, density, duplicates, ranges, limits.
#![allow(
    clippy::indexing_slicing,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code"
)]

mod support;

use bytes::Bytes;
use session::Offset;
use std::time::Duration;
use store::*;
use support::*;

contract!(
    entries_arrive_in_order_of_the_calls,
    entries_of_several_workers_are_dense,
    the_same_id_is_appended_once,
    ids_of_other_rooms_are_other_ids,
    parts_are_exact,
    parts_are_bounded_in_bytes,
    what_was_trimmed_is_not_read,
    too_large_entries_are_refused,
    canaries_pass,
    a_new_tail_stands_at_the_head,
);

fn text(n: usize) -> Bytes {
    Bytes::from(format!("entry {n}"))
}

async fn entries_arrive_in_order_of_the_calls(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (_b, mut other) = world.worker("b").await;
    let pending: Vec<_> = (0..2000).map(|n| a.append(text(n), None)).collect();
    // Awaited in the opposite order, and one not at all.
    let mut offsets = Vec::new();
    for pending in pending.into_iter().skip(1).rev() {
        offsets.push(pending.await.unwrap().offset);
    }
    offsets.reverse();
    for tail in [&mut tail, &mut other] {
        let seen = entries(tail, 2000).await;
        for (n, (_, entry)) in seen.iter().enumerate() {
            assert_eq!(*entry, format!("entry {n}"));
        }
        assert!(seen.iter().skip(1).map(|(offset, _)| offset).eq(&offsets));
        assert_eq!(tail.position(), *offsets.last().unwrap());
    }
}

async fn entries_of_several_workers_are_dense(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _b) = world.worker("b").await;
    let mut writers = Vec::new();
    for store in [a.clone(), b.clone()] {
        writers.push(tokio::task::spawn_local(async move {
            for n in 0..300 {
                assert!(!store.append(text(n), None).await.unwrap().duplicate);
            }
        }));
    }
    let seen = entries(&mut tail, 600).await;
    assert_eq!(seen.iter().filter(|(_, text)| text == "entry 299").count(), 2);
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn the_same_id_is_appended_once(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _b) = world.worker("b").await;
    let id = || Some(Dedupe::event("/", &["a".to_owned()], "id one"));
    let (first, again, other) = (
        a.append(text(1), id()),
        a.append(text(2), id()),
        a.append(text(3), None),
    );
    let first = first.await.unwrap();
    assert!(!first.duplicate);
    assert_eq!(
        again.await.unwrap(),
        Appended {
            duplicate: true,
            ..first
        }
    );
    assert_eq!(
        other.await.unwrap(),
        Appended {
            offset: first.offset.next(),
            duplicate: false
        }
    );
    assert_eq!(
        b.append(text(4), id()).await.unwrap(),
        Appended {
            duplicate: true,
            ..first
        }
    );
    let seen = entries(&mut tail, 2).await;
    assert_eq!(seen[1].1, "entry 3");
    eventually("the window closes", async || {
        !b.append(text(5), id()).await.unwrap().duplicate
    })
    .await;
}

async fn ids_of_other_rooms_are_other_ids(world: World) {
    let (a, _tail) = world.worker("a").await;
    let id = |rooms: &[&str], id: &str| {
        let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
        Some(Dedupe::event("/", &rooms, id))
    };
    // Builds before this took all of these for one.
    let all = [
        id(&["a|b"], "c"),
        id(&["a", "b"], "c"),
        id(&["a"], "b|c"),
        id(&[], "a|b|c"),
        id(&[r"a\", "b"], "c"),
    ];
    for _ in 0..2 {
        for dedupe in &all {
            let first = a.append(text(1), dedupe.clone()).await.unwrap();
            let again = a.append(text(2), dedupe.clone()).await.unwrap();
            assert!(again.duplicate && again.offset == first.offset, "{dedupe:?}");
        }
    }
    let offsets: std::collections::BTreeSet<_> = {
        let mut offsets = std::collections::BTreeSet::new();
        for dedupe in &all {
            offsets.insert(a.append(text(3), dedupe.clone()).await.unwrap().offset);
        }
        offsets
    };
    assert_eq!(offsets.len(), all.len());
}

/// While a fleet is upgraded, workers of both builds append: what one has appended, the other one knows.
#[tokio::test]
async fn ids_are_known_to_the_build_before_and_its_ids_to_this_one() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let redis = Redis::volatile();
            let (a, _tail) = Store::open(redis.options("a")).await.unwrap();
            let prefix = "socketio:dedupe:";
            let dedupe = |room: &str| Some(Dedupe::event("/", &[room.to_owned()], "c"));
            // The build before wrote this, for room `x|y` or for the rooms `x` and `y`: it counts for whichever asks first.
            let () = redis.run(&["SET", &format!("{prefix}/|x|y|c"), "5-7", "PX", "60000"]);
            let known = a.append(text(1), dedupe("x|y")).await.unwrap();
            assert_eq!((known.offset, known.duplicate), (Offset::new(5, 7), true));
            // What this build writes, the one before finds under its own id, and reads the offset.
            let appended = a.append(text(2), dedupe("p|q")).await.unwrap();
            assert!(!appended.duplicate);
            let former: String = redis.run(&["GET", &format!("{prefix}/|p|q|c")]);
            assert_eq!(former.parse::<Offset>().unwrap(), appended.offset);
            // It is not for this build: the other id that shares it is another event.
            let rooms = ["p".to_owned(), "q".to_owned()];
            let other = a.append(text(3), Some(Dedupe::event("/", &rooms, "c"))).await.unwrap();
            assert!(!other.duplicate, "{other:?}");
            assert!(a.append(text(4), dedupe("p|q")).await.unwrap().duplicate);
            let plain = a.append(text(5), dedupe("plain")).await.unwrap();
            let known: String = redis.run(&["GET", &format!("{prefix}/|plain|c")]);
            assert_eq!(known.parse::<Offset>().unwrap(), plain.offset);
            // The former id of one event may be the id of another: whichever comes first, both are appended, and known.
            let first = a.append(text(6), Some(Dedupe::event("/", &rooms, "d"))).await.unwrap();
            let shared = Some(Dedupe::event("/", &["p|q".to_owned()], "d"));
            let second = a.append(text(7), shared.clone()).await.unwrap();
            assert!(!first.duplicate && !second.duplicate);
            let again = a.append(text(8), Some(Dedupe::event("/", &rooms, "d"))).await.unwrap();
            assert_eq!((again.offset, again.duplicate), (first.offset, true));
            let again = a.append(text(9), shared).await.unwrap();
            assert_eq!((again.offset, again.duplicate), (second.offset, true));
        })
        .await;
}

/// All entries after a position, part by part.
async fn read(store: &Store, after: Offset, upto: Offset) -> Vec<(Offset, Bytes)> {
    let (mut all, mut position) = (Vec::new(), after);
    while position < upto {
        let Part::Entries(some) = store.part(position, upto).await.unwrap() else {
            panic!("{position} to {upto}")
        };
        let Some((last, _)) = some.last() else {
            panic!("a part is not empty")
        };
        position = *last;
        all.extend(some);
    }
    all
}

async fn parts_are_exact(world: World) {
    let (a, tail) = world.worker("a").await;
    let start = tail.position();
    let mut offsets = Vec::new();
    for pending in (0..600).map(|n| a.append(text(n), None)).collect::<Vec<_>>() {
        offsets.push(pending.await.unwrap().offset);
    }
    let all = read(&a, start, offsets[599]).await;
    assert!(all.iter().map(|(offset, _)| offset).eq(&offsets));
    assert_eq!(all[5].1, text(5));
    let some = read(&a, offsets[9], offsets[19]).await;
    assert!(some.iter().map(|(offset, _)| offset).eq(&offsets[10..20]));
    for upto in [offsets[599], offsets[9]] {
        assert_eq!(a.part(offsets[599], upto).await.unwrap(), Part::Entries(vec![]));
    }
    let elsewhere = Offset::new(start.epoch() - 1, 1);
    assert_eq!(a.part(elsewhere, offsets[599]).await.unwrap(), Part::Trimmed);
    let beyond = offsets[599].next();
    assert_eq!(a.part(offsets[599], beyond).await.unwrap(), Part::Trimmed);
    assert_eq!(a.part(Offset::ZERO, offsets[599]).await.unwrap(), Part::Trimmed);
}

/// A part is as large as a batch may be, however many entries there are and however large they are.
async fn parts_are_bounded_in_bytes(world: World) {
    let (a, tail) = world.worker("a").await;
    let start = tail.position();
    let sizes = [
        10, 99_999, 30, 99_999, 99_999, 99_999, 99_999, 5, 99_999, 99_999, 99_999, 7,
    ];
    let mut last = start;
    for size in sizes {
        last = a.append(Bytes::from(vec![b'x'; size]), None).await.unwrap().offset;
    }
    let (mut position, mut seen) = (start, Vec::new());
    while position < last {
        let Part::Entries(some) = a.part(position, last).await.unwrap() else {
            panic!("{position}")
        };
        let bytes: usize = some.iter().map(|(_, entry)| entry.len()).sum();
        assert!(bytes <= 256 << 10, "{bytes}");
        seen.extend(some.iter().map(|(_, entry)| entry.len()));
        let Some((last, _)) = some.last() else {
            panic!("a part is not empty")
        };
        position = *last;
    }
    assert_eq!(seen, sizes);
}

async fn what_was_trimmed_is_not_read(world: World) {
    let (a, tail) = match &world {
        World::Memory(_) => Store::open(Options {
            log_entries_max: 100,
            ..options("a")
        })
        .await
        .unwrap(),
        World::Redis(_) => world.worker_with("a", |o| o.log_entries_max = 100).await,
    };
    let start = tail.position();
    let mut last = start;
    for pending in (0..1000).map(|n| a.append(text(n), None)).collect::<Vec<_>>() {
        last = pending.await.unwrap().offset;
    }
    assert_eq!(a.part(start, last).await.unwrap(), Part::Trimmed);
    let recent = Offset::new(last.epoch(), last.seq() - 50);
    assert_eq!(read(&a, recent, last).await.len(), 50);
}

async fn too_large_entries_are_refused(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let big = Bytes::from(vec![b'x'; 100_001]);
    let refused = a.append(big.clone(), None).await;
    assert_eq!(
        refused,
        Err(AppendError::TooLarge {
            bytes: 100_001,
            max: 100_000
        })
    );
    a.append(big.slice(1..), None).await.unwrap();
    a.append(Bytes::new(), None).await.unwrap();
    let seen = entries(&mut tail, 2).await;
    assert_eq!((seen[0].1.len(), seen[1].1.len()), (100_000, 0));
}

async fn canaries_pass(world: World) {
    let (_a, mut tail) = world.worker("a").await;
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(2), tail.next()).await.unwrap();
        assert!(
            matches!(
                event,
                TailEvent::Canary {
                    behind: 0,
                    took: Some(_)
                }
            ),
            "{event:?}"
        );
    }
}

async fn a_new_tail_stands_at_the_head(world: World) {
    let (a, _tail) = world.worker("a").await;
    let before = a.append(text(1), None).await.unwrap();
    let (_b, mut tail) = world.worker("b").await;
    assert_eq!(tail.position(), before.offset);
    a.append(text(2), None).await.unwrap();
    assert_eq!(
        entries(&mut tail, 1).await,
        [(before.offset.next(), "entry 2".to_owned())]
    );
}
