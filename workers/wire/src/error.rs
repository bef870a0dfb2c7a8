//! Why a peer's bytes were refused. Every variant is the peer's fault: close its connection.

use thiserror::Error;

/// What a packet broke. The connection that sent it is closed (protocol v5, "Packet decoding").
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The ack id is longer than any number that a client counts: over 128 bits.
    #[error("ack id is not a 128-bit number")]
    AckIdInvalid,
    /// An ACK must say which event it answers.
    #[error("ack without an id")]
    AckIdMissing,
    /// Only events and acks have ids.
    #[error("ack id on a packet that takes none")]
    AckIdUnexpected,
    /// Types 5 and 6 begin with digits and `-`.
    #[error("attachment count is not a number followed by '-'")]
    AttachmentsInvalid,
    /// What follows `b` is not base64.
    #[error("binary packet is not base64")]
    Base64Invalid,
    /// A close, upgrade or noop packet carries data.
    #[error("data after a packet that takes none")]
    DataUnexpected,
    /// No byte at all: an empty body, an empty packet, or nothing after a separator.
    #[error("empty packet")]
    Empty,
    /// An event's first element is not a usable name: a string or a number.
    #[error("event name is not a string or a number")]
    EventNameInvalid,
    /// An event must not be named like one the libraries emit themselves.
    #[error("event name is reserved")]
    EventNameReserved,
    /// Not JSON, or something follows it.
    #[error("payload is not json")]
    JsonInvalid,
    /// Arrays and objects nest deeper than [`Limits::depth_max`](crate::socket::Limits).
    #[error("json nests deeper than {max}")]
    JsonTooDeep {
        /// The limit that was passed.
        max: usize,
    },
    /// The namespace holds a control character.
    #[error("control character in the namespace")]
    NamespaceInvalid,
    /// The namespace exceeds [`Limits::nsp_bytes_max`](crate::socket::Limits).
    #[error("namespace is longer than {max} bytes")]
    NamespaceTooLong {
        /// The limit that was passed.
        max: usize,
    },
    /// An event or ack without its array.
    #[error("payload is missing")]
    PayloadMissing,
    /// JSON of the wrong kind for the type, e.g. an array on CONNECT.
    #[error("payload is of the wrong kind")]
    PayloadMistyped,
    /// A DISCONNECT with a payload.
    #[error("payload on a packet that takes none")]
    PayloadUnexpected,
    /// A placeholder's `num` is missing, no integer, or not below the attachment count.
    #[error("placeholder names no attachment")]
    PlaceholderInvalid,
    /// The attachment count exceeds [`Limits::attachments_max`](crate::socket::Limits).
    #[error("more than {max} attachments")]
    TooManyAttachments {
        /// The limit that was passed.
        max: usize,
    },
    /// A polling body holds more packets than allowed.
    #[error("more than {max} packets in a payload")]
    TooManyPackets {
        /// The limit that was passed.
        max: usize,
    },
    /// The type digit is unknown.
    #[error("unknown packet type")]
    TypeUnknown,
}
