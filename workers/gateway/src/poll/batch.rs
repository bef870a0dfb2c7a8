//! The packets of one POST: decided one after the other, their outcome stored in one step.

use super::get::settles_in;
use super::recent::remember;
use super::{end_with, note_foreign, patiently};
use crate::actions::{Append, Outcome, carry_out};
use crate::context::SETTLING_MARGIN;
use crate::dispatch::{Act, Admitted, Effect, Incoming, Returning, dispatch};
use crate::ending::Ending;
use crate::external;
use crate::fault::{self, Point};
use crate::lines::line;
use crate::membership::{self, Change};
use crate::notes::note;
use crate::packet::Packet;
use crate::protocol::Protocol;
use crate::resume::{self, Found, Lost};
use crate::worker::Worker;
use app::Action;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use meter::Counter;
use session::trace::Value::Number;
use session::{Joined, Names, Offset, Record};
use std::rc::Rc;
use store::{PostBegin, PostDone, PostEffects, RequestId, Settling, StoreError, Unit};
use wire::engine;

/// Packets of one POST; more is an attack, not a client.
const PACKETS_MAX: usize = 4096;

/// What was missed is only counted here: the next poll reads it.
const COLLECTED_BYTES: usize = 0;

/// Something for the client.
enum Out {
    Now(Packet),
    /// An ack for when all is in the log.
    After(Outcome<LocalBoxFuture<'static, Append>>),
}

/// How a POST stands with the store.
#[derive(Clone, Copy)]
pub(super) enum Standing {
    /// It has begun, and keeps others out.
    Begun {
        /// Whether a poll of the session is waiting somewhere.
        parked: bool,
    },
    /// The store knows nothing of it: it goes by a record that was of this revision when it was last seen.
    Guess {
        /// See [`store::PostBegin::Go`].
        revision: u64,
    },
}

/// Why the decisions stop.
pub(super) enum Stop {
    /// The guess was wrong, and nothing has come of it yet: this is what beginning properly said.
    Outrun(Box<PostBegin>),
    /// The session must end.
    Ending(Ending),
    /// The store did not answer.
    Unavailable(StoreError),
}

impl From<Ending> for Stop {
    fn from(ending: Ending) -> Self {
        Self::Ending(ending)
    }
}

/// The packets of one POST and what they lead to.
pub(super) struct Batch<'a> {
    worker: &'a Rc<Worker>,
    request: RequestId,
    protocol: Protocol,
    standing: Standing,
    record: Record,
    /// Taken so far.
    packets: u64,
    /// To be noted once they are stored: a guess may come to nothing.
    changes: Vec<Change>,
    changed: bool,
    pong: bool,
    out: Vec<Out>,
    /// Position of the log that the mail comes after.
    horizon: Offset,
    /// What the client has seen of the log before this POST.
    sent: Offset,
    /// Memberships that come from older sessions, which are given up once this one is stored.
    resumed: Vec<Found>,
    /// Events in it.
    events: Counter,
    /// Whether the session had joined a namespace before.
    was_settled: bool,
    /// For the inbox of the application, in this order.
    units: Vec<Unit>,
    /// It is to be asked about these, once they are stored.
    asks: Vec<Unit>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        request: RequestId,
        protocol: Protocol,
        standing: Standing,
        record: Record,
        sent: Offset,
    ) -> Self {
        Self {
            worker,
            request,
            protocol,
            standing,
            was_settled: record.settled,
            record,
            packets: 0,
            changes: Vec::new(),
            changed: false,
            pong: false,
            out: Vec::new(),
            horizon: worker.head(),
            sent,
            resumed: Vec::new(),
            events: Counter::new(),
            units: Vec::new(),
            asks: Vec::new(),
        }
    }

    /// Puts what the client did into the inbox of the application; whether that worked.
    pub(super) async fn deliver(&mut self) -> bool {
        put(self.worker, std::mem::take(&mut self.units)).await
    }

    /// Asks the application about new memberships, which are stored by now.
    pub(super) async fn ask_application(&mut self) -> bool {
        put(self.worker, std::mem::take(&mut self.asks)).await
    }

    /// Whether a poll of the session is waiting somewhere, as far as is known.
    pub(super) fn parked(&self) -> bool {
        matches!(self.standing, Standing::Begun { parked: true })
    }

    /// Before anything that reaches beyond the record: the log, another session, the end of this one.
    async fn begin(&mut self) -> Result<(), Stop> {
        let Standing::Guess { revision } = self.standing else {
            return Ok(());
        };
        let (store, sid) = (&self.worker.store, &self.record.sid);
        match patiently(async || store.post_begin(sid, self.request, Some(revision)).await).await {
            Ok(PostBegin::Go {
                record: None,
                sent,
                parked,
                ..
            }) => {
                self.sent = sent;
                self.standing = Standing::Begun { parked };
                Ok(())
            }
            Ok(other) => Err(Stop::Outrun(Box::new(other))),
            Err(error) => Err(Stop::Unavailable(error)),
        }
    }

    /// Stores what it led to. The record, if that was stored, is remembered.
    pub(super) async fn finish(&self, mail: &[(Offset, Bytes)]) -> Result<PostDone, StoreError> {
        let effects = PostEffects {
            record: self.changed.then_some(&self.record),
            mail,
            pong: self.pong,
            rewind: self.resumed.iter().map(|found| found.joined.since).min(),
            settling: match (self.was_settled, self.record.settled) {
                (true, _) => Settling::Over,
                (false, true) => Settling::Now,
                (false, false) => Settling::Still(settles_in(self.worker, &self.record) + SETTLING_MARGIN),
            },
        };
        let (store, sid, request) = (&self.worker.store, &self.record.sid, self.request);
        let done = match self.standing {
            Standing::Begun { .. } => patiently(async || store.post_finish(sid, request, effects.clone()).await).await,
            Standing::Guess { revision } => {
                patiently(async || store.post_at_once(sid, request, revision, effects.clone()).await).await
            }
        };
        if let (Ok(PostDone::Done { revision }), true) = (&done, self.changed) {
            remember(self.worker, *revision, &Rc::new(self.record.clone()));
        }
        done
    }

    /// Ends the session instead of storing anything for it.
    pub(super) async fn end(&self, ending: &Ending) {
        end_with(self.worker, &self.record, ending).await;
    }

    /// Notes the request in the life of its session, and the steps that came of it.
    pub(super) fn note(&self, mail: usize) {
        let worker = self.worker;
        for change in &self.changes {
            note(worker, &self.record, change);
        }
        note_foreign(worker, &self.record);
        worker.metrics.events_in.add(self.events.get());
        let fields = [("packets", Number(self.packets)), ("mail", Number(mail as u64))];
        self.worker.trace.request(&self.record.sid, "post", &fields);
    }

    /// The session is over: the next poll carries this, and ends it. With `forgets`, its client cannot
    /// come back to it.
    pub(super) fn say_goodbye(&mut self, last_packet: &'static str, forgets: bool) {
        self.record.closing = true;
        if forgets {
            self.record.namespaces = Names::default();
        }
        self.changed = true;
        self.out.push(Out::Now(Packet::text(last_packet)));
    }

    /// Once all is stored: the older sessions are given up, and what was resumed stays findable.
    pub(super) async fn take_over(&self) -> Result<(), Lost> {
        if self.pong {
            resume::refresh_pids(self.worker, &self.record).await;
        }
        let mut former = Vec::new();
        let (worker, own) = (self.worker, &self.record.sid);
        for first in &self.resumed {
            let mut later = None;
            resume::retry_on_conflict(async || {
                let found = later.as_ref().unwrap_or(first);
                let moved = found.take_over(worker, own, &mut former).await;
                if matches!(moved, Err(Lost::TakenOver)) {
                    later = Some(found.anew(worker, own, COLLECTED_BYTES).await?);
                }
                moved
            })
            .await?;
            fault::at(Point::Resumed);
        }
        Ok(())
    }

    /// Decides about all packets, up to what ends the session.
    pub(super) async fn take(&mut self, text: &str) -> Result<(), Stop> {
        match self.take_all(text).await {
            Err(Stop::Ending(ending)) => {
                self.begin().await?;
                Err(Stop::Ending(ending))
            }
            outcome => outcome,
        }
    }

    async fn take_all(&mut self, text: &str) -> Result<(), Stop> {
        for packet in engine::decode_payload(text, PACKETS_MAX) {
            self.packets += 1;
            let Ok(packet) = packet else {
                return Err(Ending::EngineProtocol("not an Engine.IO payload").into());
            };
            let incoming = match packet {
                engine::Packet::Message(text) => Incoming::Text(text),
                engine::Packet::Binary(bytes) => Incoming::Binary(bytes),
                engine::Packet::Pong(_) => {
                    self.pong = true;
                    continue;
                }
                engine::Packet::Close => return Err(Ending::ClientLeft.into()),
                engine::Packet::Ping(_) => return Err(Ending::EngineProtocol("ping from a client").into()),
                engine::Packet::Open(_) | engine::Packet::Upgrade | engine::Packet::Noop => continue,
            };
            self.message(incoming).await?;
        }
        Ok(())
    }

    async fn message(&mut self, incoming: Incoming<'_>) -> Result<(), Stop> {
        if self.protocol == Protocol::Echo {
            self.out.push(Out::Now(echo(incoming)));
            return Ok(());
        }
        let had_partial = self.record.partial.is_some();
        let effect = dispatch(self.worker, &mut self.record, incoming, &self.events);
        self.changed |= had_partial || self.record.partial.is_some();
        match effect.map_err(Ending::Protocol)? {
            Effect::Nothing => {}
            Effect::Send(packet) => self.out.push(Out::Now(packet)),
            Effect::Admit(admitted) => {
                if self.worker.external.is_some() {
                    self.begin().await?;
                }
                self.admit(admitted);
            }
            Effect::Deliver(unit) => {
                self.begin().await?;
                self.units.push(*unit);
            }
            Effect::Left(change, sid) => {
                self.begin().await?;
                self.units.push(Unit::leave(&sid, external::LEFT));
                self.changed = true;
                self.changes.push(change);
            }
            Effect::Return(returning) => self.come_back(returning).await?,
            Effect::Act(act) => self.act(act).await?,
            Effect::Changed(change) => {
                self.changed = true;
                self.changes.push(change);
            }
        }
        Ok(())
    }

    /// Lets the client into a namespace, as a new member.
    fn admit(&mut self, admitted: Admitted) {
        let (nsp, joined, asks) = admitted.enter(self.worker, &mut self.record);
        if let Some(unit) = asks {
            self.asks.push(*unit);
            self.changed = true;
            return;
        }
        self.answer(&nsp, &joined);
        self.changes.push(Change::Connected { nsp });
    }

    /// The answer to CONNECT.
    fn answer(&mut self, nsp: &str, joined: &Joined) {
        self.out.push(Out::Now(Packet::connect(nsp, joined)));
        self.changed = true;
    }

    /// Gives a client its membership back, or has it begin another one.
    async fn come_back(&mut self, returning: Rc<Returning>) -> Result<(), Stop> {
        self.begin().await?;
        let nsp = &returning.nsp;
        let lost = match self.resume(&returning).await {
            Ok(joined) => {
                self.answer(nsp, &joined);
                membership::enter(&mut self.record, nsp, joined);
                return Ok(());
            }
            Err(lost) => lost,
        };
        if let Some(error) = lost.passing() {
            resume::postpone(self.worker, nsp, &lost);
            return Err(Stop::Unavailable(error.clone()));
        }
        match resume::start_anew(self.worker, &self.record.sid, &returning, lost) {
            Ok(admitted) => self.admit(admitted),
            Err(refusal) => self.out.push(Out::Now(refusal.packet(nsp))),
        }
        Ok(())
    }

    /// A membership of an older session continues here. What it missed comes with the next poll, from
    /// the log; those that were here before have had that part of the log.
    async fn resume(&mut self, returning: &Rc<Returning>) -> Result<Joined, Lost> {
        let own = &self.record.sid;
        let found = resume::find(self.worker, own, returning, returning.seen, COLLECTED_BYTES).await?;
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

    async fn act(&mut self, act: Act) -> Result<(), Stop> {
        if act.actions.iter().any(|action| matches!(action, Action::Emit { .. })) {
            self.begin().await?;
        }
        let mut outcome = carry_out(self.worker, &mut self.record, act).boxed();
        self.changed |= !outcome.changes.is_empty();
        self.changes.append(&mut outcome.changes);
        self.out.push(Out::After(outcome));
        Ok(())
    }

    /// Waits for the log, and turns everything for the client into mail. Mail comes after what this
    /// POST itself published.
    pub(super) async fn settle_mail(&mut self) -> Vec<(Offset, Bytes)> {
        let mut mail = Vec::with_capacity(self.out.len());
        for out in self.out.drain(..) {
            let packet = match out {
                Out::Now(packet) => packet,
                Out::After(mut outcome) => {
                    let horizon = &mut self.horizon;
                    let ack = outcome.ack(None, |at| *horizon = at.max(*horizon)).await;
                    let Some(packet) = ack else { continue };
                    packet
                }
            };
            mail.push((self.horizon, packet.to_mail()));
        }
        mail
    }
}

/// Puts units into the inbox of the application; whether that worked.
async fn put(worker: &Worker, units: Vec<Unit>) -> bool {
    let Some(external) = &worker.external else { return true };
    if units.is_empty() {
        return true;
    }
    let delivered = external.deliver(units).await;
    if let Err(error) = &delivered {
        line!(warn, %error, "records of a client not stored for the application");
    }
    delivered.is_ok()
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
