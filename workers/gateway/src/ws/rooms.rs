//! Rooms that a client joins and leaves. The record is written as a whole, so changes that arrive together are stored
//! together: what they cost does not grow with their number times the size of the record.

use super::act::{Kept, UNAVAILABLE};
use super::{Connection, Next, Task};
use crate::dispatch::Act;
use crate::lines::line;
use crate::packet::Packet;
use app::Action;
use futures_util::future::LocalBoxFuture;
use std::rc::Rc;

/// Events whose changes are stored together at most: as many as there are rooms in the default limits of one client (32
/// namespaces with 128 rooms each). Their acks wait in memory, about 100 bytes each.
const EVENTS_MAX: usize = 4096;

/// Changes of rooms that are done here and not stored yet.
#[derive(Default)]
pub(super) struct Changes {
    events: usize,
    changed: bool,
    /// Namespaces and rooms.
    joined: Vec<(String, String)>,
    acks: Vec<Ack>,
}

/// An ack that waits for them.
struct Ack {
    nsp: String,
    id: u128,
    packet: Packet,
    /// Why it is an error instead.
    refused: Option<String>,
}

impl Connection {
    /// Joins and leaves rooms. They are stored before anything else of the client is carried out, or as soon as nothing
    /// more is there to be read.
    pub(super) fn change_rooms(self: &Rc<Self>, act: Act, task: &mut Task) {
        let changes = task.changes.get_or_insert_default();
        changes.events += 1;
        let mut refused = None;
        for action in act.actions {
            match action {
                Action::Join { room } => match self.join(&act.nsp, &room) {
                    Ok(true) => {
                        changes.changed = true;
                        changes.joined.push((act.nsp.clone(), room));
                    }
                    Ok(false) => {}
                    Err(why) => refused = Some(why),
                },
                Action::Leave { room } => changes.changed |= self.leave(&act.nsp, &room),
                Action::Emit { .. } => {}
            }
        }
        if let Some((id, packet)) = act.ack {
            changes.acks.push(Ack {
                nsp: act.nsp,
                id,
                packet,
                refused,
            });
        }
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
            if changes.changed {
                match this.save().await {
                    Kept::Yes => {}
                    Kept::NotNow(error) => {
                        line!(warn, %error, "room could not be joined or left");
                        // A room that was left stays so: what went to it meanwhile is missing.
                        for (nsp, room) in &changes.joined {
                            this.leave(nsp, room);
                        }
                        failed = Some(UNAVAILABLE);
                    }
                    Kept::Lost => return,
                }
            }
            for ack in changes.acks {
                let error = ack.refused.as_deref().or(failed);
                this.send(&error.map_or(ack.packet, |why| Packet::error_ack(&ack.nsp, ack.id, why)));
            }
        })
    }
}
