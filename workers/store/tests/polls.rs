//! Sessions that poll, over both backends: leases, confirmation, mail, pings, the upgrade.
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
use session::{Offset, Record, Sid, Transport::*};
use std::time::Duration;
use store::*;
use support::*;
use tokio::time::Instant;

contract!(
    a_poll_parks_and_is_woken_by_mail,
    what_was_sent_is_confirmed_by_the_next_poll,
    a_repeated_poll_gets_the_same_again,
    a_poll_that_a_proxy_repeats_is_no_overlap_and_no_receipt,
    a_post_that_a_proxy_repeats_is_done_once,
    a_post_that_broke_off_is_not_done_again,
    overlapping_polls_end_the_session,
    an_overlap_with_a_living_worker_needs_no_time,
    a_dead_workers_lease_is_void,
    a_released_poll_sent_nothing,
    overlapping_posts_end_the_session,
    a_post_is_finished_once,
    a_worker_that_knows_the_record_posts_at_once,
    a_worker_that_is_behind_posts_nothing,
    a_post_is_fenced_by_the_epoch,
    mail_is_bounded,
    pings_come_when_due_and_pongs_prolong,
    a_session_without_a_pong_ends,
    the_record_is_sent_when_it_changed,
    an_upgrade_ends_polling,
    an_upgrade_can_be_cancelled_or_time_out,
    a_session_that_moved_or_is_unknown_is_reported,
);

const LONG: Duration = Duration::from_secs(20);
/// `HOLDER_GRACE` of the store.
const GRACE: Duration = Duration::from_millis(300);

async fn polling(store: &Store, head: Offset) -> Record {
    let record = record(1, Polling, "a");
    store.create(&record, head, LONG).await.unwrap();
    record
}

fn at(seq: u64) -> Offset {
    Offset::new(9, seq)
}

fn mail(seq: u64, text: &'static str) -> (Offset, Bytes) {
    (at(seq), Bytes::from_static(text.as_bytes()))
}

/// Done, and the record did not change.
const DONE: PostDone = PostDone::Done {
    revision: CREATED_REVISION,
};

async fn post(store: &Store, sid: &Sid, effects: PostEffects<'_>) -> PostDone {
    let request = store.request();
    let begun = store.post_begin(sid, request, None).await.unwrap();
    assert!(matches!(begun, PostBegin::Go { .. }), "{begun:?}");
    store.post_finish(sid, request, effects).await.unwrap()
}

async fn begin(store: &Store, head: Offset) -> (RequestId, Poll) {
    let request = store.request();
    (
        request,
        store.poll(&sid(1), request, PollMode::Begin, head, None).await.unwrap(),
    )
}

async fn parked(store: &Store, head: Offset) -> RequestId {
    match begin(store, head).await {
        (request, Poll::Parked { .. }) => request,
        (_, other) => panic!("{other:?}"),
    }
}

async fn a_poll_parks_and_is_woken_by_mail(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let request = parked(&a, at(5)).await;
    let one = [mail(6, "40{}"), mail(7, "43\u{1e}[]")];
    assert_eq!(
        post(
            &b,
            &sid(1),
            PostEffects {
                mail: &one,
                ..Default::default()
            }
        )
        .await,
        DONE
    );
    woken(&mut tail, &sid(1)).await;
    match a.poll(&sid(1), request, PollMode::Wake, at(8), None).await.unwrap() {
        Poll::Answer {
            after,
            upto,
            mail,
            ping: false,
            noop: false,
            ..
        } => {
            assert_eq!((after, upto), (at(1), at(8)));
            assert_eq!(mail, one);
        }
        other => panic!("{other:?}"),
    }
    let lost = a
        .poll(&sid(1), a.request(), PollMode::Answer, at(8), None)
        .await
        .unwrap();
    assert!(matches!(lost, Poll::LeaseLost), "{lost:?}");
}

