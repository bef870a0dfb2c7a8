//! The built-in application: rooms, publish and echo.

use crate::application::{Action, Admission, App, Arguments, Connecting, Reaction, Sender};
use serde::Deserialize;
use serde_json::value::RawValue;
use session::{Event, Sid};
use std::borrow::Cow;
use wire::json;
use wire::socket::{Args, renumber};

/// What the relay's events are called on the wire (`[app.events]`).
#[derive(Clone, Debug)]
pub struct EventNames {
    /// Joins a room.
    pub join: String,
    /// Leaves a room.
    pub leave: String,
    /// Sends a payload to a room.
    pub publish: String,
    /// Returns its arguments.
    pub echo: String,
    /// What members of a room receive.
    pub message: String,
}

/// | event | arguments | what it does | ack |
/// | --- | --- | --- | --- |
/// | `join` | room | the socket joins the room, unless that is another socket's Socket.IO id | `"ok"` |
/// | `leave` | room | the socket leaves the room | `"ok"` |
/// | `publish` | room, payload, optional `{"id"}` | event `message` with the payload to every member of the room | `"ok"` once it is in the log |
/// | `echo` | any | nothing | the same arguments |
///
/// A room, and an id, is a string or a number, which is its decimal text: `42` and `"42"` are one room. Options that are null,
/// as JavaScript sends `undefined`, are none. Anything else is acked with `{"error": "…"}`.
#[derive(Debug)]
pub struct Relay {
    names: EventNames,
    room_bytes_max: usize,
}

/// Options of `publish`, its third argument.
#[derive(Deserialize)]
struct PublishOptions<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Longest id of a publish (bytes).
const PUBLISH_ID_BYTES_MAX: usize = 128;

impl Relay {
    /// With these names; `room_bytes_max` is the longest name of a room.
    #[must_use]
    pub fn new(names: EventNames, room_bytes_max: usize) -> Self {
        Self { names, room_bytes_max }
    }

    fn room(&self, arg: Option<&str>) -> Result<String, String> {
        let room = arg.and_then(json::name);
        let room = room.ok_or("the first argument must be the name of a room, a string or a number")?;
        if room.is_empty() {
            return Err("the name of a room must not be empty".into());
        }
        if room.len() > self.room_bytes_max {
            return Err(format!(
                "the name of a room must not be longer than {} bytes",
                self.room_bytes_max
            ));
        }
        Ok(room)
    }

    /// The room of a `join`. What is sent to a Socket.IO id is for that socket: another one must not listen.
    fn joinable(&self, sender: Sender<'_>, arg: Option<&str>) -> Result<String, String> {
        let room = self.room(arg)?;
        if Sid::is_public(&room) && room != sender.sid.as_str() {
            return Err("the id of another socket cannot be joined".into());
        }
        Ok(room)
    }

    fn publish(&self, event: &Event<'_>) -> Result<Action, String> {
        let mut args = event.args.values();
        let room = self.room(args.next())?;
        let payload = args.next().ok_or("the second argument must be the payload")?;
        let id = args.next().map_or(Ok(None), publish_id)?;
        let (payload, attachments) = renumber(payload, &event.attachments);
        let name = serde_json::to_string(&self.names.message).unwrap_or_default();
        Ok(Action::Emit {
            rooms: vec![room],
            args: format!("[{name},{payload}]"),
            attachments,
            id,
        })
    }
}

/// The id in the options of a publish.
fn publish_id(options: &str) -> Result<Option<String>, String> {
    if options == "null" {
        return Ok(None);
    }
    let read = serde_json::from_str::<PublishOptions<'_>>(options).ok();
    let id = match read.filter(|_| options.starts_with('{')) {
        None => return Err("the third argument must be an object such as {\"id\": \"…\"}".into()),
        Some(PublishOptions { id: None }) => return Ok(None),
        Some(PublishOptions { id: Some(id) }) => json::name(id.get()).ok_or("id must be a string or a number")?,
    };
    if id.is_empty() || id.len() > PUBLISH_ID_BYTES_MAX {
        return Err(format!("id must have 1 to {PUBLISH_ID_BYTES_MAX} bytes"));
    }
    Ok(Some(id))
}

