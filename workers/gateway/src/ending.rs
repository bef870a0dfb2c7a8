//! Why a session or a connection ended.

use session::Violation;
use std::fmt;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Why a connection ends. Closed set; the log and the metrics use its words.
#[derive(Debug)]
pub(crate) enum Ending {
    /// A WebSocket frame broke RFC 6455: the close code for it, and what was wrong.
    BadFrame(CloseCode, String),
    /// The client closed its engine. What it did not leave by a DISCONNECT it may come back to: the
    /// official client closes so when a poll of it failed.
    ClientLeft,
    /// No namespace was joined in time.
    ConnectTimeout,
    /// An external command disconnected the client.
    Dismissed,
    /// The worker stops; the session continues on another one.
    Drain,
    /// An operator ended the session, or Redis forgot it.
    Kicked,
    /// Entries of the log are gone that this client may have missed.
    LogLost,
    /// Another worker serves the connection now: nothing ends.
    Moved,
    /// The worker's buffers were full, and this client had much of them: `limits.buffers_bytes_max`.
    OverBudget,
    /// Two polls or two POSTs at once. The first may belong to a worker whose death was not announced yet.
    Overlap,
    /// A message is larger than `engine.max_payload_bytes`.
    PayloadTooLarge,
    /// The pong did not come in time.
    PingTimeout,
    /// The client broke the protocol.
    Protocol(Violation),
    /// The same on the Engine.IO level.
    EngineProtocol(&'static str),
    /// Too many unsent bytes: `limits.outbox_bytes_max`.
    SlowClient,
    /// Redis is away and the session could not be kept.
    StoreUnavailable,
    /// Another connection took the session over.
    TakenOver,
    /// The connection was closed or lost.
    TransportClosed,
    /// The connection failed.
    TransportError(String),
}

impl Ending {
    /// Whether the client may come back to its session: it did not leave and was not sent away.
    pub(crate) fn recoverable(&self) -> bool {
        match self {
            // As the reference server: a middlebox may have done it.
            Self::BadFrame(..)
            | Self::ClientLeft
            // Nothing is kept of a session without a membership; one that has got one this very moment keeps it.
            | Self::ConnectTimeout
            | Self::Drain
            | Self::LogLost
            | Self::OverBudget
            | Self::Overlap
            | Self::PingTimeout
            | Self::SlowClient
            | Self::StoreUnavailable
            | Self::TransportClosed
            | Self::TransportError(_) => true,
            Self::Dismissed
            | Self::EngineProtocol(_)
            | Self::Kicked
            | Self::Moved
            | Self::PayloadTooLarge
            | Self::Protocol(_)
            | Self::TakenOver => false,
        }
    }

    /// The close frame, where one says more than none. RFC 6455, 7.4.
    pub(crate) fn close_frame(&self) -> Option<CloseFrame> {
        let code = match self {
            Self::BadFrame(code, _) => *code,
            Self::Drain => CloseCode::Restart,
            Self::PayloadTooLarge => CloseCode::Size,
            Self::LogLost | Self::OverBudget | Self::SlowClient | Self::StoreUnavailable => CloseCode::Again,
            Self::ClientLeft
            | Self::ConnectTimeout
            | Self::Dismissed
            | Self::EngineProtocol(_)
            | Self::Kicked
            | Self::Moved
            | Self::Overlap
            | Self::PingTimeout
            | Self::Protocol(_)
            | Self::TakenOver
            | Self::TransportClosed
            | Self::TransportError(_) => return None,
        };
        Some(CloseFrame {
            code,
            reason: Utf8Bytes::default(),
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadFrame(_, why) => write!(f, "transport error: {why}"),
            Self::ClientLeft => f.write_str("client left"),
            Self::ConnectTimeout => f.write_str("no namespace joined in time"),
            Self::Dismissed => f.write_str("disconnected from outside"),
            Self::Drain => f.write_str("worker is draining"),
            Self::EngineProtocol(why) => write!(f, "parse error: {why}"),
            Self::Kicked => f.write_str("session was ended"),
            Self::LogLost => f.write_str("entries of the log are missing"),
            Self::Moved => f.write_str("moved to another worker"),
            Self::OverBudget => f.write_str("too much is buffered for all clients"),
            Self::Overlap => f.write_str("two requests at once"),
            Self::PayloadTooLarge => f.write_str("message too large"),
            Self::PingTimeout => f.write_str("ping timeout"),
            Self::Protocol(why) => write!(f, "parse error: {why}"),
            Self::SlowClient => f.write_str("client reads too slowly"),
            Self::StoreUnavailable => f.write_str("redis is away"),
            Self::TakenOver => f.write_str("taken over by another connection"),
            Self::TransportClosed => f.write_str("transport close"),
            Self::TransportError(why) => write!(f, "transport error: {why}"),
        }
    }
}
