//! Sessions that poll: what the scripts do in Redis, step by step.

use super::{Holder, Lease, Memory, Session, Space};
use crate::answer::{
    Mail, Poll, PollMode, PostBegin, PostDone, PostEffects, RequestId, Settling, UpgradeBegin, UpgradeFinish,
    UpgradeStep,
};
use crate::limits::{MAIL_BYTES_MAX, MAIL_ITEMS_MAX, POST_LEASE, UPGRADE_REPEATABLE};
use session::{Offset, Record, Sid};
use std::time::Duration;
use tokio::time::Instant;

/// The record, unless the caller has this revision.
fn news(session: &Session, revision: u64, known: Option<u64>) -> Option<Record> {
    (known != Some(revision)).then(|| session.record.clone())
}

/// Whether `mine` is a repetition of what stands there.
fn is_repeat(there: Option<&Holder>, mine: &Holder, told: bool) -> bool {
    there.is_some_and(|there| there != mine && there.is_of(mine, told))
}

impl Memory {
    pub(crate) fn poll(&self, sid: &Sid, request: RequestId, mode: PollMode, head: Offset, known: Option<u64>) -> Poll {
        let now = Instant::now();
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let gone = if mode == PollMode::Begin {
            Poll::Unknown
        } else {
            Poll::Ended
        };
        let Some(session) = space.session(sid, now) else {
            return gone;
        };
        let Some(poll) = &session.poll else {
            return Poll::Moved(Box::new(session.record.clone()));
        };
        let answered = poll.answered.as_ref().map(|(holder, _)| holder);
        let told = poll.tells_poll(&mine);
        let again = answered.is_some_and(|holder| holder.is_of(&mine, told));
        let ours = poll.get.as_ref().is_some_and(|l| l.holder == mine);
        if mode != PollMode::Begin && !ours && answered != Some(&mine) {
            return Poll::LeaseLost;
        }
        let repeated = poll.get.as_ref().is_some_and(|l| l.holder.is_of(&mine, told));
        if mode == PollMode::Begin && !repeated {
            if space.is_get_held(sid, now) {
                return Poll::Overlap;
            }
            if !again {
                space.confirm(sid);
            }
        }
        space
            .answer_or_park(
                sid,
                mine,
                matches!(mode, PollMode::Answer | PollMode::Ping) || again,
                head,
                known,
                now,
            )
            .unwrap_or(gone)
    }

    pub(crate) fn poll_release(&self, sid: &Sid, request: RequestId) {
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        if let Some(poll) = space.session(sid, Instant::now()).and_then(|s| s.poll.as_mut())
            && poll.get.as_ref().is_some_and(|l| l.holder == mine)
        {
            poll.get = None;
        }
    }

    pub(crate) fn post_begin(&self, sid: &Sid, request: RequestId, known: Option<u64>) -> PostBegin {
        let now = Instant::now();
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let Some(session) = space.session(sid, now) else {
            return PostBegin::Unknown;
        };
        let Some(poll) = &session.poll else {
            return PostBegin::Moved(Box::new(session.record.clone()));
        };
        let told = poll.tells_post(&mine);
        if is_repeat(poll.finished.as_ref(), &mine, told) {
            return PostBegin::Repeated;
        }
        let lease = poll.post.as_ref().map(|l| &l.holder);
        if is_repeat(lease, &mine, told) {
            return PostBegin::Broken;
        }
        let ours = lease == Some(&mine);
        if !ours && space.is_post_held(sid, now) {
            return PostBegin::Overlap;
        }
        let parked = space.is_get_held(sid, now);
        let Some(session) = space.sessions.get_mut(sid) else {
            return PostBegin::Unknown;
        };
        let Some(poll) = &mut session.poll else {
            return PostBegin::Unknown;
        };
        poll.post = Some(Lease {
            holder: mine,
            deadline: now + POST_LEASE,
        });
        let (revision, sent) = (poll.revision, poll.sent);
        PostBegin::Go {
            record: news(session, revision, known),
            revision,
            sent,
            parked,
        }
    }

