//! The POST: packets from the client, decided one after the other, their outcome stored in one step.

use super::get::{moved, unavailable};
use super::{Abort, Reply, end, patiently};
use crate::dispatch::{Act, Admitted, Effect, Incoming, dispatch};
use crate::emit::Deed;
use crate::ending::Ending;
use crate::packet::Packet;
use crate::worker::Worker;
use crate::ws::{Speech, note_join, refusal};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use session::{Offset, Record, Sid};
use std::rc::Rc;
use store::{AppendError, Appended, PostBegin, PostDone, PostEffects, RequestId};
use tracing::info;
use wire::engine::{self, Refusal};

/// Packets of one POST; more is an attack, not a client.
const PACKETS_MAX: usize = 4096;

/// Why a request body could not be had.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client broke off, or was too slow.
    Gone,
    /// Not UTF-8.
    NotText,
    /// Over `engine.max_payload_bytes`.
    TooLarge,
    /// `application/octet-stream`: protocol v3, not served.
    WrongType,
}

/// The body, once it has arrived.
pub(crate) type Body<'a> = LocalBoxFuture<'a, Result<String, BodyError>>;

/// Serves a POST with a sid.
pub(crate) async fn post(worker: &Rc<Worker>, sid: &Sid, speech: Speech, body: Body<'_>) -> Reply {
    let abort = Abort::new(worker, sid);
    let request = worker.store.request();
    let reply = serve(worker, sid, speech, request, body).await;
    abort.disarm();
    reply
}

async fn serve(worker: &Rc<Worker>, sid: &Sid, speech: Speech, request: RequestId, body: Body<'_>) -> Reply {
    let record = match patiently(async || worker.store.post_begin(sid, request, None).await).await {
        Err(error) => return unavailable(&error),
        Ok(PostBegin::Unknown) => return Reply::Refused(Refusal::SessionUnknown),
        Ok(PostBegin::Moved(record)) => return moved(&record),
        Ok(PostBegin::Overlap) => return Reply::Broken,
        Ok(PostBegin::Go { record: None, .. }) => return Reply::Refused(Refusal::SessionUnknown),
        Ok(PostBegin::Go {
            record: Some(record), ..
        }) => record,
    };
    let text = match body.await {
        Ok(text) => text,
        Err(BodyError::TooLarge) => {
            return match finish(worker, sid, request, PostEffects::default()).await {
                Ok(_) => Reply::TooLarge,
                Err(reply) => reply,
            };
        }
        Err(BodyError::Gone | BodyError::NotText | BodyError::WrongType) => {
            end(worker, sid, &Ending::EngineProtocol("request body")).await;
            return Reply::Broken;
        }
    };
    let mut batch = Batch {
        worker,
        speech,
        record,
        changed: false,
        pong: false,
        out: Vec::new(),
        horizon: worker.head(),
    };
    let ending = batch.take(&text);
    let mail = batch.settle_mail().await;
    let effects = PostEffects {
        record: batch.changed.then_some(&batch.record),
        mail: &mail,
        pong: batch.pong,
    };
    let done = finish(worker, sid, request, effects).await;
    if let Some(ending) = ending {
        end(worker, sid, &ending).await;
        return if matches!(ending, Ending::ClientLeft) {
            Reply::Taken
        } else {
            Reply::Broken
        };
    }
    match done {
        Ok(PostDone::Done) => Reply::Taken,
        // A client that posts and never polls: its answers have nowhere to go.
        Ok(PostDone::Full) => {
            end(worker, sid, &Ending::SlowClient).await;
            Reply::Broken
        }
        Ok(PostDone::Gone | PostDone::Fenced { .. }) => Reply::Refused(Refusal::SessionUnknown),
        Err(reply) => reply,
    }
}

async fn finish(worker: &Worker, sid: &Sid, request: RequestId, effects: PostEffects<'_>) -> Result<PostDone, Reply> {
    patiently(async || worker.store.post_finish(sid, request, effects.clone()).await)
        .await
        .map_err(|error| unavailable(&error))
}

/// A publish on its way into the log.
type Append = LocalBoxFuture<'static, Result<Appended, AppendError>>;

/// Something for the client.
enum Out {
    Now(Packet),
    /// An ack for when all is in the log; namespace and id are for an ack that says why it is not.
    After {
        appends: Vec<Append>,
        refused: Option<String>,
        nsp: String,
        ack: Option<(u64, Packet)>,
    },
}

/// The packets of one POST and what they lead to.
struct Batch<'a> {
    worker: &'a Rc<Worker>,
    speech: Speech,
    record: Record,
    changed: bool,
    pong: bool,
    out: Vec<Out>,
    /// Position of the log that the mail comes after.
    horizon: Offset,
}

