//! What others put into Redis for our clients: the formats of the ecosystem's emitters, and our own plain one.
//! Each becomes an [`Order`]; what cannot is an error that says what to change.

mod msgpack;
mod node;
mod plain;
mod python;

pub use node::{broadcast, channel_namespace, request, stream_item};
pub use plain::{Plain, plain};
pub use python::python;

use crate::{Error, json, socket};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The clients that an order is for: members of the namespace, or of any of the rooms, without those of `except`.
///
/// A target that was given and names no room reaches no client: it is [`ForeignError::Target`], never an empty list. The
/// name of a room is a string, or a number, which is the room of its decimal text ([`json::name`]); what else stands in a
/// list names nothing: no room, and in `except` no member to leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Namespace, with its `/`.
    pub nsp: String,
    /// Rooms (a Socket.IO sid is one); none means the whole namespace.
    pub rooms: Vec<String>,
    /// Rooms whose members are left out.
    pub except: Vec<String>,
}

/// A command from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// An event.
    Emit {
        /// Who gets it.
        audience: Audience,
        /// The whole JSON array, name and arguments; placeholders stand for the attachments.
        args: String,
        /// Binary values.
        attachments: Vec<Bytes>,
        /// It may be lost: it is not replayed.
        volatile: bool,
        /// A second one with the same id is the same.
        id: Option<String>,
    },
    /// Sockets join rooms.
    Join {
        /// Which.
        audience: Audience,
        /// The rooms.
        rooms: Vec<String>,
    },
    /// Sockets leave rooms.
    Leave {
        /// Which.
        audience: Audience,
        /// The rooms.
        rooms: Vec<String>,
    },
    /// Sockets are disconnected from the namespace.
    Disconnect {
        /// Which.
        audience: Audience,
        /// Their connection is closed too.
        close: bool,
    },
    /// Something for servers of another kind, which is nothing to us.
    Nothing,
}

/// Why a message is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    /// Written by an old python-socketio; reading pickle would be running its code.
    #[error(
        "it is Python pickle, of python-socketio before 5.14: upgrade the sender to python-socketio 5.15.1 or later, which sends JSON"
    )]
    Pickle,
    /// Not the JSON that is expected.
    #[error("{0}")]
    Json(String),
    /// Not MessagePack, or nested too deep.
    #[error("not readable MessagePack: {0}")]
    MessagePack(String),
    /// Something is missing or of the wrong kind.
    #[error("{0}")]
    Shape(&'static str),
    /// A key of ours has a value of the wrong kind.
    #[error("`{key}` must be {wanted}")]
    Key {
        /// Its name.
        key: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// Rooms were given, and none of them is one.
    #[error("none of the rooms that are given is a string or a number: it reaches no client")]
    Target,
    /// The event is none that a client would take.
    #[error("event refused: {0}")]
    Event(#[from] Error),
}

impl From<serde_json::Error> for ForeignError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// The order to emit `[name, arguments…]`, checked as an event of a client would be; its attachments are checked where the
/// entry is made, as those of all events.
fn emit(
    audience: Audience,
    args: String,
    attachments: Vec<Bytes>,
    volatile: bool,
    id: Option<String>,
) -> Result<Order, ForeignError> {
    let limits = socket::Limits::default();
    let is_bad = |c: char| matches!(c, '?' | ',') || c < ' ';
    if !audience.nsp.starts_with('/') || audience.nsp.len() > limits.nsp_bytes_max || audience.nsp.contains(is_bad) {
        return Err(ForeignError::Shape(
            "the namespace must begin with / and have no ? or , or control character in it",
        ));
    }
    json::validate(&args, limits.depth_max)?;
    socket::Args::read(&args)?;
    Ok(Order::Emit {
        audience,
        args,
        attachments,
        volatile,
        id,
    })
}

/// One name or a list of them in JSON; [`ForeignError::Target`] if none is one. An empty list stays empty.
fn names(raw: &str) -> Result<Vec<String>, ForeignError> {
    let Some(inside) = json::inside(raw) else {
        return json::name(raw).map(|name| vec![name]).ok_or(ForeignError::Target);
    };
    named(json::values(inside).map(json::name))
}

/// Those that are names; [`ForeignError::Target`] if there are some and none is.
fn named(list: impl Iterator<Item = Option<String>>) -> Result<Vec<String>, ForeignError> {
    let all: Vec<Option<String>> = list.collect();
    let is_empty = all.is_empty();
    let names: Vec<String> = all.into_iter().flatten().collect();
    if names.is_empty() && !is_empty {
        return Err(ForeignError::Target);
    }
    Ok(names)
}

/// Rooms whose members are left out: what is no name leaves out no member, as for the original servers.
fn names_except(raw: &str) -> Vec<String> {
    match json::inside(raw) {
        Some(list) => json::values(list).filter_map(json::name).collect(),
        None => json::name(raw).into_iter().collect(),
    }
}

/// Reads a JSON object. Serde would take a list for one, value by value.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ForeignError> {
    let value = serde_json::from_slice(text)?;
    if text.trim_ascii_start().first() == Some(&b'{') {
        Ok(value)
    } else {
        Err(ForeignError::Shape("it is no JSON object"))
    }
}

/// For keys that may be null, which is not the same as absent.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A namespace as the senders write it: nothing means `/`.
fn namespace(nsp: Option<String>) -> String {
    match nsp {
        None => "/".to_owned(),
        Some(nsp) if nsp.is_empty() => "/".to_owned(),
        Some(nsp) => nsp,
    }
}

/// Base64 as text of a JSON value.
fn base64(text: &str) -> Result<Bytes, ForeignError> {
    crate::base64::decode(text)
        .map(Bytes::from)
        .map_err(|_| ForeignError::Shape("an attachment is not base64"))
}

#[cfg(test)]
mod compared;
#[cfg(test)]
mod tests;
