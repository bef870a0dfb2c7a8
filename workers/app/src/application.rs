//! What an application is asked, and what it may answer.

use bytes::Bytes;
use serde_json::value::RawValue;
use session::{Event, Sid};
use std::borrow::Cow;

/// A client that asks to join a namespace.
#[derive(Debug)]
pub struct Connecting<'a> {
    /// The namespace, which exists.
    pub nsp: &'a str,
    /// The JSON object that the client sent along.
    pub auth: Option<&'a str>,
    /// The client's address.
    pub address: &'a str,
    /// The membership that the client wants back, if it came with the recovery id of one. It gets it only if it is let in
    /// with the same `who`; otherwise it gets a new session, and [`App::connect`] is called once more, without this.
    pub resumed: Option<Former<'a>>,
}

/// A membership as the application admitted it.
#[derive(Clone, Copy, Debug)]
pub struct Former<'a> {
    /// Its user.
    pub who: Option<&'a str>,
    /// The application's own data.
    pub data: Option<&'a RawValue>,
}

/// Longest name of a user (bytes): it is stored with every membership, shown in lists, and written to the log. Ids, names and
/// addresses of mail (254 at most, RFC 5321, 4.5.3.1.3) have room.
pub const WHO_BYTES_MAX: usize = 256;

/// Whether a client may join a namespace.
#[derive(Debug)]
pub enum Admission {
    /// It may.
    Accept {
        /// Who it is in this namespace: for the application's events, logs and operators, and for whether a session can be
        /// resumed. A longer one than [`WHO_BYTES_MAX`] is a refusal.
        who: Option<String>,
        /// The application's own data, kept with the membership. After a resume it takes the place of the former.
        data: Option<Box<RawValue>>,
    },
    /// It may not: the client gets a CONNECT_ERROR.
    Refuse {
        /// Its message.
        message: String,
        /// Its data.
        data: Option<Box<RawValue>>,
    },
}

/// The socket that an event came from.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Its Socket.IO sid.
    pub sid: &'a Sid,
    /// Who it is in the namespace of the event.
    pub who: Option<&'a str>,
}

/// Something to be done for an event, in the order of the list.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// An event for members of the namespace, through the log. Arguments as in [`Arguments`].
    Emit {
        /// Rooms that are meant; none means the whole namespace.
        rooms: Vec<String>,
        /// The whole JSON array: name and arguments.
        args: String,
        /// What the placeholders in it stand for.
        attachments: Vec<Bytes>,
        /// The client's own id of this publish: a second one within the window is not appended.
        id: Option<String>,
    },
    /// The socket joins a room.
    Join {
        /// Its name.
        room: String,
    },
    /// The socket leaves a room.
    Leave {
        /// Its name.
        room: String,
    },
}

/// Arguments of an ack.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments<'a> {
    /// What stands between the brackets of the JSON array; may be empty.
    pub inner: Cow<'a, str>,
    /// What the placeholders in it stand for.
    pub attachments: Vec<Bytes>,
}

/// What an application makes of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Reaction<'a> {
    /// To be done, in this order.
    pub actions: Vec<Action>,
    /// Sent, if the client asked for an ack, once all actions are durable.
    pub ack: Arguments<'a>,
    /// Whether the event's name was known.
    pub known: bool,
}

/// An application. Handlers must not block.
///
/// This one admits clients that send an auth object, and forwards `say` to the whole namespace:
///
/// ```
/// use app::{Action, Admission, App, Arguments, Connecting, Reaction, Sender};
/// use session::Event;
///
/// struct Chat;
///
/// impl App for Chat {
///     fn connect(&self, client: &Connecting<'_>) -> Admission {
///         match client.auth {
///             Some(auth) => Admission::Accept { who: Some(auth.to_owned()), data: None },
///             None => Admission::Refuse { message: "say who you are".to_owned(), data: None },
///         }
///     }
///
///     fn event<'a>(&self, _sender: Sender<'_>, event: &Event<'a>) -> Reaction<'a> {
///         let known = event.args.name() == "say";
///         let emit = Action::Emit {
///             rooms: Vec::new(),
///             args: event.args.whole().to_owned(),
///             attachments: event.attachments.clone(),
///             id: None,
///         };
///         Reaction {
///             actions: if known { vec![emit] } else { Vec::new() },
///             ack: Arguments { inner: "\"ok\"".into(), attachments: Vec::new() },
///             known,
///         }
///     }
/// }
///
/// let stranger = Connecting { nsp: "/", auth: None, address: "127.0.0.1", resumed: None };
/// assert!(matches!(Chat.connect(&stranger), Admission::Refuse { .. }));
/// ```
pub trait App {
    /// Decides whether a client may join a namespace; called again when it comes back, with what it was
    /// ([`Connecting::resumed`]). A refusal then leaves the former session as it is.
    fn connect(&self, client: &Connecting<'_>) -> Admission;

    /// Decides what an event leads to.
    fn event<'a>(&self, sender: Sender<'_>, event: &Event<'a>) -> Reaction<'a>;
}
