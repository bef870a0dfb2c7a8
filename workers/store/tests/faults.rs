//! Redis in trouble: connections cut, restarts with and without data, silence, refusal.
#![allow(
    clippy::indexing_slicing,
    unreachable_pub,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod support;

use bytes::Bytes;
use session::{Offset, Transport::*};
use std::collections::HashSet;
use std::time::Duration;
use store::*;
use support::*;
use tokio::time::{Instant, sleep, timeout};

fn text(n: usize) -> Bytes {
    Bytes::from(format!("entry {n}"))
}

async fn open(redis: &Redis, me: &str) -> (Store, Tail) {
    Store::open(redis.options(me)).await.unwrap()
}

/// Appends numbered entries, one every millisecond, until told to stop; answers with the
/// acknowledged ones.
fn appending(
    store: &Store,
    stop: &tokio::sync::watch::Receiver<bool>,
) -> tokio::task::JoinHandle<Vec<(usize, Offset)>> {
    let (store, stop) = (store.clone(), stop.clone());
    tokio::task::spawn_local(async move {
        let mut pending = Vec::new();
        for n in 0.. {
            if *stop.borrow() {
                break;
            }
            pending.push((n, tokio::task::spawn_local(store.append(text(n), None))));
            sleep(Duration::from_millis(1)).await;
        }
        let mut done = Vec::new();
        for (n, pending) in pending {
            if let Ok(appended) = pending.await.unwrap() {
                done.push((n, appended.offset));
            }
        }
        done
    })
}

/// Checks that a tail shows every acknowledged entry at its place, and none twice.
async fn check(tail: &mut Tail, acknowledged: &[(usize, Offset)]) {
    let (_, last) = *acknowledged.last().unwrap();
    let mut seen: Vec<(Offset, Bytes)> = Vec::new();
    while tail.position() < last {
        match event(tail).await {
            TailEvent::Entries(some) => seen.extend(some),
            TailEvent::Stalled | TailEvent::Down(_) | TailEvent::Up => {}
            other => panic!("{other:?}"),
        }
    }
    for pair in seen.windows(2) {
        assert_eq!(pair[0].0.next(), pair[1].0, "a gap");
    }
    let texts: HashSet<_> = seen.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(texts.len(), seen.len(), "an entry came twice");
    for (n, offset) in acknowledged {
        let found = seen.iter().find(|(o, _)| o == offset).unwrap();
        assert_eq!(found.1, text(*n));
    }
}

/// What is published to a source meanwhile is lost: no worker waits for the end of a lease that no worker holds.
#[test]
fn a_free_lease_is_taken_at_once() {
    run(async {
        let redis = Redis::volatile();
        let (a, _a_tail) = open(&redis, "a").await;
        let (b, _b_tail) = open(&redis, "b").await;
        let (one, other) = (
            a.ingest(IngestNames::default()).unwrap(),
            b.ingest(IngestNames::default()).unwrap(),
        );
        assert_eq!(one.renew_lease().await.unwrap(), LeaderLease::Ours);
        let LeaderLease::Anothers(left) = other.renew_lease().await.unwrap() else {
            panic!("two lead");
        };
        assert!(left > Ingest::RENEW * 2, "{left:?} left");
        one.step_down().await;
        timeout(PATIENCE, other.lease_free())
            .await
            .expect("told that no worker leads");
        assert_eq!(other.renew_lease().await.unwrap(), LeaderLease::Ours);
        // A worker that was declared dead has said nothing.
        a.mark_dead("b").await.unwrap();
        timeout(PATIENCE, one.lease_free())
            .await
            .expect("the worker that declared it dead knows");
        assert_eq!(one.renew_lease().await.unwrap(), LeaderLease::Ours);
    });
}

