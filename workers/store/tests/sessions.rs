//! Sessions, over both backends: lifetime, fencing, resume, the sessions of dead workers.
#![allow(clippy::indexing_slicing, unreachable_pub, clippy::unwrap_used, reason = "test code")]

mod support;

use session::{Offset, Pid, Transport::*};
use std::time::Duration;
use store::{Restored, Saved, Touched};
use support::*;

contract!(
    a_session_lives_while_it_is_touched,
    a_late_writer_is_fenced,
    a_lost_record_is_restored_once,
    a_session_that_was_ended_can_be_kept,
    ending_respects_the_epoch,
    a_pid_moves_from_session_to_session,
    a_lost_session_is_taken_over,
    sessions_of_a_dead_worker_are_swept,
);

async fn a_session_lives_while_it_is_touched(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    let written = record(1, Websocket, "a");
    a.create(&written, Offset::ZERO, TTL).await.unwrap();
    assert!(same(&b.load(&sid(1)).await.unwrap().unwrap(), &written));
    assert_eq!(b.count_sessions().await.unwrap(), 1);
    let touches = 3;
    for _ in 0..touches {
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(b.touch(&sid(1), TTL).await.unwrap(), Touched::Alive);
    }
    eventually("it expires", async || b.load(&sid(1)).await.unwrap().is_none()).await;
    assert_eq!(b.touch(&sid(1), TTL).await.unwrap(), Touched::Gone);
    assert_eq!(a.save(&written, 1, TTL).await.unwrap(), Saved::Gone);
    assert_eq!(b.count_sessions().await.unwrap(), 0);
}

async fn a_late_writer_is_fenced(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    let mut mine = record(1, Websocket, "a");
    a.create(&mine, Offset::ZERO, PATIENCE).await.unwrap();
    let mut theirs = mine.clone();
    theirs.epoch = 2;
    theirs.worker = "b".to_owned();
    assert_eq!(b.save(&theirs, 1, PATIENCE).await.unwrap(), Saved::Done);
    assert_eq!(
        b.save(&theirs, 1, PATIENCE).await.unwrap(),
        Saved::Done,
        "the same once more"
    );
    mine.worker = "late".to_owned();
    assert_eq!(a.save(&mine, 1, PATIENCE).await.unwrap(), Saved::Fenced { current: 2 });
    assert!(same(&a.load(&sid(1)).await.unwrap().unwrap(), &theirs));
}

async fn a_lost_record_is_restored_once(world: World) {
    let (a, _) = world.worker("a").await;
    let mut record = record(1, Websocket, "a");
    assert_eq!(a.restore(&record, PATIENCE).await.unwrap(), Restored::Done);
    record.epoch = 9;
    assert_eq!(a.restore(&record, PATIENCE).await.unwrap(), Restored::Present);
    assert_eq!(a.load(&sid(1)).await.unwrap().unwrap().epoch, 1);
}

async fn a_session_that_was_ended_can_be_kept(world: World) {
    let (a, _) = world.worker("a").await;
    let record = record(1, Websocket, "a");
    let pid = Pid::new(&sid(1), [7; 12]);
    a.create(&record, Offset::ZERO, PATIENCE).await.unwrap();
    assert!(same(&a.resolve(&pid).await.unwrap().unwrap(), &record), "a living one");
    a.end(&sid(1), Some(1), Some((&record, Duration::from_millis(300))))
        .await
        .unwrap();
    assert!(a.load(&sid(1)).await.unwrap().is_none());
    assert!(same(&a.resolve(&pid).await.unwrap().unwrap(), &record), "a lost one");
    eventually("the window closes", async || a.resolve(&pid).await.unwrap().is_none()).await;
    a.create(&record, Offset::ZERO, PATIENCE).await.unwrap();
    a.end(&sid(1), None, None).await.unwrap();
    assert!(a.resolve(&pid).await.unwrap().is_none(), "left for good");
}

async fn ending_respects_the_epoch(world: World) {
    let (a, _) = world.worker("a").await;
    let mut record = record(1, Websocket, "a");
    record.epoch = 5;
    a.create(&record, Offset::ZERO, PATIENCE).await.unwrap();
    a.end(&sid(1), Some(4), None).await.unwrap();
    assert!(a.load(&sid(1)).await.unwrap().is_some());
    a.end(&sid(1), Some(5), None).await.unwrap();
    assert!(a.load(&sid(1)).await.unwrap().is_none());
}