async fn what_was_sent_is_confirmed_by_the_next_poll(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let (one, two) = ([mail(2, "one")], [mail(4, "two")]);
    post(
        &a,
        &sid(1),
        PostEffects {
            mail: &one,
            ..Default::default()
        },
    )
    .await;
    let (_, poll) = begin(&a, at(3)).await;
    assert!(
        matches!(poll, Poll::Answer { after, upto, ref mail, .. }
        if after == at(1) && upto == at(3) && mail[..] == one),
        "{poll:?}"
    );
    post(
        &b,
        &sid(1),
        PostEffects {
            mail: &two,
            ..Default::default()
        },
    )
    .await;
    // A worker whose tail is a little behind does not move the cursor back.
    let (_, poll) = begin(&b, at(2)).await;
    assert!(
        matches!(poll, Poll::Answer { after, upto, ref mail, .. }
        if after == at(3) && upto == at(3) && mail[..] == two),
        "{poll:?}"
    );
    let request = parked(&a, at(9)).await;
    let poll = a.poll(&sid(1), request, PollMode::Answer, at(10), None).await.unwrap();
    assert!(
        matches!(poll, Poll::Answer { after, upto, ref mail, .. }
        if after == at(3) && upto == at(10) && mail.is_empty()),
        "{poll:?}"
    );
}

async fn a_repeated_poll_gets_the_same_again(world: World) {
    let (a, _) = world.worker("a").await;
    polling(&a, at(1)).await;
    let one = [mail(2, "one")];
    post(
        &a,
        &sid(1),
        PostEffects {
            mail: &one,
            ..Default::default()
        },
    )
    .await;
    let request = a.request();
    for _ in 0..2 {
        let poll = a.poll(&sid(1), request, PollMode::Begin, at(3), None).await.unwrap();
        assert!(
            matches!(poll, Poll::Answer { after, upto, ref mail, .. }
            if after == at(1) && upto == at(3) && mail[..] == one),
            "{poll:?}"
        );
    }
    let request = parked(&a, at(3)).await;
    for _ in 0..2 {
        let poll = a.poll(&sid(1), request, PollMode::Begin, at(3), None).await.unwrap();
        assert!(matches!(poll, Poll::Parked { after, .. } if after == at(3)), "{poll:?}");
    }
    for _ in 0..2 {
        let poll = a.poll(&sid(1), request, PollMode::Answer, at(4), None).await.unwrap();
        assert!(
            matches!(poll, Poll::Answer { after, upto, .. } if after == at(3) && upto == at(4)),
            "{poll:?}"
        );
    }
}

async fn a_poll_that_a_proxy_repeats_is_no_overlap_and_no_receipt(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let poll = async |store: &Store, request, mode| store.poll(&sid(1), request, mode, at(3), None).await.unwrap();
    let (first, second) = (a.request().repeatable(b"one"), b.request().repeatable(b"one"));
    for (store, request) in [(&a, first), (&b, second)] {
        let parked = poll(store, request, PollMode::Begin).await;
        assert!(matches!(parked, Poll::Parked { .. }), "{parked:?}");
    }
    let lost = poll(&a, first, PollMode::Wake).await;
    assert!(matches!(lost, Poll::LeaseLost), "{lost:?}");
    let one = [mail(2, "one")];
    let effects = PostEffects {
        mail: &one,
        ..Default::default()
    };
    assert_eq!(post(&a, &sid(1), effects).await, DONE);
    // The second one is answered, and its worker dies before the answer has left: a third one, on the same worker or another.
    for (store, request, mode) in [
        (&b, second, PollMode::Wake),
        (&b, b.request().repeatable(b"one"), PollMode::Begin),
        (&a, a.request().repeatable(b"one"), PollMode::Begin),
    ] {
        let answer = poll(store, request, mode).await;
        assert!(
            matches!(answer, Poll::Answer { after, upto, ref mail, .. }
            if after == at(1) && upto == at(3) && mail[..] == one),
            "{answer:?}"
        );
    }
    let next = poll(&b, b.request().repeatable(b"two"), PollMode::Begin).await;
    assert!(matches!(next, Poll::Parked { after, .. } if after == at(3)), "{next:?}");
    let overlap = poll(&a, a.request().repeatable(b"three"), PollMode::Begin).await;
    assert!(matches!(overlap, Poll::Overlap), "{overlap:?}");
}

