//! Sessions: records, their lifetime, resume, the sessions of dead workers.

use super::{Memory, Mortal, PollState, Session};
use crate::answer::{Amended, RequestId, Restored, Saved, Touched};
use session::{Offset, Pid, Record, Sid, Transport};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How long a dead worker is remembered; longer than any lease.
const DEAD_REMEMBERED: Duration = Duration::from_secs(600);

fn session(record: &Record, expires: Instant, poll: Option<PollState>) -> Session {
    Session {
        record: record.clone(),
        expires,
        poll,
        mail: VecDeque::new(),
        moved: None,
    }
}

impl Memory {
    pub(crate) fn create(&self, record: &Record, asked: &[RequestId], head: Offset, ttl: Duration) {
        let now = Instant::now();
        let poll = match record.transport {
            Transport::Polling => Some(PollState::new(
                asked,
                head,
                now,
                ttl.min(self.options.liveness()),
                self.options.ping_interval,
            )),
            Transport::Websocket => None,
        };
        let mut space = self.space.borrow_mut();
        space
            .sessions
            .insert(record.sid.clone(), session(record, now + ttl, poll));
    }

    pub(crate) fn load(&self, sid: &Sid) -> Option<Record> {
        let mut space = self.space.borrow_mut();
        space.session(sid, Instant::now()).map(|s| s.record.clone())
    }

    pub(crate) fn save(&self, record: &Record, expected_epoch: u64, ttl: Duration) -> Saved {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        let Some(session) = space.session(&record.sid, now) else {
            return Saved::Gone;
        };
        let same = session.record.to_json() == record.to_json();
        if !same && session.record.epoch != expected_epoch {
            return Saved::Fenced {
                current: session.record.epoch,
            };
        }
        let mut elsewhere = None;
        if let Some(poll) = &mut session.poll {
            if !same {
                poll.revision += 1;
                let holder = poll.get.as_ref().map(|l| &l.holder);
                elsewhere = holder.filter(|h| h.incarnation != self.options.me).cloned();
            }
        } else {
            session.expires = now + ttl;
        }
        session.record = record.clone();
        space.wake(elsewhere.as_ref(), &record.sid);
        Saved::Done
    }

    pub(crate) fn amend(&self, before: &Record, after: &Record) -> Amended {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        let post_held = space.is_post_held(&before.sid, now);
        let Some(session) = space.session(&before.sid, now) else {
            return Amended::Gone;
        };
        let current = session.record.to_json();
        if current == after.to_json() {
            return Amended::Done;
        }
        if post_held || current != before.to_json() {
            return Amended::Again;
        }
        session.record = after.clone();
        if let Some(poll) = &mut session.poll {
            poll.revision += 1;
        }
        Amended::Done
    }

    pub(crate) fn restore(&self, record: &Record, ttl: Duration) -> Restored {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        if space.session(&record.sid, now).is_some() {
            return Restored::Present;
        }
        space
            .sessions
            .insert(record.sid.clone(), session(record, now + ttl, None));
        Restored::Done
    }

    pub(crate) fn touch(&self, sid: &Sid, ttl: Duration) -> Touched {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        match space.session(sid, now) {
            Some(session) => {
                session.expires = now + ttl;
                Touched::Alive
            }
            None => Touched::Gone,
        }
    }

    pub(crate) fn end(&self, sid: &Sid, expected_epoch: Option<u64>, keep: Option<(&Record, Duration)>) {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        let current = space.session(sid, now).map(|s| s.record.epoch);
        if current.is_some() && expected_epoch.is_some() && current != expected_epoch {
            return;
        }
        space.remove(sid);
        if let Some((record, window)) = keep {
            // A session that is gone already may have been lost, and taken over, meanwhile.
            let present = space.lost.get(sid).is_some_and(|m| m.expires > now);
            if current.is_some() || !present {
                let kept = Mortal {
                    value: record.clone(),
                    expires: now + window,
                };
                space.lost.insert(sid.clone(), kept);
            }
        }
    }

