//! From a client's packet to what is to be done about it; the same for both transports.

use crate::packet::Packet;
use crate::worker::Worker;
use app::{Action, Admission, App, Connecting, Sender};
use bytes::Bytes;
use meter::Counter;
use serde::Deserialize;
use serde_json::value::RawValue;
use session::{Event, Offset, Pid, Record, Step, Violation};

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
    /// Do this, then ack.
    Act(Act),
    /// The client left a namespace.
    Left {
        /// Its name.
        nsp: String,
    },
}

/// A client that may join a namespace.
pub(crate) struct Admitted {
    pub(crate) nsp: String,
    pub(crate) who: Option<String>,
    pub(crate) data: Option<Box<RawValue>>,
    /// The client wants to go on where it was.
    pub(crate) resume: Option<Resume>,
    /// `recovery=1|0` in the auth object: whether it wants offsets.
    pub(crate) wants_offsets: Option<bool>,
}

/// What a client says that comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) pid: Pid,
    pub(crate) seen: Seen,
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

/// Decides about a message of a session; updates what the record says about half-arrived packets
/// and left namespaces. Events are counted in `events`.
pub(crate) fn dispatch(
    worker: &Worker,
    record: &mut Record,
    incoming: Incoming<'_>,
    events: &Counter,
) -> Result<Effect, Violation> {
    match incoming {
        Incoming::Text(text) => {
            let step = record.text(text, &worker.limits)?;
            Ok(decide(worker, record, step, events))
        }
        Incoming::Binary(bytes) => match record.binary(bytes, &worker.limits)? {
            None => Ok(Effect::Nothing),
            Some(whole) => {
                let step = record.assembled(&whole, &worker.limits)?;
                Ok(decide(worker, record, step, events))
            }
        },
    }
}

fn decide(worker: &Worker, record: &Record, step: Step<'_>, events: &Counter) -> Effect {
    match step {
        Step::Nothing => Effect::Nothing,
        Step::Event(event) => {
            events.one();
            react(worker, record, &event)
        }
        Step::Connect { nsp, auth } => admit(&*worker.app, record, nsp, auth),
        Step::Refuse { nsp, message } => Effect::Send(Packet::connect_error(nsp, message, None)),
        Step::Left { nsp, .. } => Effect::Left { nsp: nsp.to_owned() },
    }
}

fn react(worker: &Worker, record: &Record, event: &Event<'_>) -> Effect {
    // The machine lets only events of joined namespaces through.
    let Some(joined) = record.namespaces.get(event.nsp) else {
        return Effect::Nothing;
    };
    let reaction = worker.app.event(
        Sender {
            sid: &joined.sid,
            who: record.who.as_deref(),
        },
        event,
    );
    if !reaction.known {
        worker.metrics.unknown_events.one();
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

fn admit(app: &dyn App, record: &Record, nsp: &str, auth: Option<&str>) -> Effect {
    match app.connect(&Connecting {
        nsp,
        auth,
        address: &record.address,
    }) {
        Admission::Refuse { message, data } => {
            Effect::Send(Packet::connect_error(nsp, &message, data.as_deref().map(RawValue::get)))
        }
        Admission::Accept { who, data } => {
            let auth = auth
                .and_then(|text| serde_json::from_str::<Auth<'_>>(text).ok())
                .unwrap_or_default();
            let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
            let pid = text(auth.pid).and_then(|pid| Pid::parse(&pid).ok());
            let seen = Seen::of(auth.offset);
            let wants_offsets = auth.recovery.and_then(|raw| flag(raw.get()));
            let resume = pid.map(|pid| Resume { pid, seen });
            Effect::Admit(Admitted {
                nsp: nsp.to_owned(),
                who,
                data,
                resume,
                wants_offsets,
            })
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
    use app::Reaction;
    use session::{Sid, Transport};

    /// Lets in who knows the word.
    struct Doorman;

    impl App for Doorman {
        fn connect(&self, client: &Connecting<'_>) -> Admission {
            if client.auth.is_some_and(|auth| auth.contains("please")) {
                Admission::Accept { who: None, data: None }
            } else {
                Admission::Refuse {
                    message: "who are you?".to_owned(),
                    data: None,
                }
            }
        }

        fn event<'a>(&self, _: Sender<'_>, _: &Event<'a>) -> Reaction<'a> {
            unreachable!("nothing is sent")
        }
    }

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
    fn who_comes_back_is_asked_again() {
        let sid = Sid::from_random([1; 15]);
        let pid = Pid::new(&sid, [2; 12]);
        let record = Record::new(sid, Transport::Websocket, "w".to_owned(), "::1".to_owned(), 0);
        let auth = |word: &str| format!(r#"{{"pid":"{}","offset":"1-1","token":"{word}"}}"#, pid.as_str());
        let Effect::Send(refusal) = admit(&Doorman, &record, "/", Some(&auth("hello"))) else {
            panic!("let in without the word");
        };
        assert_eq!(refusal.text.as_str(), r#"44{"message":"who are you?"}"#);
        let Effect::Admit(admitted) = admit(&Doorman, &record, "/", Some(&auth("please"))) else {
            panic!("not let in");
        };
        assert_eq!(admitted.resume.expect("a session").pid, pid);
    }
}