async fn a_post_that_a_proxy_repeats_is_done_once(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let request = a.request().repeatable(b"one");
    let begun = a.post_begin(&sid(1), request, None).await.unwrap();
    assert!(matches!(begun, PostBegin::Go { .. }), "{begun:?}");
    // As long as it is under way, and its outcome is unknown.
    let post = b
        .post_begin(&sid(1), b.request().repeatable(b"one"), None)
        .await
        .unwrap();
    assert!(matches!(post, PostBegin::Broken), "{post:?}");
    let one = [mail(2, "one")];
    let effects = || PostEffects {
        mail: &one,
        ..Default::default()
    };
    assert_eq!(a.post_finish(&sid(1), request, effects()).await.unwrap(), DONE);
    for store in [&a, &b] {
        let request = store.request().repeatable(b"one");
        let post = store.post_begin(&sid(1), request, None).await.unwrap();
        assert!(matches!(post, PostBegin::Repeated), "{post:?}");
        let done = store.post_at_once(&sid(1), request, CREATED_REVISION, effects()).await;
        assert_eq!(done.unwrap(), PostDone::Repeated);
    }
    let (_, poll) = begin(&a, at(2)).await;
    assert!(
        matches!(poll, Poll::Answer { ref mail, .. } if mail[..] == one),
        "once: {poll:?}"
    );
}

async fn a_post_that_broke_off_is_not_done_again(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    a.post_begin(&sid(1), a.request().repeatable(b"one"), None)
        .await
        .unwrap();
    b.mark_dead("a").await.unwrap();
    let again = b.request().repeatable(b"one");
    let done = b
        .post_at_once(&sid(1), again, CREATED_REVISION, PostEffects::default())
        .await;
    assert_eq!(done.unwrap(), PostDone::Behind);
    let post = b.post_begin(&sid(1), again, None).await.unwrap();
    assert!(matches!(post, PostBegin::Broken), "{post:?}");
    let other = b.request().repeatable(b"two");
    let post = b.post_begin(&sid(1), other, None).await.unwrap();
    assert!(matches!(post, PostBegin::Go { .. }), "{post:?}");
}

async fn overlapping_polls_end_the_session(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let request = parked(&a, at(1)).await;
    let (_, poll) = begin(&b, at(1)).await;
    assert!(matches!(poll, Poll::Overlap), "{poll:?}");
    b.end(&sid(1), None, None).await.unwrap();
    woken(&mut tail, &sid(1)).await;
    let poll = a.poll(&sid(1), request, PollMode::Wake, at(1), None).await.unwrap();
    assert!(matches!(poll, Poll::Ended), "{poll:?}");
    let (_, poll) = begin(&b, at(1)).await;
    assert!(matches!(poll, Poll::Unknown), "{poll:?}");
}

/// A worker that lives on this machine says so: its overlap counts at once.
async fn an_overlap_with_a_living_worker_needs_no_time(world: World) {
    let names = ["alive", "other"].map(|name| format!("{name}-{:016x}", fastrand::u64(..)));
    let (a, _tail) = world.worker(&names[0]).await;
    let (b, _) = world.worker(&names[1]).await;
    let mut quickest = LONG;
    for _ in 0..5 {
        polling(&a, at(1)).await;
        parked(&a, at(1)).await;
        let post = a.post_begin(&sid(1), a.request(), None).await.unwrap();
        assert!(matches!(post, PostBegin::Go { .. }), "{post:?}");
        let begun = Instant::now();
        let (_, poll) = begin(&b, at(1)).await;
        assert!(matches!(poll, Poll::Overlap), "{poll:?}");
        let post = b.post_begin(&sid(1), b.request(), None).await.unwrap();
        assert!(matches!(post, PostBegin::Overlap), "{post:?}");
        quickest = quickest.min(begun.elapsed());
        b.end(&sid(1), None, None).await.unwrap();
    }
    assert!(quickest < GRACE, "{quickest:?}");
}

/// A worker that says nothing may be dead, far away, or of a build that cannot say it: the overlap counts later.
#[test]
fn a_worker_that_says_nothing_is_given_time() {
    on_redis(|world| async move {
        let name = format!("gone-{:016x}", fastrand::u64(..));
        let (a, tail) = world.worker(&name).await;
        let (b, _) = world.worker("b").await;
        polling(&a, at(1)).await;
        parked(&a, at(1)).await;
        drop((a, tail));
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let (_, poll) = begin(&b, at(1)).await;
        assert!(matches!(poll, Poll::Overlap), "{poll:?}");
        assert!(begun.elapsed() >= GRACE, "{:?}", begun.elapsed());
        // News of its death come meanwhile. (A ping has become due.)
        let ((_, poll), dead) = tokio::join!(begin(&b, at(1)), b.mark_dead(&name));
        dead.unwrap();
        assert!(matches!(poll, Poll::Answer { ping: true, .. }), "{poll:?}");
    });
}

