//! WebSockets of this worker as the parts below them know them: what can be asked to end, and what can move to another
//! worker.

use crate::ending::Ending;
use crate::metrics::Stayed;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use session::{Offset, Record};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::sync::mpsc;

/// A WebSocket with its session.
pub(crate) trait Socket {
    /// Asks it to end; the first reason counts.
    fn end(&self, ending: Ending);
    /// Whether it holds this session below an epoch: another connection has resumed it.
    fn is_stale(&self, sid: &str, epoch: u64) -> bool;
    /// Whether it makes sense to ask it to move.
    fn can_move(&self) -> bool;
    /// Asks it to freeze as soon as nothing is under way, and to say so to `tell`.
    fn ask(&self, tell: mpsc::Sender<FrozenConnection>);
    /// It did not freeze in time: it continues, until it is asked again.
    fn cancel_move(&self);
    /// Why it did not move.
    fn why_it_stays(&self) -> (&'static str, Stayed);
    /// Its TCP socket once more, to be sent.
    fn descriptor(&self) -> io::Result<OwnedFd>;
    /// Another worker owns it: from now on nothing here knows it. Its TCP socket is closed, not shut down, when the last one
    /// here lets go of it.
    fn depart(&self);
    /// It stays: what was kept is sent, and what it missed of the log after a position.
    fn thaw(self: Rc<Self>, position: Offset);
}

/// What lies between a connection and its socket, in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffers {
    /// Read before anything from the socket.
    pub(crate) unread: Bytes,
    /// Written before anything else.
    pub(crate) unsent: Vec<u8>,
}

/// A keep-alive as it is handed to another worker; times are milliseconds from now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeepAliveState {
    /// As the client was told.
    pub(crate) interval_ms: u64,
    pub(crate) timeout_ms: u64,
    /// A ping was sent, or when it is due.
    pub(crate) pinged: bool,
    /// Until the pong, or the next ping.
    pub(crate) next_ms: u64,
    /// Until a namespace must have been joined.
    pub(crate) settle_ms: Option<u64>,
}

/// A connection's state between two workers. A new field needs `#[serde(default)]`; a change of
/// meaning needs another `handover::FORMAT`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectionState {
    pub(crate) record: Record,
    /// It speaks to the echo endpoint.
    pub(crate) echo: bool,
    pub(crate) base64: bool,
    pub(crate) stored: bool,
    pub(crate) written_in: u64,
    /// It has had the log up to here.
    pub(crate) position: Offset,
    #[serde(rename = "pulse")]
    pub(crate) keep_alive_state: KeepAliveState,
}

/// A frozen connection.
pub(crate) struct FrozenConnection {
    pub(crate) connection: Rc<dyn Socket>,
    pub(crate) state: ConnectionState,
    pub(crate) buffers: Buffers,
}
