//! Carrying out what a WebSocket client's packets lead to.

use super::{Claimed, Connection, Task};
use crate::actions::carry_out;
use crate::dispatch::{Act, Admitted, Returning};
use crate::ending::Ending;
use crate::fault::{self, Point};
use crate::hub::MemberId;
use crate::lines::line;
use crate::membership::{self, Change};
use crate::metrics::Limit;
use crate::notes::note;
use crate::orders::{self, Order};
use crate::packet::Packet;
use crate::resume::{self, Lost};
use crate::ring::Logged;
use futures_util::future::LocalBoxFuture;
use session::{Joined, Offset, Record};
use std::rc::Rc;
use store::{Restored, Saved, StoreError, Touched};
use tracing::debug;

/// The error that a client gets when Redis is away.
pub(super) const UNAVAILABLE: &str = "service unavailable, try again";

/// How an attempt to store the session's record ended.
pub(super) enum Kept {
    Yes,
    /// Redis is away.
    NotNow(StoreError),
    /// The session is no longer ours; the connection is ending.
    Lost,
}

impl Connection {
    /// Lets the client into a namespace.
    pub(super) fn admit(self: &Rc<Self>, admitted: Admitted) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move { this.begin_membership(admitted).await })
    }

    /// Gives a client its membership back, or has it begin another one.
    pub(super) fn come_back(self: &Rc<Self>, returning: Rc<Returning>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let (worker, nsp) = (&this.worker, &returning.nsp);
            let Err(lost) = resume::retry_on_conflict(async || this.resume(&returning).await).await else {
                return;
            };
            if lost.passing().is_some() {
                resume::postpone(worker, nsp, &lost);
                return this.end(Ending::StoreUnavailable);
            }
            let sid = this.record.borrow().sid.clone();
            match resume::start_anew(worker, &sid, &returning, lost) {
                Ok(admitted) => this.begin_membership(admitted).await,
                Err(refusal) => this.send(&refusal.packet(nsp)),
            }
        })
    }

    /// A new membership, stored before the client gets its answer, so that a crash right after the answer does not lose it.
    async fn begin_membership(self: &Rc<Self>, admitted: Admitted) {
        let (nsp, joined, asks) = admitted.enter(&self.worker, &mut self.record.borrow_mut());
        if asks.is_none() {
            self.ws.borrow_mut().get_mut().settle();
        }
        match self.save().await {
            Kept::Yes if joined.pending => {
                self.enter_hub(&nsp, &joined, joined.since);
                self.put_records(asks.into_iter().map(|unit| *unit).collect()).await;
            }
            Kept::Yes => {
                self.enter_hub(&nsp, &joined, joined.since);
                self.send(&Packet::connect(&nsp, &joined));
                self.show(&[Change::Connected { nsp }]);
            }
            Kept::NotNow(error) => {
                debug!(%error, "namespace not joined");
                self.record.borrow_mut().namespaces.remove(&nsp);
                self.send(&Packet::connect_error(&nsp, UNAVAILABLE, None));
            }
            Kept::Lost => {}
        }
    }

    /// Gives the client its session back; what comes in which order: [`Self::replay`].
    async fn resume(self: &Rc<Self>, returning: &Rc<Returning>) -> Result<(), Lost> {
        let (sid, nsp) = (self.record.borrow().sid.clone(), &returning.nsp);
        let found = resume::find(&self.worker, &sid, returning, returning.seen, self.replay_part()).await?;
        fault::at(Point::Resuming);
        {
            let mut record = self.record.borrow_mut();
            record.offsets = true;
            membership::enter(&mut record, nsp, found.joined.clone());
            self.ws.borrow_mut().get_mut().settle();
        }
        let moved = match self.save().await {
            Kept::Yes => found.take_over(&self.worker, &sid, &mut Vec::new()).await,
            Kept::NotNow(error) => Err(Lost::Store(error)),
            // The connection is ending; there is nothing to answer.
            Kept::Lost => return Ok(()),
        };
        if let Err(lost) = moved {
            // If it is not known which session has it, both keep it.
            if lost.passing().is_none() {
                self.record.borrow_mut().namespaces.remove(nsp);
            }
            return Err(lost);
        }
        fault::at(Point::Resumed);
        self.replay(nsp, found).await;
        Ok(())
    }

    /// Becomes a member of the hub, in all rooms that the membership names. It has had the log up to `seen`.
    pub(super) fn enter_hub(self: &Rc<Self>, nsp: &str, joined: &Joined, seen: Offset) {
        let since = joined.since.max(seen);
        let member = self.worker.hub.borrow_mut().enter(nsp, joined, since, self.clone());
        self.members.borrow_mut().push((nsp.into(), member));
    }

    fn member(&self, nsp: &str) -> Option<MemberId> {
        self.members
            .borrow()
            .iter()
            .find(|(name, _)| &**name == nsp)
            .map(|(_, member)| *member)
    }

    /// Shows changes of the record to the hub, and notes them. A namespace is entered on its own, see [`Self::enter_hub`].
    pub(super) fn show(&self, changes: &[Change]) {
        for change in changes {
            let mut hub = self.worker.hub.borrow_mut();
            match change {
                Change::Connected { .. } => {}
                Change::Disconnected { nsp } => {
                    self.member(nsp).into_iter().for_each(|member| hub.remove(member));
                    self.members.borrow_mut().retain(|(name, _)| **name != **nsp);
                }
                Change::Joined { nsp, room } => self.member(nsp).into_iter().for_each(|member| hub.join(member, room)),
                Change::Left { nsp, room } => self.member(nsp).into_iter().for_each(|member| hub.leave(member, room)),
            }
            drop(hub);
            note(&self.worker, &self.record.borrow(), change);
        }
    }

    /// The rooms among these changes could not be stored: the client is not in them. A room that was left stays so: what went
    /// to it meanwhile is missing.
    pub(super) fn undo_joins(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Joined { nsp, room } = change {
                let left = membership::leave(&mut self.record.borrow_mut(), nsp, room);
                self.show(left.as_slice());
            }
        }
    }

    /// Carries out an order from outside.
    pub(super) fn obey(&self, logged: &Logged, order: &Order) {
        let rooms_max = self.worker.settings.socket.rooms_max;
        let applied = orders::apply(&mut self.record.borrow_mut(), logged, order, rooms_max);
        self.worker.metrics.limits.add(Limit::Rooms, applied.refused);
        applied.packet.iter().for_each(|packet| self.send(packet));
        if applied
            .changes
            .iter()
            .any(|change| matches!(change, Change::Connected { .. }))
        {
            self.ws.borrow_mut().get_mut().settle();
        }
        self.show(&applied.changes);
        if !applied.changes.is_empty() {
            self.unsaved.set(true);
        }
        if applied.closes {
            self.end(Ending::Dismissed);
        }
        self.waker.borrow().wake_by_ref();
    }

    /// Stores a change that no answer waits for; when a client leaves, mostly its connection's end comes first.
    pub(super) fn save_change(self: &Rc<Self>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            if let Kept::NotNow(error) = this.save().await {
                // A resume would find the record as it was before: the next change stores it.
                debug!(%error, "session not stored");
            }
        })
    }

    /// Does what the application wants done, and acks when all of it is durable.
    pub(super) fn act(self: &Rc<Self>, act: Act, task: &mut Task) {
        let mut outcome = carry_out(&self.worker, &mut self.record.borrow_mut(), act);
        let changes = std::mem::take(&mut outcome.changes);
        self.show(&changes);
        let (this, changed) = (self.clone(), !changes.is_empty());
        let work = async move {
            let mut failed = None;
            if changed {
                // Boxed: it is rare, and would make the future of each publish several times as large.
                match Box::pin(this.save()).await {
                    Kept::Yes => {}
                    Kept::NotNow(error) => {
                        line!(warn, %error, "rooms not joined or left");
                        this.undo_joins(&changes);
                        failed = Some(UNAVAILABLE);
                    }
                    Kept::Lost => return,
                }
            }
            let ack = outcome.ack(failed, |_| {}).await;
            ack.iter().for_each(|packet| this.send(packet));
        };
        if changed {
            task.blocked = Some(Box::pin(work))
        } else {
            task.pending.push(Box::pin(work))
        }
    }

    /// The record as it is stored: the beginning of a packet can be used by this connection alone, and may be large.
    pub(super) fn stored_form(&self) -> Record {
        let mut record = self.record.borrow().clone();
        record.partial = None;
        record
    }

    /// Stores the record as it is now. Saves of a connection follow one another: reading is blocked
    /// meanwhile.
    pub(super) async fn save(&self) -> Kept {
        if self.claimed.get() == Claimed::NotYet {
            return Kept::NotNow(StoreError::Unavailable {
                op: "save",
                reason: "the session is not claimed yet".to_owned(),
            });
        }
        let written_in = self.written_in.replace(self.worker.head().epoch());
        if !self.stored.get() {
            return match self.create().await {
                Ok(()) => Kept::Yes,
                Err(error) => Kept::NotNow(error),
            };
        }
        let record = self.stored_form();
        match self
            .worker
            .store
            .save(&record, record.epoch, self.worker.ttl(&record))
            .await
        {
            Ok(Saved::Done) => Kept::Yes,
            Ok(Saved::Gone) if self.is_kicked(written_in).await => {
                self.end(Ending::Kicked);
                Kept::Lost
            }
            Ok(Saved::Gone) => match self.worker.store.restore(&record, self.worker.ttl(&record)).await {
                Ok(Restored::Done) => Kept::Yes,
                Ok(Restored::Present) => Kept::NotNow(StoreError::Unavailable {
                    op: "save",
                    reason: "the session is being restored".to_owned(),
                }),
                Err(error) => Kept::NotNow(error),
            },
            Ok(Saved::Fenced { .. }) => {
                self.end(Ending::TakenOver);
                Kept::Lost
            }
            Err(error) => Kept::NotNow(error),
        }
    }

    /// The client lives, so its record is kept. A session that is not claimed yet is written anyway.
    pub(super) fn alive(self: &Rc<Self>, task: &Task) {
        if self.claimed.get() == Claimed::Yes {
            task.pending.push(self.touch());
        }
    }

    fn touch(self: &Rc<Self>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            if !this.stored.get() {
                return;
            }
            let (sid, ttl) = {
                let record = this.record.borrow();
                (record.sid.clone(), this.worker.ttl(&record))
            };
            match this.worker.store.touch(&sid, ttl).await {
                Ok(Touched::Alive) => {
                    let record = this.record.borrow().clone();
                    resume::refresh_pids(&this.worker, &record).await;
                }
                Ok(Touched::Gone) => this.heal().await,
                // What is connected stays connected while Redis is away.
                Err(error) => debug!(%error, "session not refreshed"),
            }
        })
    }

    /// The record is gone: an operator's kick, unless Redis has lost everything since it was written in that epoch, or its
    /// clock was set forward over the record's time.
    async fn is_kicked(&self, written_in: u64) -> bool {
        written_in == self.worker.head().epoch() && !self.worker.store.clock_jumped(self.worker.session_ttl()).await
    }

    /// The record is gone; it is written again, unless an operator deleted it.
    async fn heal(&self) {
        if self.is_kicked(self.written_in.get()).await {
            return self.end(Ending::Kicked);
        }
        let record = self.stored_form();
        match self.worker.store.restore(&record, self.worker.ttl(&record)).await {
            Ok(Restored::Done | Restored::Present) => {
                self.written_in.set(self.worker.head().epoch());
                resume::refresh_pids(&self.worker, &record).await;
            }
            Err(error) => debug!(%error, "session not restored"),
        }
    }
}
