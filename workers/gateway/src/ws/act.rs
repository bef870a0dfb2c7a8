//! Carrying out what a WebSocket client's packets lead to.

use super::{Claimed, Connection, Task};
use crate::dispatch::{Act, Admitted, Returning};
use crate::emit::{Emit, refusal};
use crate::ending::Ending;
use crate::fault::{self, Point};
use crate::hub::MemberId;
use crate::lines::line;
use crate::membership::note_join;
use crate::metrics::Limit;
use crate::notes::{note_connected, note_room};
use crate::orders::Order;
use crate::packet::Packet;
use crate::resume::{self, Lost};
use app::Action;
use futures_util::future::LocalBoxFuture;
use session::trace::Value::Text;
use session::{Joined, Offset, Record};
use std::rc::Rc;
use store::{Restored, Saved, StoreError, Touched};
use tracing::{debug, info};

/// What a client is told when Redis is away.
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

    /// A new membership, stored before the client is told, so that a crash right after the answer does not lose it.
    async fn begin_membership(self: &Rc<Self>, admitted: Admitted) {
        let nsp = admitted.nsp.clone();
        let joined = self.note_membership(admitted);
        match self.save().await {
            Kept::Yes => {
                self.enter_hub(&nsp, &joined, joined.since);
                let pid = joined.pid.as_ref().map(session::Pid::as_str);
                self.send(&Packet::connect(&nsp, joined.sid.as_str(), pid));
                self.log_connected(&nsp);
            }
            Kept::NotNow(error) => {
                debug!(%error, "namespace could not be joined");
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
            (record.offsets, record.settled) = (true, true);
            self.ws.borrow_mut().get_mut().settle();
            record.join(nsp, found.joined.clone());
        }
        let moved = match self.save().await {
            Kept::Yes => found.take_over(&self.worker, &sid, &mut Vec::new()).await,
            Kept::NotNow(error) => Err(Lost::Store(error)),
            // The connection is ending; there is nothing to answer.
            Kept::Lost => return Ok(()),
        };
        if let Err(lost) = moved {
            // If it is not known who has it, both keep it.
            if lost.passing().is_none() {
                self.record.borrow_mut().namespaces.remove(nsp);
            }
            return Err(lost);
        }
        fault::at(Point::Resumed);
        self.replay(nsp, found).await;
        Ok(())
    }

    fn note_membership(&self, admitted: Admitted) -> Joined {
        let mut record = self.record.borrow_mut();
        if let Some(wants) = self.worker.heeded(admitted.wants_offsets) {
            record.offsets = wants;
        }
        let joined = admitted.identity.begin(&self.worker, &record);
        record.settled = true;
        self.ws.borrow_mut().get_mut().settle();
        record.join(&admitted.nsp, joined.clone());
        joined
    }

    fn log_connected(&self, nsp: &str) {
        let record = self.record.borrow();
        note_connected(&self.worker, &record, nsp);
        if self.worker.settings.logging.connections {
            info!(
                nsp,
                who = record.namespaces.get(nsp).and_then(|joined| joined.who.as_deref()),
                address = record.address,
                transport = "websocket",
                "client connected"
            );
        }
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

    /// The client left a namespace.
    pub(super) fn left(&self, nsp: &str) {
        let Some(member) = self.member(nsp) else {
            return;
        };
        self.worker.hub.borrow_mut().remove(member);
        self.members.borrow_mut().retain(|(name, _)| &**name != nsp);
        self.unsaved.set(true);
        let record = self.record.borrow();
        self.worker
            .trace
            .note(&record.sid, "disconnected", &[("namespace", Text(nsp))]);
    }

    /// Carries out an order from outside.
    pub(super) fn obey(&self, nsp: &str, order: &Order) {
        match order {
            Order::Join(rooms) => {
                for room in rooms {
                    match self.join(nsp, room) {
                        Ok(_) => self.unsaved.set(true),
                        Err(why) => debug!(room, why, "room not joined"),
                    }
                }
            }
            Order::Leave(rooms) => {
                for room in rooms {
                    self.leave(nsp, room);
                }
                self.unsaved.set(true);
            }
            Order::Disconnect { close } => {
                self.send(&Packet::disconnect(nsp));
                self.record.borrow_mut().namespaces.remove(nsp);
                self.left(nsp);
                if *close {
                    self.end(Ending::Dismissed);
                }
            }
        }
        self.waker.borrow().wake_by_ref();
    }

    /// Stores a change that no answer waits for; when a client leaves, mostly its connection's end comes first.
    pub(super) fn save_change(self: &Rc<Self>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            if let Kept::NotNow(error) = this.save().await {
                // A resume would find the record as it was before: the next change stores it.
                debug!(%error, "the session was not stored");
            }
        })
    }

    /// Does what the application wants done, and acks when all of it is durable.
    pub(super) fn act(self: &Rc<Self>, act: Act, task: &mut Task) {
        let (mut appends, mut joined) = (Vec::new(), Vec::new());
        let mut changed = false;
        let mut refused = None;
        for action in act.actions {
            match action {
                Action::Emit {
                    rooms,
                    args,
                    attachments,
                    id,
                } => {
                    let nsp = act.nsp.clone();
                    let emit = Emit {
                        nsp,
                        rooms,
                        args,
                        attachments,
                        id,
                    };
                    appends.push(emit.append(&self.worker, &self.record.borrow().sid));
                }
                Action::Join { room } => match self.join(&act.nsp, &room) {
                    Ok(true) => joined.push(room),
                    Ok(false) => {}
                    Err(why) => refused = Some(why),
                },
                Action::Leave { room } => changed |= self.leave(&act.nsp, &room),
            }
        }
        changed |= !joined.is_empty();
        let (this, nsp, ack) = (self.clone(), act.nsp, act.ack);
        let work = async move {
            let mut failed = refused;
            if changed {
                // Apart: it is rare, and would make this future several times as large.
                match Box::pin(this.save()).await {
                    Kept::Yes => {}
                    Kept::NotNow(error) => {
                        line!(warn, %error, "room could not be joined or left");
                        // A room that was left stays so: what went to it meanwhile is missing.
                        joined.iter().for_each(|room| {
                            this.leave(&nsp, room);
                        });
                        failed = Some(UNAVAILABLE.to_owned());
                    }
                    Kept::Lost => return,
                }
            }
            for append in appends {
                failed = failed.or(refusal(append.await));
                fault::at(Point::Appended);
            }
            if let Some((id, packet)) = ack {
                this.send(&failed.map_or(packet, |why| Packet::error_ack(&nsp, id, &why)));
            }
        };
        if changed {
            task.blocked = Some(Box::pin(work))
        } else {
            task.pending.push(Box::pin(work))
        }
    }

    /// Whether the membership is new; the reason if there are too many.
    pub(super) fn join(&self, nsp: &str, room: &str) -> Result<bool, String> {
        let head = self.worker.head();
        let mut record = self.record.borrow_mut();
        let Some(joined) = record.namespaces.get_mut(nsp) else {
            return Ok(false);
        };
        let noted = note_join(joined, room, head, self.worker.settings.socket.rooms_max);
        if noted.is_err() {
            self.worker.metrics.limits.one(Limit::Rooms);
        }
        if !noted? {
            return Ok(false);
        }
        if let Some(member) = self.member(nsp) {
            self.worker.hub.borrow_mut().join(member, room);
        }
        note_room(&self.worker, &record.sid, "joined", nsp, room);
        if self.worker.settings.logging.connections {
            let who = record.namespaces.get(nsp).and_then(|joined| joined.who.as_deref());
            info!(nsp, room, who, "room joined");
        }
        Ok(true)
    }

    /// Whether there was a membership.
    pub(super) fn leave(&self, nsp: &str, room: &str) -> bool {
        let mut record = self.record.borrow_mut();
        let was_in = record
            .namespaces
            .get_mut(nsp)
            .is_some_and(|joined| joined.rooms.remove(room).is_some());
        if let (true, Some(member)) = (was_in, self.member(nsp)) {
            self.worker.hub.borrow_mut().leave(member, room);
        }
        if was_in {
            note_room(&self.worker, &record.sid, "left", nsp, room);
        }
        was_in
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

    /// The record is gone; it is written again, unless somebody took it away.
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