    pub(crate) fn post_finish(&self, sid: &Sid, request: RequestId, effects: &PostEffects<'_>) -> PostDone {
        let now = Instant::now();
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let Some(session) = space.session(sid, now) else {
            return PostDone::Gone;
        };
        let Some(poll) = &mut session.poll else {
            return PostDone::Gone;
        };
        if poll.post.as_ref().is_none_or(|l| l.holder != mine) {
            let repeated = poll.finished.as_ref() == Some(&mine);
            let revision = poll.revision;
            return if repeated {
                PostDone::Done { revision }
            } else if is_repeat(poll.finished.as_ref(), &mine, poll.tells_post(&mine)) {
                PostDone::Repeated
            } else {
                PostDone::Gone
            };
        }
        poll.post = None;
        if let Some(record) = effects.record
            && record.epoch != session.record.epoch
        {
            return PostDone::Fenced {
                current: session.record.epoch,
            };
        }
        let bytes = |mail: &mut dyn Iterator<Item = &(Offset, bytes::Bytes)>| -> usize {
            mail.map(|(tag, packet)| tag.to_string().len() + 1 + packet.len()).sum()
        };
        let new_bytes = bytes(&mut effects.mail.iter());
        let too_many = session.mail.len() + effects.mail.len() > MAIL_ITEMS_MAX;
        if !effects.mail.is_empty() && (too_many || bytes(&mut session.mail.iter()) + new_bytes > MAIL_BYTES_MAX) {
            space.remove(sid);
            return PostDone::Full;
        }
        session.mail.extend(effects.mail.iter().cloned());
        if let Some(record) = effects.record {
            session.record = record.clone();
            poll.revision += 1;
        }
        if effects.pong || effects.settling == Settling::Now {
            let (liveness, ttl) = self.options.lifetimes(effects.settling);
            session.expires = now + ttl;
            poll.expires = now + liveness;
        }
        if effects.pong {
            poll.ping_due = Some(now + self.options.ping_interval);
        }
        if let Some(position) = effects.rewind {
            poll.cursor = poll.cursor.min(position);
            poll.sent = poll.sent.min(position);
        }
        poll.finished = Some(mine);
        let revision = poll.revision;
        let anything = effects.rewind.is_some() || effects.pong || effects.record.is_some() || !effects.mail.is_empty();
        let holder = poll.get.as_ref().filter(|_| anything).map(|l| l.holder.clone());
        space.wake(holder.as_ref(), sid);
        PostDone::Done { revision }
    }

    pub(crate) fn post_at_once(
        &self,
        sid: &Sid,
        request: RequestId,
        revision: u64,
        effects: &PostEffects<'_>,
    ) -> PostDone {
        let now = Instant::now();
        let mine = self.holder(request);
        {
            let mut space = self.space.borrow_mut();
            let held = space.is_post_held(sid, now);
            let Some(poll) = space.session(sid, now).and_then(|s| s.poll.as_mut()) else {
                return PostDone::Behind;
            };
            let told = poll.tells_post(&mine);
            if is_repeat(poll.finished.as_ref(), &mine, told) {
                return PostDone::Repeated;
            }
            if poll.finished.as_ref() != Some(&mine) {
                let broken = is_repeat(poll.post.as_ref().map(|l| &l.holder), &mine, told);
                if held || broken || poll.revision != revision {
                    return PostDone::Behind;
                }
                poll.post = Some(Lease {
                    holder: mine,
                    deadline: now + POST_LEASE,
                });
            }
        }
        self.post_finish(sid, request, effects)
    }

    pub(crate) fn upgrade_begin(&self, sid: &Sid, request: RequestId, timeout: Duration) -> UpgradeBegin {
        let now = Instant::now();
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let Some(session) = space.session(sid, now) else {
            return UpgradeBegin::Unknown;
        };
        let record = Box::new(session.record.clone());
        let Some(poll) = &session.poll else {
            return UpgradeBegin::Moved(record);
        };
        let ours = poll.upgrade.as_ref().is_some_and(|l| l.holder == mine);
        if !ours && space.is_upgrade_held(sid, now) {
            return UpgradeBegin::Busy;
        }
        if let Some(poll) = space.sessions.get_mut(sid).and_then(|s| s.poll.as_mut()) {
            poll.upgrade = Some(Lease {
                holder: mine,
                deadline: now + timeout,
            });
            poll.probed = false;
        }
        UpgradeBegin::Go { record }
    }

    pub(crate) fn upgrade_probed(&self, sid: &Sid, request: RequestId) -> UpgradeStep {
        let now = Instant::now();
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let Some(poll) = space.session(sid, now).and_then(|s| s.poll.as_mut()) else {
            return UpgradeStep::Gone;
        };
        if poll
            .upgrade
            .as_ref()
            .is_none_or(|l| l.holder != mine || l.deadline <= now)
        {
            return UpgradeStep::Gone;
        }
        poll.probed = true;
        let holder = poll.get.as_ref().map(|l| l.holder.clone());
        space.wake(holder.as_ref(), sid);
        UpgradeStep::Done
    }

