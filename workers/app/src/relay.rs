//! The built-in application: rooms, publish and echo.

use crate::{Action, Admission, App, Arguments, Connecting, Reaction, Sender};
use serde::Deserialize;
use session::Event;
use std::borrow::Cow;
use wire::socket::Args;

use crate::attachments::renumber;

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
/// | `join` | room | the socket joins the room | `"ok"` |
/// | `leave` | room | the socket leaves the room | `"ok"` |
/// | `publish` | room, payload, optional `{"id"}` | event `message` with the payload to every member of the room | `"ok"` once it is in the log |
/// | `echo` | any | nothing | the same arguments |
///
/// Anything else is acked with `{"error": "…"}`.
#[derive(Debug)]
pub struct Relay {
    names: EventNames,
    room_bytes_max: usize,
}

/// Options of `publish`, its third argument.
#[derive(Debug, Default, Deserialize)]
struct PublishOptions {
    #[serde(default)]
    id: Option<String>,
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
        let room = arg.and_then(|text| serde_json::from_str::<String>(text).ok());
        let room = room.ok_or("the first argument must be the name of a room, a string")?;
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

    fn publish(&self, event: &Event<'_>) -> Result<Action, String> {
        let mut args = event.args.values();
        let room = self.room(args.next())?;
        let payload = args.next().ok_or("the second argument must be the payload")?;
        let options = match args.next() {
            None => PublishOptions::default(),
            Some(text) => serde_json::from_str(text)
                .map_err(|_| "the third argument must be an object such as {\"id\": \"…\"}")?,
        };
        if options
            .id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > PUBLISH_ID_BYTES_MAX)
        {
            return Err(format!("id must have 1 to {PUBLISH_ID_BYTES_MAX} bytes"));
        }
        let (payload, attachments) = renumber(payload, &event.attachments);
        let name = serde_json::to_string(&self.names.message).unwrap_or_default();
        Ok(Action::Emit {
            rooms: vec![room],
            args: format!("[{name},{payload}]"),
            attachments,
            id: options.id,
        })
    }
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

    fn event<'a>(&self, _sender: Sender<'_>, event: &Event<'a>) -> Reaction<'a> {
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
            return known(self.room(event.args.values().next()).map(|room| Action::Join { room }));
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