async fn a_dead_workers_lease_is_void(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    parked(&a, at(1)).await;
    let post = a.post_begin(&sid(1), a.request(), None).await.unwrap();
    assert!(matches!(post, PostBegin::Go { .. }), "{post:?}");
    let upgrade = a.upgrade_begin(&sid(1), a.request(), LONG).await.unwrap();
    assert!(matches!(upgrade, UpgradeBegin::Go { .. }), "{upgrade:?}");
    let upgrade = b.upgrade_begin(&sid(1), b.request(), LONG).await.unwrap();
    assert!(matches!(upgrade, UpgradeBegin::Busy), "{upgrade:?}");
    b.mark_dead("a").await.unwrap();
    let request = b.request();
    let post = b.post_begin(&sid(1), request, None).await.unwrap();
    assert!(matches!(post, PostBegin::Go { parked: false, .. }), "{post:?}");
    parked(&b, at(1)).await;
    let post = b.post_begin(&sid(1), request, None).await.unwrap();
    assert!(matches!(post, PostBegin::Go { parked: true, .. }), "{post:?}");
    let upgrade = b.upgrade_begin(&sid(1), b.request(), LONG).await.unwrap();
    assert!(matches!(upgrade, UpgradeBegin::Go { .. }), "{upgrade:?}");
}

async fn a_released_poll_sent_nothing(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let request = parked(&a, at(7)).await;
    a.poll_release(&sid(1), a.request()).await.unwrap();
    let (_, poll) = begin(&a, at(7)).await;
    assert!(
        matches!(poll, Poll::Overlap),
        "another's release does nothing: {poll:?}"
    );
    a.end(&sid(1), None, None).await.unwrap();
    polling(&a, at(1)).await;
    let again = parked(&a, at(7)).await;
    assert_ne!(request, again);
    a.poll_release(&sid(1), again).await.unwrap();
    let (_, poll) = begin(&b, at(7)).await;
    assert!(matches!(poll, Poll::Parked { after, .. } if after == at(1)), "{poll:?}");
}

async fn overlapping_posts_end_the_session(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    parked(&a, at(1)).await;
    let first = b.request();
    for _ in 0..2 {
        let post = b.post_begin(&sid(1), first, None).await.unwrap();
        assert!(matches!(post, PostBegin::Go { sent, .. } if sent == at(1)), "{post:?}");
    }
    let post = a.post_begin(&sid(1), a.request(), None).await.unwrap();
    assert!(matches!(post, PostBegin::Overlap), "{post:?}");
    a.end(&sid(1), None, None).await.unwrap();
    woken(&mut tail, &sid(1)).await;
    assert_eq!(
        b.post_finish(&sid(1), first, PostEffects::default()).await.unwrap(),
        PostDone::Gone
    );
    let post = a.post_begin(&sid(1), a.request(), None).await.unwrap();
    assert!(matches!(post, PostBegin::Unknown), "{post:?}");
}

async fn a_post_is_finished_once(world: World) {
    let (a, _) = world.worker("a").await;
    polling(&a, at(1)).await;
    let request = a.request();
    a.post_begin(&sid(1), request, None).await.unwrap();
    let one = [mail(2, "one")];
    for _ in 0..2 {
        let effects = PostEffects {
            mail: &one,
            ..Default::default()
        };
        let done = a.post_finish(&sid(1), request, effects).await.unwrap();
        assert_eq!(done, DONE);
    }
    let (_, poll) = begin(&a, at(2)).await;
    assert!(
        matches!(poll, Poll::Answer { ref mail, .. } if mail[..] == one),
        "{poll:?}"
    );
    let never = a
        .post_finish(&sid(1), a.request(), PostEffects::default())
        .await
        .unwrap();
    assert_eq!(never, PostDone::Gone);
}

