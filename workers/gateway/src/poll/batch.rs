//! The packets of one POST: decided one after the other, their outcome stored in one step.

use crate::dispatch::{Act, Admitted, Effect, Incoming, Resume, dispatch};
use crate::emit::Deed;
use crate::ending::Ending;
use crate::fault::{self, Point};
use crate::packet::Packet;
use crate::resume::{self, Found, Lost};
use crate::worker::Worker;
use crate::ws::{Speech, note_join, refusal};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use session::{Joined, Names, Offset, Pid, Record};
use std::rc::Rc;
use store::{AppendError, Appended, PostEffects};
use tracing::info;
use wire::engine;

/// Packets of one POST; more is an attack, not a client.
const PACKETS_MAX: usize = 4096;

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
pub(super) struct Batch<'a> {
    worker: &'a Rc<Worker>,
    speech: Speech,
    record: Record,
    changed: bool,
    pong: bool,
    out: Vec<Out>,
    /// Position of the log that the mail comes after.
    horizon: Offset,
    /// What the client has seen of the log before this POST.
    sent: Offset,
    /// Memberships that come from older sessions, which are given up once this one is stored.
    resumed: Vec<Found>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(worker: &'a Rc<Worker>, speech: Speech, record: Record, sent: Offset) -> Self {
        Self {
            worker,
            speech,
            record,
            changed: false,
            pong: false,
            out: Vec::new(),
            horizon: worker.head(),
            sent,
            resumed: Vec::new(),
        }
    }

    /// What is to be stored.
    pub(super) fn effects<'b>(&'b self, mail: &'b [(Offset, Bytes)]) -> PostEffects<'b> {
        PostEffects {
            record: self.changed.then_some(&self.record),
            mail,
            pong: self.pong,
            rewind: self.resumed.iter().map(|found| found.joined.since).min(),
        }
    }

    /// The session is over: the next poll carries this, and ends it. With `forgets`, its client cannot
    /// come back to it.
    pub(super) fn say_goodbye(&mut self, farewell: &'static str, forgets: bool) {
        self.record.closing = true;
        if forgets {
            self.record.namespaces = Names::default();
        }
        self.changed = true;
        self.out.push(Out::Now(Packet::text(farewell)));
    }

    /// Once all is stored: the older sessions are given up, and what was resumed stays findable.
    pub(super) async fn take_over(&self) -> Result<(), Lost> {
        if self.pong {
            resume::refresh_pids(self.worker, &self.record).await;
        }
        let mut former = Vec::new();
        for found in &self.resumed {
            found.take_over(self.worker, &self.record.sid, &mut former).await?;
            fault::at(Point::Resumed);
        }
        Ok(())
    }

    /// Decides about all packets; why the session must end, if it must.
    pub(super) async fn take(&mut self, text: &str) -> Option<Ending> {
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
            if let Err(ending) = self.message(incoming).await {
                return Some(ending);
            }
        }
        None
    }

    async fn message(&mut self, incoming: Incoming<'_>) -> Result<(), Ending> {
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
            Effect::Admit(admitted) => self.admit(admitted).await,
            Effect::Act(act) => self.act(act),
            Effect::Left { .. } => self.changed = true,
        }
        Ok(())
    }

    async fn admit(&mut self, admitted: Admitted) {
        let resume = admitted
            .resume
            .as_ref()
            .filter(|_| self.worker.settings.recovery.enabled);
        if let Some(wants) = admitted.wants_offsets {
            self.record.offsets = wants && self.worker.settings.recovery.enabled;
        }
        let joined = match resume {
            None => None,
            Some(resume) => match self.resume(&admitted.nsp, resume).await {
                Ok(joined) => Some(joined),
                Err(lost) => {
                    resume::report(self.worker, &admitted.nsp, &lost);
                    None
                }
            },
        };
        let Admitted { nsp, who, data, .. } = admitted;
        let joined = joined.unwrap_or_else(|| self.worker.new_membership(&self.record, data));
        let pid = joined.pid.as_ref().map(Pid::as_str);
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

    /// A membership of an older session goes on here. What it missed comes with the next poll, from
    /// the log; those that were here before have had that part of the log.
    async fn resume(&mut self, nsp: &str, resume: &Resume) -> Result<Joined, Lost> {
        let found = resume::find(self.worker, &self.record.sid, nsp, resume).await?;
        fault::at(Point::Resuming);
        let joined = found.joined.clone();
        let is_resumed = |name: &str| self.resumed.iter().any(|f| f.is_of(name));
        for (name, present) in self.record.namespaces.iter_mut() {
            if !is_resumed(name) {
                present.since = present.since.max(self.sent);
            }
        }
        self.record.offsets = true;
        self.resumed.push(found);
        Ok(joined)
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
    pub(super) async fn settle_mail(&mut self) -> Vec<(Offset, Bytes)> {
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
                        fault::at(Point::Appended);
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
