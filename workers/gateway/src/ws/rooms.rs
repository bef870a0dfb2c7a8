//! Rooms that a client joins and leaves. The record is written as a whole, so changes that arrive together are stored
//! together: what they cost does not grow with their number times the size of the record.

use super::act::{Kept, UNAVAILABLE};
use super::{Connection, Next, Task};
use crate::actions::{Ack, carry_out};
use crate::dispatch::Act;
use crate::lines::line;
use crate::membership::Change;
use futures_util::future::LocalBoxFuture;
use std::rc::Rc;

/// Events whose changes are stored together at most: as many as there are rooms in the default limits of one client (32
/// namespaces with 128 rooms each). Their acks wait in memory, about 100 bytes each.
const EVENTS_MAX: usize = 4096;

/// Changes of rooms that are done here and not stored yet.
#[derive(Default)]
pub(super) struct Changes {
    events: usize,
    changes: Vec<Change>,
    /// They wait for them.
    acks: Vec<Ack>,
}

impl Connection {
    /// Joins and leaves rooms. They are stored before anything else of the client is carried out, or as soon as nothing
    /// more is there to be read.
    pub(super) fn change_rooms(self: &Rc<Self>, act: Act, task: &mut Task) {
        let changes = task.changes.get_or_insert_default();
        changes.events += 1;
        let mut outcome = carry_out(&self.worker, &mut self.record.borrow_mut(), act);
        self.show(&outcome.changes);
        changes.changes.append(&mut outcome.changes);
        changes.acks.push(outcome.into_ack());
        if changes.events >= EVENTS_MAX {
            task.blocked = task.changes.take().map(|changes| self.store_changes(changes));
        }
    }

    /// Stores the changes; `next` was read behind them and follows.
    pub(super) fn after_changes(self: &Rc<Self>, next: Next, task: &mut Task) {
        task.next = Some(Box::new(next));
        task.blocked = task.changes.take().map(|changes| self.store_changes(changes));
    }

    /// Stores the record with all changes, then acks them in their order.
    pub(super) fn store_changes(self: &Rc<Self>, changes: Box<Changes>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let mut failed = None;
            if !changes.changes.is_empty() {
                match this.save().await {
                    Kept::Yes => {}
                    Kept::NotNow(error) => {
                        line!(warn, %error, "rooms not joined or left");
                        this.undo_joins(&changes.changes);
                        failed = Some(UNAVAILABLE);
                    }
                    Kept::Lost => return,
                }
            }
            for mut ack in changes.acks {
                ack.packet(failed).iter().for_each(|packet| this.send(packet));
            }
        })
    }
}