async fn a_worker_that_knows_the_record_posts_at_once(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    let mut record = polling(&a, at(1)).await;
    let poll = parked(&a, at(1)).await;
    record.settled = true;
    let one = [mail(2, "one")];
    let effects = || PostEffects {
        record: Some(&record),
        mail: &one,
        ..Default::default()
    };
    let request = b.request();
    for _ in 0..2 {
        let done = b.post_at_once(&sid(1), request, CREATED_REVISION, effects()).await;
        assert_eq!(
            done.unwrap(),
            PostDone::Done {
                revision: CREATED_REVISION + 1
            }
        );
    }
    woken(&mut tail, &sid(1)).await;
    assert!(same(&b.load(&sid(1)).await.unwrap().unwrap(), &record));
    let poll = a.poll(&sid(1), poll, PollMode::Wake, at(2), None).await.unwrap();
    assert!(
        matches!(poll, Poll::Answer { ref mail, .. } if mail[..] == one),
        "once: {poll:?}"
    );
}

async fn a_worker_that_is_behind_posts_nothing(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    let record = polling(&a, at(1)).await;
    let one = [mail(2, "one")];
    let effects = || PostEffects {
        mail: &one,
        ..Default::default()
    };
    let behind = async |revision| b.post_at_once(&sid(1), b.request(), revision, effects()).await.unwrap();
    assert_eq!(behind(CREATED_REVISION + 1).await, PostDone::Behind, "another revision");
    let request = a.request();
    a.post_begin(&sid(1), request, None).await.unwrap();
    assert_eq!(behind(CREATED_REVISION).await, PostDone::Behind, "a POST is under way");
    let done = a.post_finish(&sid(1), request, PostEffects::default()).await;
    assert_eq!(done.unwrap(), DONE, "and was not disturbed");
    assert!(
        matches!(begin(&a, at(2)).await.1, Poll::Parked { .. }),
        "there is no mail"
    );
    a.end(&sid(1), Some(record.epoch), None).await.unwrap();
    assert_eq!(behind(CREATED_REVISION).await, PostDone::Behind, "no session");
}

async fn a_post_is_fenced_by_the_epoch(world: World) {
    let (a, _) = world.worker("a").await;
    let mut record = polling(&a, at(1)).await;
    let request = a.request();
    a.post_begin(&sid(1), request, None).await.unwrap();
    let late = record.clone();
    record.epoch = 2;
    a.save(&record, 1, LONG).await.unwrap();
    let one = [mail(2, "one")];
    let effects = PostEffects {
        record: Some(&late),
        mail: &one,
        ..Default::default()
    };
    assert_eq!(
        a.post_finish(&sid(1), request, effects).await.unwrap(),
        PostDone::Fenced { current: 2 }
    );
    parked(&a, at(1)).await;
    assert_eq!(
        post(&a, &sid(1), PostEffects::default()).await,
        PostDone::Done {
            revision: CREATED_REVISION + 1
        },
        "the lease is free"
    );
}

async fn mail_is_bounded(world: World) {
    // So much mail takes time: no ping is to fall due meanwhile.
    let (a, mut tail) = world
        .worker_with("a", |options| options.ping_interval = Duration::from_secs(60))
        .await;
    polling(&a, at(1)).await;
    let big = [(at(2), Bytes::from(vec![b'x'; 3 << 20]))];
    let effects = || PostEffects {
        mail: &big,
        ..Default::default()
    };
    for _ in 0..2 {
        assert_eq!(post(&a, &sid(1), effects()).await, DONE);
        let (_, poll) = begin(&a, at(2)).await;
        assert!(matches!(poll, Poll::Answer { .. }), "{poll:?}");
        parked(&a, at(2)).await;
        woken_none(&mut tail).await;
        a.poll_release(&sid(1), a.request()).await.unwrap();
        a.end(&sid(1), None, None).await.unwrap();
        polling(&a, at(1)).await;
        woken(&mut tail, &sid(1)).await;
    }
    for _ in 0..2 {
        assert_eq!(post(&a, &sid(1), effects()).await, DONE);
    }
    assert_eq!(post(&a, &sid(1), effects()).await, PostDone::Full);
    assert!(a.load(&sid(1)).await.unwrap().is_none());
}

