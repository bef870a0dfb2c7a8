//! Carries out what an application wants, the same for both transports: rooms are changed in the record, events go on their way
//! into the log.

use crate::context::Context;
use crate::dispatch::Act;
use crate::entries::event;
use crate::fault::{self, Point};
use crate::membership::{self, Change};
use crate::metrics::Limit;
use crate::packet::Packet;
use app::Action;
use futures_util::future::{Either, LocalBoxFuture, ready};
use session::{EntryKind, Offset, Record, Sid, Target};
use store::{AppendError, Appended, Dedupe};
use tokio::time::Instant;

/// What became of an entry.
pub(crate) type Append = Result<Appended, AppendError>;

/// What came of an application's actions.
pub(crate) struct Outcome<F> {
    /// Rooms that were joined and left.
    pub(crate) changes: Vec<Change>,
    /// Events on their way into the log.
    appends: Vec<F>,
    ack: Ack,
}

/// An ack that waits until all it is about is done.
pub(crate) struct Ack {
    nsp: String,
    /// Ack id, and the application's ack.
    packet: Option<(u128, Packet)>,
    /// Why it is an error instead.
    refused: Option<String>,
}

impl Ack {
    /// What is sent; an error if something was refused, or has `failed`.
    pub(crate) fn packet(&mut self, failed: Option<&str>) -> Option<Packet> {
        let (id, packet) = self.packet.take()?;
        let why = self.refused.as_deref().or(failed);
        Some(why.map_or(packet, |why| Packet::error_ack(&self.nsp, id, why)))
    }
}

impl<F: Future<Output = Append>> Outcome<F> {
    /// The ack, where no event is waited for.
    pub(crate) fn into_ack(self) -> Ack {
        self.ack
    }

    /// Waits for the log, calling `appended` with each position; then returns the ack, if one is wanted.
    pub(crate) async fn ack(&mut self, failed: Option<&str>, mut appended: impl FnMut(Offset)) -> Option<Packet> {
        for append in self.appends.drain(..) {
            let result = append.await;
            fault::at(Point::Appended);
            if let Ok(done) = &result {
                appended(done.offset);
            }
            if self.ack.refused.is_none() {
                self.ack.refused = refusal(result);
            }
        }
        self.ack.packet(failed)
    }

    /// The same, as one of many kinds.
    pub(crate) fn boxed(self) -> Outcome<LocalBoxFuture<'static, Append>>
    where
        F: 'static,
    {
        Outcome {
            changes: self.changes,
            appends: self.appends.into_iter().map(|append| Box::pin(append) as _).collect(),
            ack: self.ack,
        }
    }
}

/// Carries actions out, in their order.
pub(crate) fn carry_out(
    context: &Context,
    record: &mut Record,
    act: Act,
) -> Outcome<impl Future<Output = Append> + use<>> {
    let Act { nsp, actions, ack } = act;
    let (mut changes, mut appends) = (Vec::new(), Vec::new());
    let mut refused = None;
    for action in actions {
        match action {
            Action::Emit { .. } => appends.extend(append(context, &record.sid, &nsp, action)),
            Action::Join { room } => {
                let rooms_max = context.settings.socket.rooms_max;
                match membership::join(record, &nsp, &room, context.head(), rooms_max) {
                    Ok(change) => changes.extend(change),
                    Err(why) => {
                        context.metrics.limits.one(Limit::Rooms);
                        refused = Some(why);
                    }
                }
            }
            Action::Leave { room } => changes.extend(membership::leave(record, &nsp, &room)),
        }
    }
    let ack = Ack {
        nsp,
        packet: ack,
        refused,
    };
    Outcome { changes, appends, ack }
}

/// Queues the entry of a client's emit; the future is done when it is in the log.
fn append(context: &Context, sender: &Sid, nsp: &str, action: Action) -> Option<impl Future<Output = Append> + use<>> {
    let Action::Emit {
        rooms,
        args,
        attachments,
        id,
    } = action
    else {
        return None;
    };
    if id.is_some() && !context.ids.take(sender, Instant::now()) {
        context.metrics.limits.one(Limit::Ids);
        return Some(Either::Right(ready(Err(AppendError::TooManyIds))));
    }
    let dedupe = id.map(|id| Dedupe::event(nsp, &rooms, &id));
    let target = Target {
        nsp: nsp.to_owned(),
        rooms,
        except: Vec::new(),
    };
    Some(
        match event(EntryKind::Emit, target, &args, attachments, &context.limits) {
            Ok(entry) => Either::Left(context.store.append(entry, dedupe)),
            Err(error) => Either::Right(ready(Err(AppendError::Refused {
                reason: error.to_string(),
            }))),
        },
    )
}

/// The error that a sender gets for a publish that did not get into the log.
fn refusal(result: Append) -> Option<String> {
    result.err().map(|error| match error {
        // Redis' own words are for the log.
        AppendError::Refused { .. } => "the message log refused it".to_owned(),
        AppendError::Closed
        | AppendError::QueueFull { .. }
        | AppendError::Timeout { .. }
        | AppendError::TooLarge { .. }
        | AppendError::TooManyIds => error.to_string(),
    })
}
