//! From a client's packet to what is to be done about it; the same for both transports.

use crate::admission::{self, Identity, Refusal};
use crate::context::Context;
use crate::external::External;
use crate::membership::{self, Change};
use crate::packet::Packet;
use app::{Action, Connecting, Former, Sender};
use bytes::Bytes;
use meter::Counter;
use serde::Deserialize;
use serde_json::value::RawValue;
use session::{Answer, Event, Joined, Offset, Pid, Record, Sid, Step, Violation};
use std::rc::Rc;
use store::Unit;

/// A message of a client.
pub(crate) enum Incoming<'a> {
    /// Text behind the Engine.IO `4`.
    Text(&'a str),
    /// Binary data.
    Binary(Bytes),
}

/// What is to be done about a message.
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// Send this.
    Send(Packet),
    /// The application lets the client into a namespace.
    Admit(Admitted),
    /// The client wants a membership back: the application is asked once that is found.
    Return(Rc<Returning>),
    /// Do this, then ack.
    Act(Act),
    /// Put this into the inbox of the application.
    Deliver(Box<Unit>),
    /// The client has left a namespace, in which it was this socket: an application in processes of its own has to know.
    Left(Change, Sid),
    /// This has changed in the record.
    Changed(Change),
}

/// A client that may join a namespace.
pub(crate) struct Admitted {
    nsp: String,
    identity: Identity,
    /// `recovery=1|0` in the auth object: whether it wants offsets.
    wants_offsets: Option<bool>,
    /// The auth object, for an application in processes of its own, which has not been asked yet.
    auth: Option<String>,
}

impl Admitted {
    /// Makes the client a member, in its record; with what the application is to be asked, if it has not been.
    pub(crate) fn enter(self, context: &Context, record: &mut Record) -> (String, Joined, Option<Box<Unit>>) {
        if let Some(wants) = context.heeded(self.wants_offsets) {
            record.offsets = wants;
        }
        let mut joined = self.identity.begin(context, record);
        if let Some(external) = &context.external {
            joined.pending = true;
            record.join(&self.nsp, joined.clone());
            let unit = external.connect(record, &self.nsp, &joined, self.auth);
            return (self.nsp, joined, Some(Box::new(unit)));
        }
        membership::enter(record, &self.nsp, joined.clone());
        (self.nsp, joined, None)
    }
}

/// A client that asks for a namespace with the recovery id of a former membership.
pub(crate) struct Returning {
    pub(crate) nsp: String,
    pub(crate) pid: Pid,
    pub(crate) seen: Seen,
    auth: String,
    address: String,
    wants_offsets: Option<bool>,
}

impl Returning {
    /// Asks the application about it: as the client of a former membership, or as a new one.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn ask(&self, context: &Context, resumed: Option<Former<'_>>) -> Result<Identity, Refusal> {
        let client = Connecting {
            nsp: &self.nsp,
            auth: Some(&self.auth),
            address: &self.address,
            resumed,
        };
        admission::ask(context, &client)
    }

    /// Asks whether it may have a new session.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn anew(&self, context: &Context) -> Result<Admitted, Refusal> {
        Ok(Admitted {
            nsp: self.nsp.clone(),
            identity: self.ask(context, None)?,
            wants_offsets: self.wants_offsets,
            auth: context.external.is_some().then(|| self.auth.clone()),
        })
    }
}

/// How much of the log a client says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It had no event yet: everything since the session's start is missed.
    Nothing,
    /// What it calls its offset is none of ours, so what it missed cannot be told.
    Unreadable,
    UpTo(Offset),
}

impl Seen {
    /// Of the `offset` of an auth object; the official client leaves it out before its first event.
    fn of(raw: Option<&RawValue>) -> Self {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
            return Self::Nothing;
        };
        let text = serde_json::from_str::<String>(raw.get()).ok();
        let offset = text.and_then(|text| text.parse().ok());
        offset.map_or(Self::Unreadable, Self::UpTo)
    }
}

/// Something that an application wants done.
pub(crate) struct Act {
    pub(crate) nsp: String,
    pub(crate) actions: Vec<Action>,
    /// Ack id, and the ack for when all is done.
    pub(crate) ack: Option<(u128, Packet)>,
}

impl Act {
    /// Whether it joins and leaves rooms and does nothing else.
    pub(crate) fn changes_rooms_only(&self) -> bool {
        let is_room = |action: &Action| matches!(action, Action::Join { .. } | Action::Leave { .. });
        self.actions.iter().all(is_room)
    }
}

/// Decides about a message of a session; updates what the record says about half-arrived packets
/// and left namespaces. Events are counted in `events`.
pub(crate) fn dispatch(
    context: &Context,
    record: &mut Record,
    incoming: Incoming<'_>,
    events: &Counter,
) -> Result<Effect, Violation> {
    match incoming {
        Incoming::Text(text) => {
            let step = record.text(text, &context.limits)?;
            Ok(decide(context, record, step, events))
        }
        Incoming::Binary(bytes) => match record.binary(bytes, &context.limits)? {
            None => Ok(Effect::Nothing),
            Some(whole) => {
                let step = record.assembled(&whole, &context.limits)?;
                Ok(decide(context, record, step, events))
            }
        },
    }
}

