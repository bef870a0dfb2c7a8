//! Ids that requests come with: which of them tell a repetition, over both backends.
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
use std::time::Duration;
use store::*;
use support::*;

contract!(
    an_id_that_all_requests_have_repeats_nothing,
    a_telling_id_is_believed_whatever_the_handshake_had,
);

const LONG: Duration = Duration::from_secs(20);

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

/// What an application adds to the query of all requests.
const CONSTANT: &[u8] = b"a-token";

async fn polling_for(store: &Store, handshake: RequestId, head: Offset) {
    let record = record(1, Polling, "a");
    store
        .create_for(&record, &[store.request(), handshake], head, LONG)
        .await
        .unwrap();
}

/// A client of which every request has the same id is served like one without ids: its POSTs are done, each of them, and
/// its polls get what is new.
async fn an_id_that_all_requests_have_repeats_nothing(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    // Its handshake had it, or had another, or none.
    for first in [Some(CONSTANT), Some(b"another".as_slice()), None] {
        let handshake = first.map_or_else(|| a.request(), |id| a.request().repeatable(id));
        polling_for(&a, handshake, at(1)).await;
        let mut head = 1;
        for (n, store) in [&a, &b, &b, &a, &a].into_iter().enumerate() {
            let request = store.request().repeatable(CONSTANT);
            let poll = store.poll(&sid(1), request, PollMode::Begin, at(head), None).await;
            assert!(matches!(poll, Ok(Poll::Parked { .. })), "{first:?} {n}: {poll:?}");
            let post = store.request().repeatable(CONSTANT);
            let begun = store.post_begin(&sid(1), post, None).await.unwrap();
            assert!(matches!(begun, PostBegin::Go { .. }), "{first:?} {n}: {begun:?}");
            let one = [mail(head, "one")];
            let effects = PostEffects {
                mail: &one,
                ..Default::default()
            };
            assert_eq!(store.post_finish(&sid(1), post, effects.clone()).await.unwrap(), DONE);
            let whole = store.request().repeatable(CONSTANT);
            let done = store.post_at_once(&sid(1), whole, CREATED_REVISION, effects).await;
            assert_eq!(done.unwrap(), DONE, "{first:?} {n}");
            head += 1;
            let answer = store.poll(&sid(1), request, PollMode::Wake, at(head), None).await;
            assert!(
                matches!(answer, Ok(Poll::Answer { ref mail, upto, .. }) if mail.len() == 2 && upto == at(head)),
                "{first:?} {n}: {answer:?}"
            );
        }
    }
}

/// The ids that tell requests apart go on doing so if the handshake had one as well, as that of a stock client has.
async fn a_telling_id_is_believed_whatever_the_handshake_had(world: World) {
    let (a, _) = world.worker("a").await;
    polling_for(&a, a.request().repeatable(b"zero"), at(1)).await;
    let post = a.request().repeatable(b"one");
    a.post_begin(&sid(1), post, None).await.unwrap();
    let done = a.post_finish(&sid(1), post, PostEffects::default()).await.unwrap();
    assert_eq!(done, DONE);
    let again = a.post_begin(&sid(1), a.request().repeatable(b"one"), None).await;
    assert!(matches!(again, Ok(PostBegin::Repeated)), "{again:?}");
}