impl Batch<'_> {
    /// Decides about all packets; why the session must end, if it must.
    fn take(&mut self, text: &str) -> Option<Ending> {
        for packet in engine::decode_payload(text, PACKETS_MAX) {
            let Ok(packet) = packet else {
                return Some(Ending::EngineProtocol("not an Engine.IO payload"));
            };
            let incoming = match packet {
                engine::Packet::Message(text) => Incoming::Text(text),
                engine::Packet::Binary(bytes) => Incoming::Binary(bytes),
                engine::Packet::Pong(_) => {
                    self.pong = true;
                    continue;
                }
                engine::Packet::Close => return Some(Ending::ClientLeft),
                engine::Packet::Ping(_) => return Some(Ending::EngineProtocol("ping from a client")),
                engine::Packet::Open(_) | engine::Packet::Upgrade | engine::Packet::Noop => continue,
            };
            if let Err(ending) = self.message(incoming) {
                return Some(ending);
            }
        }
        None
    }

    fn message(&mut self, incoming: Incoming<'_>) -> Result<(), Ending> {
        if self.speech == Speech::Echo {
            self.out.push(Out::Now(echo(incoming)));
            return Ok(());
        }
        let had_partial = self.record.partial.is_some();
        let effect = dispatch(self.worker, &mut self.record, incoming);
        self.changed |= had_partial || self.record.partial.is_some();
        match effect.map_err(Ending::Protocol)? {
            Effect::Nothing => {}
            Effect::Send(packet) => self.out.push(Out::Now(packet)),
            Effect::Admit(admitted) => self.admit(admitted),
            Effect::Act(act) => self.act(act),
            Effect::Left { .. } => self.changed = true,
        }
        Ok(())
    }

    fn admit(&mut self, admitted: Admitted) {
        let Admitted {
            nsp,
            who,
            data,
            wants_offsets,
            ..
        } = admitted;
        if let Some(wants) = wants_offsets {
            self.record.offsets = wants && self.worker.settings.recovery.enabled;
        }
        let joined = self.worker.new_membership(&self.record, data);
        let pid = joined.pid.as_ref().map(session::Pid::as_str);
        self.out.push(Out::Now(Packet::connect(&nsp, joined.sid.as_str(), pid)));
        self.record.who = who.or(self.record.who.take());
        self.record.settled = true;
        self.changed = true;
        if self.worker.settings.logging.connections {
            let (who, address) = (&self.record.who, &self.record.address);
            info!(nsp, who, address, transport = "polling", "client connected");
        }
        self.record.namespaces.insert(&nsp, joined);
    }

    fn act(&mut self, act: Act) {
        let mut appends: Vec<Append> = Vec::new();
        let mut refused = None;
        for action in act.actions {
            match Deed::of(&act.nsp, action) {
                Deed::Emit(emit) => appends.push(Box::pin(emit.append(&self.worker.store))),
                Deed::Join(room) => {
                    let max = self.worker.settings.socket.rooms_max;
                    let Some(joined) = self.record.namespaces.get_mut(&act.nsp) else {
                        continue;
                    };
                    match note_join(joined, &room, self.worker.head(), max) {
                        Ok(new) => self.changed |= new,
                        Err(why) => refused = Some(why),
                    }
                }
                Deed::Leave(room) => {
                    let joined = self.record.namespaces.get_mut(&act.nsp);
                    self.changed |= joined.is_some_and(|joined| joined.rooms.remove(&room).is_some());
                }
            }
        }
        self.out.push(Out::After {
            appends,
            refused,
            nsp: act.nsp,
            ack: act.ack,
        });
    }

    /// Waits for the log, and turns everything for the client into mail. Mail comes after what this
    /// POST itself published.
    async fn settle_mail(&mut self) -> Vec<(Offset, Bytes)> {
        let mut mail = Vec::with_capacity(self.out.len());
        for out in self.out.drain(..) {
            let packet = match out {
                Out::Now(packet) => packet,
                Out::After {
                    appends,
                    mut refused,
                    nsp,
                    ack,
                } => {
                    for append in appends {
                        let result = append.await;
                        if let Ok(appended) = &result {
                            self.horizon = self.horizon.max(appended.offset);
                        }
                        refused = refused.or(refusal(result));
                    }
                    let Some((id, packet)) = ack else { continue };
                    refused.map_or(packet, |why| Packet::error_ack(&nsp, id, &why))
                }
            };
            mail.push((self.horizon, packet.to_mail()));
        }
        mail
    }
}

fn echo(incoming: Incoming<'_>) -> Packet {
    match incoming {
        Incoming::Text(text) => {
            let mut message = engine::message(text.len());
            message.push_str(text);
            Packet::text(message)
        }
        Incoming::Binary(bytes) => Packet {
            text: Default::default(),
            attachments: vec![bytes],
        },
    }
}