    pub(crate) fn upgrade_finish(&self, sid: &Sid, request: RequestId) -> UpgradeFinish {
        let now = Instant::now();
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let post_held = space.is_post_held(sid, now);
        let Some(session) = space.session(sid, now) else {
            return UpgradeFinish::Gone;
        };
        let record = Box::new(session.record.clone());
        let Some(poll) = &session.poll else {
            return match &session.moved {
                Some((holder, after, mail, until)) if *holder == mine && *until > now => UpgradeFinish::Done {
                    record,
                    after: *after,
                    mail: mail.clone(),
                },
                _ => UpgradeFinish::Gone,
            };
        };
        if poll
            .upgrade
            .as_ref()
            .is_none_or(|l| l.holder != mine || l.deadline <= now)
        {
            return UpgradeFinish::Gone;
        }
        if post_held {
            return UpgradeFinish::Busy;
        }
        let (after, sent_mail) = (poll.sent, poll.sent_mail);
        let parked = poll.get.as_ref().map(|l| l.holder.clone());
        let mail: Mail = session.mail.drain(..).skip(sent_mail).collect();
        session.poll = None;
        session.moved = Some((mine, after, mail.clone(), now + UPGRADE_REPEATABLE));
        space.wake(parked.as_ref(), sid);
        UpgradeFinish::Done { record, after, mail }
    }

    pub(crate) fn upgrade_cancel(&self, sid: &Sid, request: RequestId) -> UpgradeStep {
        let mine = self.holder(request);
        let mut space = self.space.borrow_mut();
        let Some(poll) = space.session(sid, Instant::now()).and_then(|s| s.poll.as_mut()) else {
            return UpgradeStep::Gone;
        };
        if poll.upgrade.as_ref().is_none_or(|l| l.holder != mine) {
            return UpgradeStep::Gone;
        }
        poll.upgrade = None;
        poll.probed = false;
        UpgradeStep::Done
    }
}

impl Space {
    /// The rest of a poll's step, once it is clear that it may continue.
    fn answer_or_park(
        &mut self,
        sid: &Sid,
        mine: Holder,
        at_once: bool,
        head: Offset,
        known: Option<u64>,
        now: Instant,
    ) -> Option<Poll> {
        let noop = self.is_probed(sid, now);
        let session = self.sessions.get_mut(sid)?;
        let waiting = session.mail.len();
        let poll = session.poll.as_mut()?;
        let expires_in = poll.expires.saturating_duration_since(now);
        let told = poll.tells_poll(&mine);
        let again = poll.answered.take_if(|(holder, _)| holder.is_of(&mine, told));
        let ping = poll.ping_due.is_some_and(|due| due <= now);
        let (revision, after) = (poll.revision, poll.cursor);
        if at_once || waiting > 0 || ping || noop {
            let ping = ping || again.is_some_and(|(_, pinged)| pinged);
            poll.sent = poll.cursor.max(head);
            poll.sent_mail = waiting;
            poll.answered = Some((mine, ping));
            poll.get = None;
            if ping {
                poll.ping_due = None;
            }
            let upto = poll.sent;
            let mail = session.mail.iter().cloned().collect();
            let record = news(session, revision, known);
            return Some(Poll::Answer {
                record,
                revision,
                after,
                upto,
                mail,
                ping,
                noop,
            });
        }
        poll.get = Some(Lease {
            holder: mine,
            deadline: poll.expires,
        });
        let ping_in = poll.ping_due.map(|due| due.saturating_duration_since(now));
        let record = news(session, revision, known);
        Some(Poll::Parked {
            record,
            revision,
            after,
            ping_in,
            expires_in,
        })
    }

    fn lease_held(&self, sid: &Sid, now: Instant, of: fn(&super::PollState) -> Option<&Lease>) -> bool {
        let poll = self.sessions.get(sid).and_then(|s| s.poll.as_ref());
        self.is_held(poll.and_then(of), now)
    }

    fn is_get_held(&self, sid: &Sid, now: Instant) -> bool {
        self.lease_held(sid, now, |p| p.get.as_ref())
    }

    pub(super) fn is_post_held(&self, sid: &Sid, now: Instant) -> bool {
        self.lease_held(sid, now, |p| p.post.as_ref())
    }

    fn is_upgrade_held(&self, sid: &Sid, now: Instant) -> bool {
        self.lease_held(sid, now, |p| p.upgrade.as_ref())
    }

    fn is_probed(&self, sid: &Sid, now: Instant) -> bool {
        self.lease_held(sid, now, |p| p.upgrade.as_ref().filter(|_| p.probed))
    }

    /// The client has received the last answer.
    fn confirm(&mut self, sid: &Sid) {
        let Some(session) = self.sessions.get_mut(sid) else {
            return;
        };
        let Some(poll) = &mut session.poll else { return };
        poll.cursor = poll.sent;
        let sent = poll.sent_mail.min(session.mail.len());
        poll.sent_mail = 0;
        drop(session.mail.drain(..sent));
    }
}