    pub(crate) fn resolve(&self, pid: &Pid) -> Option<Record> {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        let pointer = space
            .pids
            .get(pid.as_str())
            .filter(|m| m.expires > now)
            .map(|m| m.value.clone());
        let sid = pointer.unwrap_or_else(|| pid.session());
        if let Some(session) = space.session(&sid, now) {
            return Some(session.record.clone());
        }
        space
            .lost
            .get(&sid)
            .filter(|m| m.expires > now)
            .map(|m| m.value.clone())
    }

    pub(crate) fn takeover(
        &self,
        pid: &Pid,
        old: Option<&Record>,
        old_sid: &Sid,
        expected_epoch: u64,
        new_sid: &Sid,
        ttl: Duration,
    ) -> Saved {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        let pointed = space
            .pids
            .get(pid.as_str())
            .is_some_and(|m| m.expires > now && m.value == *new_sid);
        space.lost.retain(|_, m| m.expires > now);
        let living = space.session(old_sid, now).is_some();
        let session = space.sessions.get(old_sid).map(|s| &s.record);
        let Some(current) = session.or_else(|| space.lost.get(old_sid).map(|m| &m.value)) else {
            return if old.is_none() && pointed {
                Saved::Done
            } else {
                Saved::Gone
            };
        };
        if current.epoch != expected_epoch {
            let repeated = pointed && old.is_some_and(|old| old.to_json() == current.to_json());
            let current = current.epoch;
            return if repeated {
                Saved::Done
            } else {
                Saved::Fenced { current }
            };
        }
        match old {
            None => {
                space.remove(old_sid);
                space.lost.remove(old_sid);
            }
            Some(record) if living => {
                let mut holder = None;
                if let Some(session) = space.sessions.get_mut(old_sid) {
                    session.record = record.clone();
                    if let Some(poll) = &mut session.poll {
                        poll.revision += 1;
                        holder = poll.get.as_ref().map(|l| l.holder.clone());
                    }
                }
                space.wake(holder.as_ref(), old_sid);
            }
            Some(record) => {
                if let Some(lost) = space.lost.get_mut(old_sid) {
                    lost.value = record.clone();
                }
            }
        }
        let pointer = Mortal {
            value: new_sid.clone(),
            expires: now + ttl,
        };
        space.pids.insert(pid.as_str().to_owned(), pointer);
        Saved::Done
    }

    pub(crate) fn point(&self, pid: &Pid, sid: &Sid, ttl: Duration) {
        let pointer = Mortal {
            value: sid.clone(),
            expires: Instant::now() + ttl,
        };
        self.space.borrow_mut().pids.insert(pid.as_str().to_owned(), pointer);
    }

    pub(crate) fn mark_dead(&self, incarnation: &str) {
        let mark = Mortal {
            value: (),
            expires: Instant::now() + DEAD_REMEMBERED,
        };
        self.space.borrow_mut().dead.insert(incarnation.to_owned(), mark);
    }

    pub(crate) fn sweep_dead(&self, incarnation: &str, window: Option<Duration>) -> Vec<Sid> {
        let now = Instant::now();
        let mut space = self.space.borrow_mut();
        space.purge(now);
        let held = |s: &&Session| s.record.worker == incarnation && s.record.transport == Transport::Websocket;
        let dead: Vec<Record> = space.sessions.values().filter(held).map(|s| s.record.clone()).collect();
        let mut ended = Vec::with_capacity(dead.len());
        for record in dead {
            space.remove(&record.sid);
            ended.push(record.sid.clone());
            if let Some(window) = window {
                let kept = Mortal {
                    expires: now + window,
                    value: record,
                };
                space.lost.insert(kept.value.sid.clone(), kept);
            }
        }
        ended
    }

    pub(crate) fn count_sessions(&self) -> u64 {
        let mut space = self.space.borrow_mut();
        space.purge(Instant::now());
        u64::try_from(space.sessions.len()).unwrap_or(u64::MAX)
    }
}
