//! What a connection speaks.

/// What is spoken on top of Engine.IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Every message comes back (`diagnostics.engine_echo`).
    Echo,
    /// Socket.IO.
    SocketIo,
}

/// How a connection wants to be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) protocol: Protocol,
    /// Binary messages go as base64 texts (`b64=1` in the query).
    pub(crate) base64: bool,
}
