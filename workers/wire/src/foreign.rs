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

/// Whom an order is for: members of the namespace, or of any of the rooms, without those of `except`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    /// Namespace, with its `/`.
    pub nsp: String,
    /// Rooms (a Socket.IO sid is one); none means the whole namespace.
    pub rooms: Vec<String>,
    /// Rooms whose members are left out.
    pub except: Vec<String>,
}

/// What somebody outside wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// An event.
    Emit {
        /// Who gets it.
        whom: Whom,
        /// The whole JSON array, name and arguments; placeholders stand for the attachments.
        args: String,
        /// Binary values.
        attachments: Vec<Bytes>,
        /// Nobody misses it: it is not replayed.
        volatile: bool,
        /// A second one with the same id is the same.
        id: Option<String>,
    },
    /// Sockets join rooms.
    Join {
        /// Which.
        whom: Whom,
        /// The rooms.
        rooms: Vec<String>,
    },
    /// Sockets leave rooms.
    Leave {
        /// Which.
        whom: Whom,
        /// The rooms.
        rooms: Vec<String>,
    },
    /// Sockets are disconnected from the namespace.
    Disconnect {
        /// Which.
        whom: Whom,
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
    /// The event is none that a client would take.
    #[error("event refused: {0}")]
    Event(#[from] Error),
}

impl From<serde_json::Error> for ForeignError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// The order to emit `[name, arguments…]`, checked as an event of a client would be.
fn emit(
    whom: Whom,
    args: String,
    attachments: Vec<Bytes>,
    volatile: bool,
    id: Option<String>,
) -> Result<Order, ForeignError> {
    let limits = socket::Limits::default();
    if !whom.nsp.starts_with('/') || whom.nsp.len() > limits.nsp_bytes_max || whom.nsp.contains(['?', ',']) {
        return Err(ForeignError::Shape(
            "the namespace must begin with / and have no ? or , in it",
        ));
    }
    json::validate(&args, limits.depth_max)?;
    socket::Args::read(&args)?;
    Ok(Order::Emit {
        whom,
        args,
        attachments,
        volatile,
        id,
    })
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
mod tests;
