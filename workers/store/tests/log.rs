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
    let id = || Some("id one".to_owned());
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