#[test]
fn cut_connections_lose_and_double_nothing() {
    run(async {
        let redis = Redis::volatile();
        let (a, mut tail) = open(&redis, "a").await;
        let (b, mut other) = open(&redis, "b").await;
        a.create(&record(1, Websocket, "a"), Offset::ZERO, PATIENCE)
            .await
            .unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let appending = appending(&a, &stopped);
        for n in 0..40 {
            sleep(Duration::from_millis(20)).await;
            let kind = if n % 2 == 0 { "normal" } else { "pubsub" };
            redis.run::<u64>(&["CLIENT", "KILL", "TYPE", kind]);
            // What can be repeated is, on a fresh connection.
            assert!(b.load(&sid(1)).await.unwrap().is_some());
        }
        stop.send(true).unwrap();
        let acknowledged = appending.await.unwrap();
        // However slow the machine: there was something to lose.
        assert!(acknowledged.len() > 50, "{}", acknowledged.len());
        check(&mut tail, &acknowledged).await;
        check(&mut other, &acknowledged).await;
        let head: u64 = redis.run(&["HGET", "socketio:log:meta", "seq"]);
        assert_eq!(head, acknowledged.len() as u64);
    });
}

#[test]
fn a_restart_with_its_data_loses_nothing() {
    run(async {
        let mut redis = Redis::start(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        let lasting = Options {
            ping_timeout: PATIENCE,
            ..redis.options("a")
        };
        let (a, mut tail) = Store::open(lasting).await.unwrap();
        let (_b, mut other) = open(&redis, "b").await;
        a.create(&record(1, Polling, "a"), Offset::ZERO, PATIENCE)
            .await
            .unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let appending = appending(&a, &stopped);
        for _ in 0..2 {
            sleep(Duration::from_millis(150)).await;
            redis.down();
            sleep(Duration::from_millis(150)).await;
            assert!(!a.available());
            assert!(matches!(a.load(&sid(1)).await, Err(StoreError::Unavailable { .. })));
            redis.up();
        }
        sleep(Duration::from_millis(150)).await;
        stop.send(true).unwrap();
        let acknowledged = appending.await.unwrap();
        // However slow the machine: there was something to lose.
        assert!(acknowledged.len() > 50, "{}", acknowledged.len());
        check(&mut tail, &acknowledged).await;
        check(&mut other, &acknowledged).await;
        assert!(a.load(&sid(1)).await.unwrap().is_some());
        assert!(a.available());
        // The scripts are unknown to the new server, and made known again.
        let poll = a
            .poll(&sid(1), a.request(), PollMode::Begin, tail.position(), None)
            .await
            .unwrap();
        assert!(matches!(poll, Poll::Answer { ping: true, .. }), "{poll:?}");
    });
}

#[test]
fn lost_data_are_noticed_by_everybody() {
    run(async {
        let mut redis = Redis::volatile();
        let (a, mut tail) = open(&redis, "a").await;
        let (b, mut other) = open(&redis, "b").await;
        for n in 0..5 {
            a.append(text(n), None).await.unwrap();
        }
        let old = entries(&mut tail, 5).await[4].0;
        entries(&mut other, 5).await;
        redis.down();
        redis.up();
        let new = b.append(text(5), None).await.unwrap().offset;
        assert!(new.epoch() > old.epoch());
        for tail in [&mut tail, &mut other] {
            let mut reset = false;
            while tail.position() < new {
                match event(tail).await {
                    TailEvent::Reset { from, to, reason } => {
                        assert_eq!(
                            (from, to, reason),
                            (old, Offset::new(new.epoch(), 0), ResetReason::RedisLostData)
                        );
                        reset = true;
                    }
                    TailEvent::Entries(some) => assert_eq!(some, [(new, text(5))]),
                    TailEvent::Stalled | TailEvent::Down(_) | TailEvent::Up => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(reset);
        }
        assert_eq!(a.part(old, a.end_of_log().await.unwrap()).await.unwrap(), Part::Trimmed);
        let again = record(1, Websocket, "a");
        assert_eq!(a.restore(&again, PATIENCE).await.unwrap(), Restored::Done);
    });
}

#[test]
fn older_data_begin_a_new_epoch() {
    run(async {
        let redis = Redis::volatile();
        let (a, mut tail) = open(&redis, "a").await;
        for n in 0..5 {
            a.append(text(n), None).await.unwrap();
        }
        let seen = entries(&mut tail, 5).await;
        // As if Redis had come back with what it had before the last two.
        redis.run::<u64>(&["HSET", "socketio:log:meta", "seq", "3"]);
        redis.run::<u64>(&["XTRIM", "socketio:log", "MAXLEN", "0"]);
        let next = a.append(text(5), None).await.unwrap().offset;
        assert!(next.epoch() > seen[4].0.epoch() && next.seq() == 1);
        let reset = event(&mut tail).await;
        assert!(
            matches!(
                reset,
                TailEvent::Reset {
                    reason: ResetReason::RedisLostData,
                    ..
                }
            ),
            "{reset:?}"
        );
        assert_eq!(entries(&mut tail, 1).await[0].0, next);
    });
}

#[test]
fn a_tail_that_was_away_too_long_is_told() {
    run(async {
        let redis = Redis::volatile();
        let few = |me: &str| Options {
            log_entries_max: 100,
            ..redis.options(me)
        };
        let (a, mut tail) = Store::open(few("a")).await.unwrap();
        // Canaries alone would tell; there must be none for the gap to be larger than the log.
        let (stalled, mut away) = Store::open(few("b")).await.unwrap();
        a.append(text(0), None).await.unwrap();
        let from = entries(&mut away, 1).await[0].0;
        redis.run::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        let pending: Vec<_> = (1..=2000).map(|n| a.append(text(n), None)).collect();
        let mut last = from;
        for pending in pending {
            last = pending.await.unwrap().offset;
        }
        drop(stalled);
        let mut trimmed = 0;
        for tail in [&mut tail, &mut away] {
            while tail.position() < last {
                match event(tail).await {
                    TailEvent::Reset {
                        reason: ResetReason::Trimmed,
                        to,
                        ..
                    } => {
                        assert!(to < last);
                        trimmed += 1;
                    }
                    TailEvent::Entries(_) | TailEvent::Stalled | TailEvent::Down(_) | TailEvent::Up => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(trimmed, 2, "both connections were cut");
    });
}

#[test]
fn a_lost_push_is_made_good_by_the_canary() {
    run(async {
        let redis = Redis::volatile();
        let (_a, mut tail) = open(&redis, "a").await;
        let head = tail.position();
        // An entry that was never pushed, as when a subscriber's buffer overflowed.
        let id = head.next().to_string();
        redis.run::<String>(&["XADD", "socketio:log", &id, "l", "7", "e", "entry 1"]);
        redis.run::<u64>(&["HSET", "socketio:log:meta", "seq", &head.next().seq().to_string()]);
        assert_eq!(entries(&mut tail, 1).await, [(head.next(), "entry 1".to_owned())]);
    });
}

#[test]
fn a_tail_that_is_not_read_catches_up_from_the_stream() {
    run(async {
        let redis = Redis::volatile();
        let (a, mut tail) = open(&redis, "a").await;
        // More than a tail holds.
        for n in 0..400u32 {
            let entry = [n.to_string().as_bytes(), &b" "[..], &vec![b'x'; 99_000][..]].concat();
            a.append(entry.into(), None).await.unwrap();
        }
        // As if the reader was busy elsewhere while all of it was pushed.
        sleep(Duration::from_millis(100)).await;
        let seen = entries(&mut tail, 400).await;
        for (n, (_, entry)) in seen.iter().enumerate() {
            assert!(entry.starts_with(&format!("{n} ")));
        }
        a.append(text(1), None).await.unwrap();
        assert_eq!(entries(&mut tail, 1).await[0].1, "entry 1");
    });
}

#[test]
fn the_queue_is_bounded_and_publishing_times_out() {
    run(async {
        let mut redis = Redis::volatile();
        let mut options = redis.options("a");
        options.queue_bytes_max = 10_000;
        options.publish_timeout = Duration::from_millis(400);
        let (a, mut tail) = Store::open(options).await.unwrap();
        redis.down();
        let start = Instant::now();
        let one = a.append(Bytes::from(vec![b'x'; 6000]), None);
        let full = a.append(Bytes::from(vec![b'x'; 6000]), None).await;
        assert!(
            matches!(full, Err(AppendError::QueueFull { max: 10_000, .. })),
            "{full:?}"
        );
        let late = one.await;
        assert!(matches!(late, Err(AppendError::Timeout { .. })), "{late:?}");
        assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
        // The bytes are free again, and later entries go through once Redis is back.
        eventually("room", async || {
            !matches!(a.append(text(1), None).await, Err(AppendError::QueueFull { .. }))
        })
        .await;
        redis.up();
        eventually("redis is used again", async || a.append(text(2), None).await.is_ok()).await;
        loop {
            match event(&mut tail).await {
                TailEvent::Entries(some) => {
                    assert!(
                        some.iter().all(|(_, bytes)| bytes.len() < 6000),
                        "what had failed was appended"
                    );
                    break;
                }
                _ => continue,
            }
        }
    });
}

#[test]
fn a_silent_redis_is_given_up_in_time() {
    run(async {
        let redis = Redis::volatile();
        let mut options = redis.options("a");
        if let Backend::Redis(redis) = &mut options.backend {
            redis.response_timeout = Duration::from_millis(200);
        }
        let (a, mut tail) = Store::open(options).await.unwrap();
        redis.run::<String>(&["CLIENT", "PAUSE", "1500", "ALL"]);
        let start = Instant::now();
        let appended = tokio::task::spawn_local(a.append(text(1), None));
        let loads: Vec<_> = (0..50)
            .map(|_| {
                let a = a.clone();
                tokio::task::spawn_local(async move { a.load(&sid(1)).await })
            })
            .collect();
        for load in loads {
            assert!(matches!(load.await.unwrap(), Err(StoreError::Timeout { .. })));
        }
        assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
        assert!(!a.available());
        // Its batch was sent several times, and is in the log once.
        let offset = appended.await.unwrap().unwrap().offset;
        let second = a.append(text(2), None).await.unwrap().offset;
        assert_eq!(second, offset.next());
        let seen = entries(&mut tail, 2).await;
        assert_eq!(seen[0], (offset, "entry 1".to_owned()));
        eventually("available", async || a.available()).await;
    });
}

#[test]
fn opening_without_redis_fails_at_once_and_shows_no_password() {
    run(async {
        let mut redis = Redis::volatile();
        redis.down();
        let mut options = redis.options("a");
        if let Backend::Redis(redis) = &mut options.backend {
            redis.password = Some("hunter2".to_owned());
        }
        let start = Instant::now();
        let error = Store::open(options.clone()).await.unwrap_err();
        assert!(
            error.passing() && matches!(error, StoreError::Unavailable { .. }),
            "{error}"
        );
        assert!(start.elapsed() < Duration::from_secs(1));
        drop(redis);
        let redis = Redis::start(&["--save", ""]);
        redis.run::<String>(&["CONFIG", "SET", "requirepass", "other"]);
        if let Backend::Redis(to) = &mut options.backend {
            to.endpoint = Endpoint::Unix { path: redis.socket() };
        }
        let error = Store::open(options).await.unwrap_err();
        assert!(!error.passing(), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    });
}

#[test]
fn tls_with_something_else_is_an_error() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(tokio::io::AsyncWriteExt::write_all(&mut stream, b"-ERR no TLS here\r\n").await);
            }
        });
        let mut options = options("a");
        let mut redis = Redis::volatile().options("a").backend;
        if let Backend::Redis(redis) = &mut redis {
            redis.endpoint = Endpoint::Tls {
                host: "localhost".to_owned(),
                port,
            };
        }
        options.backend = redis;
        let error = Store::open(options).await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::NotRedis {
                    speaks: Speaks::Plain,
                    ..
                }
            ),
            "{error:?}"
        );
    });
}