fn decide(context: &Context, record: &Record, step: Step<'_>, events: &Counter) -> Effect {
    match step {
        Step::Nothing => Effect::Nothing,
        Step::Answer(answer) => take_answer(context, record, answer),
        Step::Event(event) => {
            events.one();
            react(context, record, &event)
        }
        Step::Connect { nsp, auth } => admit(context, record, nsp, auth),
        Step::Refuse { nsp, message } => Effect::Send(Packet::connect_error(nsp, message, None)),
        Step::Left { nsp, joined } => {
            let change = Change::Disconnected { nsp: nsp.to_owned() };
            if context.external.is_some() {
                Effect::Left(change, joined.sid)
            } else {
                Effect::Changed(change)
            }
        }
    }
}

fn react(context: &Context, record: &Record, event: &Event<'_>) -> Effect {
    // The machine lets only events of joined namespaces through.
    let Some(joined) = record.namespaces.get(event.nsp) else {
        return Effect::Nothing;
    };
    if let Some(external) = &context.external {
        return Effect::Deliver(Box::new(external.event(joined, event)));
    }
    let reaction = context.app.event(
        Sender {
            sid: &joined.sid,
            who: joined.who.as_deref(),
        },
        event,
    );
    if !reaction.known {
        context.metrics.unknown_events.one();
    }
    let ack = event.ack.map(|id| {
        (
            id,
            Packet::ack(event.nsp, id, &reaction.ack.inner, reaction.ack.attachments),
        )
    });
    if reaction.actions.is_empty() {
        return ack.map_or(Effect::Nothing, |(_, packet)| Effect::Send(packet));
    }
    Effect::Act(Act {
        nsp: event.nsp.to_owned(),
        actions: reaction.actions,
        ack,
    })
}

/// An ack from a client is for the process that asked; the built-in application asks for none.
fn take_answer(context: &Context, record: &Record, answer: Answer<'_>) -> Effect {
    let joined = record.namespaces.get(answer.nsp).filter(|_| context.external.is_some());
    let unit = joined.and_then(|joined| External::answer(joined, answer));
    unit.map_or(Effect::Nothing, |unit| Effect::Deliver(Box::new(unit)))
}

/// What concerns recovery in a CONNECT's auth object; a value of another type counts as absent.
#[derive(Default, Deserialize)]
struct Auth<'a> {
    #[serde(default, borrow)]
    pid: Option<&'a RawValue>,
    #[serde(default, borrow)]
    offset: Option<&'a RawValue>,
    #[serde(default, borrow)]
    recovery: Option<&'a RawValue>,
}

fn admit(context: &Context, record: &Record, nsp: &str, auth: Option<&str>) -> Effect {
    let said = Said::of(auth);
    if let (Some(pid), Some(auth), true) = (said.pid, auth, context.settings.recovery.enabled) {
        return Effect::Return(Rc::new(Returning {
            nsp: nsp.to_owned(),
            pid,
            seen: said.seen,
            auth: auth.to_owned(),
            address: record.address.clone(),
            wants_offsets: said.wants_offsets,
        }));
    }
    let client = Connecting {
        nsp,
        auth,
        address: &record.address,
        resumed: None,
    };
    match admission::ask(context, &client) {
        Err(refusal) => Effect::Send(refusal.packet(nsp)),
        Ok(identity) => Effect::Admit(Admitted {
            nsp: nsp.to_owned(),
            identity,
            wants_offsets: said.wants_offsets,
            auth: auth.filter(|_| context.external.is_some()).map(str::to_owned),
        }),
    }
}

/// What a client says about recovery.
struct Said {
    pid: Option<Pid>,
    seen: Seen,
    wants_offsets: Option<bool>,
}

impl Said {
    /// In the auth object of a CONNECT.
    fn of(auth: Option<&str>) -> Self {
        let auth = auth
            .and_then(|text| serde_json::from_str::<Auth<'_>>(text).ok())
            .unwrap_or_default();
        let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        Self {
            pid: text(auth.pid).and_then(|pid| Pid::parse(&pid).ok()),
            seen: Seen::of(auth.offset),
            wants_offsets: auth.recovery.and_then(|raw| flag(raw.get())),
        }
    }
}

/// `1`, `"1"` and `true` are yes, `0`, `"0"` and `false` no; anything else says nothing.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.trim_matches('"') {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_is_none_is_not_taken_for_nothing_seen() {
        let check = |auth: &str, expect: Seen| {
            let auth: Auth<'_> = serde_json::from_str(auth).expect("an object");
            assert_eq!(Seen::of(auth.offset), expect);
        };
        check("{}", Seen::Nothing);
        check(r#"{"offset":null}"#, Seen::Nothing);
        check(r#"{"offset":"9-3"}"#, Seen::UpTo(Offset::new(9, 3)));
        for garbage in [
            r#""hello""#,
            r#""""#,
            r#""9-""#,
            r#""9-3 ""#,
            r#""18446744073709551616-0""#,
            "7",
            "true",
            r#"["9-3"]"#,
            "{}",
        ] {
            check(&format!(r#"{{"offset":{garbage}}}"#), Seen::Unreadable);
        }
    }

    #[test]
    fn what_is_no_recovery_id_is_none() {
        let pid = Pid::new(&Sid::from_random([1; 15]), [2; 12]);
        let said = |auth: &str| Said::of(Some(auth)).pid;
        assert_eq!(
            said(&format!(r#"{{"pid":"{}","offset":"1-1"}}"#, pid.as_str())),
            Some(pid)
        );
        for auth in ["{}", r#"{"pid":null}"#, r#"{"pid":7}"#, r#"{"pid":"short"}"#, "[]"] {
            assert_eq!(said(auth), None, "{auth}");
        }
        assert_eq!(Said::of(None).pid, None);
    }
}