impl App for Relay {
    fn connect(&self, client: &Connecting<'_>) -> Admission {
        /// The part of the auth object that says who it is.
        #[derive(Deserialize)]
        struct Auth {
            #[serde(default)]
            user: Option<String>,
        }
        let auth = client.auth.and_then(|text| serde_json::from_str::<Auth>(text).ok());
        Admission::Accept {
            who: auth.and_then(|a| a.user),
            data: None,
        }
    }

    fn event<'a>(&self, sender: Sender<'_>, event: &Event<'a>) -> Reaction<'a> {
        let name = event.args.name();
        let known = |action: Result<Action, String>| match action {
            Ok(action) => Reaction {
                actions: vec![action],
                ack: text("\"ok\""),
                known: true,
            },
            Err(why) => Reaction {
                actions: vec![],
                ack: error(&why),
                known: true,
            },
        };
        if name == self.names.echo {
            return Reaction {
                actions: Vec::new(),
                ack: same(&event.args, event),
                known: true,
            };
        }
        if name == self.names.publish {
            return known(self.publish(event));
        }
        if name == self.names.join {
            return known(
                self.joinable(sender, event.args.values().next())
                    .map(|room| Action::Join { room }),
            );
        }
        if name == self.names.leave {
            return known(self.room(event.args.values().next()).map(|room| Action::Leave { room }));
        }
        let why = format!("unknown event {name:?}");
        Reaction {
            actions: Vec::new(),
            ack: error(&why),
            known: false,
        }
    }
}

fn same<'a>(args: &Args<'a>, event: &Event<'a>) -> Arguments<'a> {
    Arguments {
        inner: Cow::Borrowed(args.rest()),
        attachments: event.attachments.clone(),
    }
}