#[test]
fn databases_and_prefixes_are_apart() {
    run(async {
        let redis = Redis::volatile();
        let mut stores = Vec::new();
        for (prefix, db) in [("socketio", 0), ("socketio", 1), ("other", 0)] {
            let mut options = redis.options("a");
            options.prefix = prefix.to_owned();
            if let Backend::Redis(redis) = &mut options.backend {
                redis.db = db;
            }
            stores.push(Store::open(options).await.unwrap());
        }
        for (n, (store, _)) in stores.iter().enumerate() {
            store.append(text(n), None).await.unwrap();
            store
                .create(&record(1, Polling, "a"), Offset::ZERO, PATIENCE)
                .await
                .unwrap();
            assert_eq!(store.count_sessions().await.unwrap(), 1);
        }
        for (n, (_, tail)) in stores.iter_mut().enumerate() {
            assert_eq!(entries(tail, 1).await[0].1, format!("entry {n}"));
            let more = timeout(Duration::from_millis(50), event(tail)).await;
            assert!(more.is_err(), "{more:?}");
        }
        let sessions: Vec<String> = redis.run(&["KEYS", "socketio:session:*"]);
        assert_eq!(sessions, [format!("socketio:session:{{{}}}", sid(1))]);
    });
}

#[test]
fn old_entries_are_trimmed() {
    run(async {
        let redis = Redis::volatile();
        let options = Options {
            log_age_max: Duration::from_millis(300),
            canary_interval: Duration::from_millis(50),
            ..redis.options("a")
        };
        let (a, _tail) = Store::open(options).await.unwrap();
        for pending in (0..2000).map(|n| a.append(text(n), None)).collect::<Vec<_>>() {
            pending.await.unwrap();
        }
        assert!(redis.run::<u64>(&["XLEN", "socketio:log"]) > 0);
        eventually("trimmed", async || redis.run::<u64>(&["XLEN", "socketio:log"]) == 0).await;
        // Bytes are counted now and then: of so few there may be no sum yet.
        let mut fields: Vec<String> = redis.run(&["HKEYS", "socketio:log:meta"]);
        fields.retain(|field| !["epoch", "seq", "bytes", "trimmed"].contains(&field.as_str()));
        assert_eq!(fields, Vec::<String>::new(), "the writer is forgotten with its batches");
        let marks: u64 = redis.run(&["LLEN", "socketio:log:marks"]);
        assert!(marks < 20, "{marks}");
    });
}