async fn a_pid_moves_from_session_to_session(world: World) {
    let (a, mut tail) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    let old = record(1, Polling, "a");
    let pid = Pid::new(&sid(1), [7; 12]);
    a.create(&old, Offset::ZERO, PATIENCE).await.unwrap();
    a.poll(&sid(1), a.request(), store::PollMode::Begin, Offset::ZERO, None)
        .await
        .unwrap();
    let new = record(2, Polling, "b");
    b.create(&new, Offset::ZERO, PATIENCE).await.unwrap();
    let mut edited = old.clone();
    edited.epoch = 2;
    let take = async || {
        b.takeover(&pid, Some(&edited), &sid(1), 1, &sid(2), PATIENCE)
            .await
            .unwrap()
    };
    assert_eq!(take().await, Saved::Done);
    assert_eq!(take().await, Saved::Done, "the same once more");
    woken(&mut tail, &sid(1)).await;
    assert!(same(&b.resolve(&pid).await.unwrap().unwrap(), &new));
    assert!(same(&b.load(&sid(1)).await.unwrap().unwrap(), &edited));
    let late = a.takeover(&pid, None, &sid(1), 1, &sid(3), PATIENCE).await.unwrap();
    assert_eq!(late, Saved::Fenced { current: 2 });
    // And on, from the second session to a third, deleting the second.
    let third = record(3, Websocket, "a");
    a.create(&third, Offset::ZERO, PATIENCE).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            a.takeover(&pid, None, &sid(2), 1, &sid(3), PATIENCE).await.unwrap(),
            Saved::Done
        );
    }
    assert!(a.load(&sid(2)).await.unwrap().is_none());
    assert!(same(&a.resolve(&pid).await.unwrap().unwrap(), &third));
    a.point(&pid, &sid(1), PATIENCE).await.unwrap();
    assert!(same(&a.resolve(&pid).await.unwrap().unwrap(), &edited));
}

async fn a_lost_session_is_taken_over(world: World) {
    let (a, _) = world.worker("a").await;
    let old = record(1, Websocket, "a");
    let pid = Pid::new(&sid(1), [7; 12]);
    a.create(&old, Offset::ZERO, PATIENCE).await.unwrap();
    a.end(&sid(1), Some(1), Some((&old, PATIENCE))).await.unwrap();
    assert_eq!(
        a.takeover(&pid, None, &sid(1), 7, &sid(2), PATIENCE).await.unwrap(),
        Saved::Fenced { current: 1 }
    );
    assert_eq!(
        a.takeover(&pid, None, &sid(1), 1, &sid(2), PATIENCE).await.unwrap(),
        Saved::Done
    );
    assert!(
        a.resolve(&pid).await.unwrap().is_none(),
        "the new session was never created"
    );
    assert_eq!(
        a.takeover(&pid, None, &sid(1), 1, &sid(3), PATIENCE).await.unwrap(),
        Saved::Gone
    );
}

async fn sessions_of_a_dead_worker_are_swept(world: World) {
    let (a, _) = world.worker("a").await;
    let (b, _) = world.worker("b").await;
    for n in 1..=200 {
        let (transport, worker) = match n % 4 {
            0 => (Websocket, "b"),
            1 => (Polling, "a"),
            _ => (Websocket, "a"),
        };
        a.create(&record(n, transport, worker), Offset::ZERO, PATIENCE)
            .await
            .unwrap();
    }
    assert_eq!(b.count_sessions().await.unwrap(), 200);
    b.mark_dead("a").await.unwrap();
    assert_eq!(b.sweep_dead("a", Some(PATIENCE)).await.unwrap().len(), 100);
    assert_eq!(b.count_sessions().await.unwrap(), 100);
    assert_eq!(b.sweep_dead("a", Some(PATIENCE)).await.unwrap().len(), 0);
    assert!(b.load(&sid(2)).await.unwrap().is_none());
    assert!(b.resolve(&Pid::new(&sid(2), [1; 12])).await.unwrap().is_some());
    assert!(b.load(&sid(1)).await.unwrap().is_some(), "polling survives its worker");
    assert_eq!(b.sweep_dead("b", None).await.unwrap().len(), 50);
    assert!(b.resolve(&Pid::new(&sid(4), [1; 12])).await.unwrap().is_none());
}