async fn woken_none(tail: &mut Tail) {
    let quiet = tokio::time::timeout(Duration::from_millis(50), event(tail)).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

async fn pings_come_when_due_and_pongs_prolong(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let record = record(1, Polling, "a");
    a.create(&record, at(1), TTL).await.unwrap();
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < TTL * 2 {
        let (request, poll) = begin(&a, at(1)).await;
        let Poll::Parked {
            ping_in: Some(ping_in), ..
        } = poll
        else {
            panic!("{poll:?}")
        };
        assert!(ping_in <= PING_INTERVAL);
        tokio::time::sleep(ping_in).await;
        let poll = a.poll(&sid(1), request, PollMode::Answer, at(1), None).await.unwrap();
        assert!(matches!(poll, Poll::Answer { ping: true, .. }), "{poll:?}");
        let (request, poll) = begin(&a, at(1)).await;
        assert!(matches!(poll, Poll::Parked { ping_in: None, .. }), "{poll:?}");
        assert_eq!(
            post(
                &a,
                &sid(1),
                PostEffects {
                    pong: true,
                    ..Default::default()
                }
            )
            .await,
            DONE
        );
        woken(&mut tail, &sid(1)).await;
        let poll = a.poll(&sid(1), request, PollMode::Wake, at(1), None).await.unwrap();
        assert!(
            matches!(poll, Poll::Parked { ping_in: Some(_), expires_in, .. } if expires_in > PING_TIMEOUT),
            "{poll:?}"
        );
        a.poll_release(&sid(1), request).await.unwrap();
        pings += 1;
    }
    assert!(pings >= 2);
}

async fn a_session_without_a_pong_ends(world: World) {
    let (a, _) = world.worker("a").await;
    let record = record(1, Polling, "a");
    a.create(&record, at(1), TTL).await.unwrap();
    let (request, poll) = begin(&a, at(1)).await;
    let Poll::Parked { expires_in, .. } = poll else {
        panic!("{poll:?}")
    };
    assert!(expires_in <= TTL);
    // Neither saving nor posting is a pong.
    let mut changed = record.clone();
    changed.worker = "x".to_owned();
    assert_eq!(a.save(&changed, 1, LONG).await.unwrap(), Saved::Done);
    assert_eq!(
        post(
            &a,
            &sid(1),
            PostEffects {
                record: Some(&record),
                ..Default::default()
            }
        )
        .await,
        PostDone::Done {
            revision: CREATED_REVISION + 2
        }
    );
    eventually("it expires", async || a.load(&sid(1)).await.unwrap().is_none()).await;
    let poll = a.poll(&sid(1), request, PollMode::Wake, at(1), None).await.unwrap();
    assert!(matches!(poll, Poll::Ended), "{poll:?}");
}

async fn the_record_is_sent_when_it_changed(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    let mut record = polling(&a, at(1)).await;
    let (request, poll) = begin(&a, at(1)).await;
    let Poll::Parked {
        record: Some(_),
        revision,
        ..
    } = poll
    else {
        panic!("{poll:?}")
    };
    let poll = a
        .poll(&sid(1), request, PollMode::Wake, at(1), Some(revision))
        .await
        .unwrap();
    assert!(matches!(poll, Poll::Parked { record: None, .. }), "{poll:?}");
    let begun = b.post_begin(&sid(1), b.request(), Some(revision)).await.unwrap();
    assert!(matches!(begun, PostBegin::Go { record: None, .. }), "{begun:?}");
    record.worker = "x".to_owned();
    assert_eq!(b.save(&record, 1, LONG).await.unwrap(), Saved::Done);
    woken(&mut tail, &sid(1)).await;
    match a
        .poll(&sid(1), request, PollMode::Wake, at(1), Some(revision))
        .await
        .unwrap()
    {
        Poll::Parked {
            record: Some(new),
            revision: later,
            ..
        } => {
            assert!(same(&new, &record) && later > revision);
        }
        other => panic!("{other:?}"),
    }
}

async fn an_upgrade_ends_polling(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    polling(&a, at(1)).await;
    let (one, two) = ([mail(2, "one")], [mail(4, "two")]);
    post(
        &a,
        &sid(1),
        PostEffects {
            mail: &one,
            ..Default::default()
        },
    )
    .await;
    begin(&a, at(3)).await;
    let poll = parked(&a, at(3)).await;
    let ws = b.request();
    let begun = b.upgrade_begin(&sid(1), ws, LONG).await.unwrap();
    assert!(matches!(begun, UpgradeBegin::Go { .. }), "{begun:?}");
    assert_eq!(a.upgrade_probed(&sid(1), a.request()).await.unwrap(), UpgradeStep::Gone);
    assert_eq!(b.upgrade_probed(&sid(1), ws).await.unwrap(), UpgradeStep::Done);
    woken(&mut tail, &sid(1)).await;
    let answer = a.poll(&sid(1), poll, PollMode::Wake, at(3), None).await.unwrap();
    assert!(
        matches!(answer, Poll::Answer { noop: true, ref mail, .. } if mail.is_empty()),
        "{answer:?}"
    );
    // A POST during the upgrade is accepted, and delays its end.
    let late = a.request();
    assert!(matches!(
        a.post_begin(&sid(1), late, None).await.unwrap(),
        PostBegin::Go { .. }
    ));
    assert!(matches!(
        b.upgrade_finish(&sid(1), ws).await.unwrap(),
        UpgradeFinish::Busy
    ));
    a.post_finish(
        &sid(1),
        late,
        PostEffects {
            mail: &two,
            ..Default::default()
        },
    )
    .await
    .unwrap();
    for _ in 0..2 {
        match b.upgrade_finish(&sid(1), ws).await.unwrap() {
            UpgradeFinish::Done { after, mail, record } => {
                assert_eq!((after, record.transport), (at(3), Polling));
                assert_eq!(mail, two);
            }
            other => panic!("{other:?}"),
        }
    }
    let mut moved = record(1, Websocket, "b");
    moved.epoch = 2;
    assert_eq!(b.save(&moved, 1, LONG).await.unwrap(), Saved::Done);
    let (_, poll) = begin(&a, at(3)).await;
    assert!(
        matches!(poll, Poll::Moved(ref record) if record.transport == Websocket),
        "{poll:?}"
    );
    let begun = a.upgrade_begin(&sid(1), a.request(), LONG).await.unwrap();
    assert!(matches!(begun, UpgradeBegin::Moved(_)), "{begun:?}");
}

async fn an_upgrade_can_be_cancelled_or_time_out(world: World) {
    let (a, _) = world.worker("a").await;
    polling(&a, at(1)).await;
    let first = a.request();
    a.upgrade_begin(&sid(1), first, LONG).await.unwrap();
    a.upgrade_probed(&sid(1), first).await.unwrap();
    let (_, poll) = begin(&a, at(1)).await;
    assert!(matches!(poll, Poll::Answer { noop: true, .. }), "{poll:?}");
    assert_eq!(a.upgrade_cancel(&sid(1), first).await.unwrap(), UpgradeStep::Done);
    let request = parked(&a, at(1)).await;
    a.poll_release(&sid(1), request).await.unwrap();
    assert!(matches!(
        a.upgrade_finish(&sid(1), first).await.unwrap(),
        UpgradeFinish::Gone
    ));
    let second = a.request();
    a.upgrade_begin(&sid(1), second, Duration::from_millis(100))
        .await
        .unwrap();
    a.upgrade_probed(&sid(1), second).await.unwrap();
    eventually("it times out", async || {
        let begun = a
            .upgrade_begin(&sid(1), a.request(), Duration::from_millis(1))
            .await
            .unwrap();
        matches!(begun, UpgradeBegin::Go { .. })
    })
    .await;
    assert!(matches!(
        a.upgrade_finish(&sid(1), second).await.unwrap(),
        UpgradeFinish::Gone
    ));
    parked(&a, at(1)).await;
}

async fn a_session_that_moved_or_is_unknown_is_reported(world: World) {
    let (a, _) = world.worker("a").await;
    a.create(&record(2, Websocket, "a"), at(1), LONG).await.unwrap();
    let poll = a
        .poll(&sid(2), a.request(), PollMode::Begin, at(1), None)
        .await
        .unwrap();
    assert!(matches!(poll, Poll::Moved(_)), "{poll:?}");
    let post = a.post_begin(&sid(2), a.request(), None).await.unwrap();
    assert!(matches!(post, PostBegin::Moved(_)), "{post:?}");
    let post = a.post_begin(&sid(3), a.request(), None).await.unwrap();
    assert!(matches!(post, PostBegin::Unknown), "{post:?}");
    let upgrade = a.upgrade_begin(&sid(3), a.request(), LONG).await.unwrap();
    assert!(matches!(upgrade, UpgradeBegin::Unknown), "{upgrade:?}");
}