#[test]
fn a_redis_that_knows_no_minid_is_trimmed_all_the_same() {
    run(async {
        let redis = Redis::volatile();
        let (a, mut tail) = open(&redis, "a").await;
        let mut offsets = Vec::new();
        for n in 0..3 {
            offsets.push(a.append(text(n), None).await.unwrap().offset);
        }
        entries(&mut tail, 3).await;
        let script = [
            "local redis = { call = redis.call, pcall = function() return { err = 'ERR syntax error' } end }\n",
            include_str!("../scripts/common.lua"),
            include_str!("../scripts/log.lua"),
            "trim(tonumber(ARGV[1]), 2)\nreturn 'done'",
        ];
        let epoch = offsets[0].epoch().to_string();
        redis.run::<String>(&[
            "EVAL",
            &script.concat(),
            "3",
            "socketio:log:meta",
            "socketio:log",
            "socketio:log:sizes",
            &epoch,
        ]);
        let before = Offset::new(offsets[0].epoch(), 0);
        assert_eq!(a.part(before, offsets[2]).await.unwrap(), Part::Trimmed);
        assert!(matches!(a.part(offsets[1], offsets[2]).await.unwrap(), Part::Entries(rest) if rest.len() == 1));
    });
}

#[test]
fn a_full_redis_says_so() {
    run(async {
        let redis = Redis::volatile();
        let (a, _tail) = open(&redis, "a").await;
        redis.run::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
        let full = a.create(&record(1, Polling, "a"), Offset::ZERO, PATIENCE).await;
        assert!(matches!(full, Err(StoreError::OutOfMemory { .. })), "{full:?}");
        let pending = tokio::task::spawn_local(a.append(text(1), None));
        sleep(Duration::from_millis(100)).await;
        redis.run::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
        pending.await.unwrap().unwrap();
    });
}