fn text(inner: &'static str) -> Arguments<'static> {
    Arguments {
        inner: Cow::Borrowed(inner),
        attachments: Vec::new(),
    }
}

fn error(why: &str) -> Arguments<'static> {
    let inner = serde_json::json!({ "error": why }).to_string();
    Arguments {
        inner: Cow::Owned(inner),
        attachments: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use wire::socket::{Limits, Packet, decode};

    fn relay() -> Relay {
        let names = EventNames {
            join: "join".into(),
            leave: "leave".into(),
            publish: "publish".into(),
            echo: "echo".into(),
            message: "message".into(),
        };
        Relay::new(names, 30)
    }

    /// What the relay does about an event, and its ack.
    fn ask(packet: &str, attachments: &[&'static [u8]]) -> (Vec<Action>, String) {
        let Ok(Packet::Event { nsp, ack, args, .. }) = decode(packet, &Limits::default()) else {
            panic!("no event: {packet}");
        };
        let attachments = attachments.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        let event = Event {
            nsp,
            ack,
            args,
            attachments,
        };
        let sid = Sid::public([1; 12]);
        let reaction = relay().event(Sender { sid: &sid, who: None }, &event);
        (reaction.actions, reaction.ack.inner.into_owned())
    }

    #[test]
    fn a_number_is_the_room_of_its_text() {
        for (written, room) in [
            ("42", "42"),
            ("\"42\"", "42"),
            ("42.0", "42"),
            ("-1", "-1"),
            ("1e3", "1000"),
            (r#""\ud800""#, "\u{fffd}"),
        ] {
            let room = || room.to_owned();
            let done = |action| (vec![action], "\"ok\"".to_owned());
            assert_eq!(
                ask(&format!("2[\"join\",{written}]"), &[]),
                done(Action::Join { room: room() })
            );
            assert_eq!(
                ask(&format!("2[\"leave\",{written}]"), &[]),
                done(Action::Leave { room: room() })
            );
            let emit = Action::Emit {
                rooms: vec![room()],
                args: r#"["message",1]"#.to_owned(),
                attachments: vec![],
                id: None,
            };
            assert_eq!(ask(&format!("2[\"publish\",{written},1]"), &[]), done(emit));
        }
        for written in ["null", "true", "{}", "[]", "[\"a\"]", "1e999", "\"\""] {
            for event in ["join", "leave", "publish"] {
                let (actions, ack) = ask(&format!("2[\"{event}\",{written},1]"), &[]);
                assert!(
                    actions.is_empty() && ack.contains("error"),
                    "{event} {written}: {actions:?} {ack}"
                );
            }
        }
        assert!(ask(r#"2["join"]"#, &[]).0.is_empty());
    }

    #[test]
    fn a_socket_joins_no_other_sockets_id() {
        let (own, other) = (Sid::public([1; 12]), Sid::public([2; 12]));
        let (actions, ack) = ask(&format!(r#"2["join","{other}"]"#), &[]);
        assert_eq!((actions, ack.contains("another socket")), (vec![], true), "{ack}");
        // Written with escapes it is the same name.
        let escaped = other.as_str().replacen("_sid", r"\u005fsid", 1);
        assert_eq!(ask(&format!(r#"2["join","{escaped}"]"#), &[]).0, []);
        // Its own it is in anyway; and a message to another one is what the id is for.
        for (event, room) in [("join", &own), ("leave", &other), ("publish", &other)] {
            let (actions, ack) = ask(&format!(r#"2["{event}","{room}",1]"#), &[]);
            assert_eq!((actions.len(), ack.as_str()), (1, "\"ok\""), "{event} {room}");
        }
    }

    #[test]
    fn options_of_publish_may_be_undefined_and_ids_numbers() {
        let id_of = |options: &str| match ask(&format!("2[\"publish\",\"a\",1{options}]"), &[]) {
            (actions, ack) if ack == "\"ok\"" => match actions.into_iter().next() {
                Some(Action::Emit { id, .. }) => Ok(id),
                other => panic!("{other:?}"),
            },
            (actions, ack) => {
                assert_eq!(actions, []);
                Err(ack)
            }
        };
        for (options, id) in [
            ("", None),
            (",null", None), // JavaScript's undefined
            (",{}", None),
            (r#",{"id":null}"#, None),
            (r#",{"id":7}"#, Some("7")),
            (r#",{"id":7.0}"#, Some("7")),
            (r#",{"id":"7"}"#, Some("7")),
            (r#",{"id":"a","other":[1]}"#, Some("a")),
            (r#", { "id" : -3 } "#, Some("-3")),
        ] {
            assert_eq!(id_of(options), Ok(id.map(str::to_owned)), "{options}");
        }
        for options in [
            ",1",
            ",true",
            ",\"a\"",
            ",[]",
            ",[\"a\"]",
            r#",{"id":true}"#,
            r#",{"id":{}}"#,
            r#",{"id":""}"#,
        ] {
            assert!(id_of(options).is_err_and(|ack| ack.contains("error")), "{options}");
        }
    }

    #[test]
    fn a_published_payload_stays_as_it_was_written() {
        let payload = r#"{"s":"\ud800","n":123456789012345678901234567890,"b":{"_placeholder":true,"num":1}}"#;
        let packet = format!(r#"52-["publish","a",{payload},{{"id":"x"}},{{"_placeholder":true,"num":0}}]"#);
        let (actions, _) = ask(&packet, &[b"0", b"1"]);
        let emit = Action::Emit {
            rooms: vec!["a".into()],
            args: format!(r#"["message",{}]"#, payload.replace("\"num\":1", "\"num\":0")),
            attachments: vec![Bytes::from_static(b"1")],
            id: Some("x".into()),
        };
        assert_eq!(actions, [emit]);
    }
}
