//! Engine.IO v4: packets, polling payloads, the handshake and its refusals.
//!
//! Source: engine.io-protocol v4, "Packet encoding" and "HTTP long-polling"; engine.io 6.6.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memchr;

use crate::{Error, json};

/// Stands between the packets of a polling payload.
pub const SEPARATOR: u8 = 0x1e;

/// The type digit of a message, which every Socket.IO packet is.
pub const MESSAGE: char = '4';

/// One packet. Text is borrowed from the frame or body it came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// `0`: the server's handshake, JSON.
    Open(&'a str),
    /// `1`: the transport is to be closed.
    Close,
    /// `2`: heartbeat of the server, or `2probe` of an upgrading client.
    Ping(&'a str),
    /// `3`: answer to a ping, with its text.
    Pong(&'a str),
    /// `4`: a message; see [`crate::socket::decode`].
    Message(&'a str),
    /// `5`: the client moves to the transport this came on.
    Upgrade,
    /// `6`: nothing; releases a pending poll.
    Noop,
    /// `b` + base64 in text; the caller makes it from a WebSocket binary frame.
    Binary(Bytes),
}

/// Reads one packet: a WebSocket text frame, or one part of a payload.
///
/// # Errors
/// [`Error::Empty`], [`Error::TypeUnknown`], [`Error::DataUnexpected`], [`Error::Base64Invalid`].
pub fn decode(text: &str) -> Result<Packet<'_>, Error> {
    let mut chars = text.chars();
    let kind = chars.next().ok_or(Error::Empty)?;
    let data = chars.as_str();
    let bare = |packet| {
        if data.is_empty() {
            Ok(packet)
        } else {
            Err(Error::DataUnexpected)
        }
    };
    match kind {
        '0' => Ok(Packet::Open(data)),
        '1' => bare(Packet::Close),
        '2' => Ok(Packet::Ping(data)),
        '3' => Ok(Packet::Pong(data)),
        MESSAGE => Ok(Packet::Message(data)),
        '5' => bare(Packet::Upgrade),
        '6' => bare(Packet::Noop),
        'b' => crate::base64::decode(data).map(|bytes| Packet::Binary(bytes.into())),
        _ => Err(Error::TypeUnknown),
    }
}

/// Packets of a polling body; see [`decode_payload`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: Option<&'a str>, // None: the end, or an error was given
    left: usize,
    max: usize,
}

/// Reads a polling body packet by packet. Ends after the first error; the packets before it stand
/// and are to be handled (engine.io-parser `decodePayload`). The body's size is the caller's limit.
///
/// # Errors
/// Those of [`decode`], of which an empty body gives [`Error::Empty`]; [`Error::TooManyPackets`]
/// after `packets_max` packets.
#[must_use]
pub fn decode_payload(body: &str, packets_max: usize) -> Packets<'_> {
    Packets {
        rest: Some(body),
        left: packets_max,
        max: packets_max,
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let body = self.rest.take()?;
        if self.left == 0 {
            return Some(Err(Error::TooManyPackets { max: self.max }));
        }
        self.left -= 1;
        let split = memchr(SEPARATOR, body.as_bytes()).and_then(|at| body.split_at_checked(at));
        let (text, rest) = match split {
            Some((text, rest)) => (text, rest.strip_prefix(char::from(SEPARATOR))),
            None => (body, None),
        };
        let packet = decode(text);
        if packet.is_ok() {
            self.rest = rest;
        }
        Some(packet)
    }
}

/// Builds the answer to a poll: packets joined by [`SEPARATOR`].
#[derive(Clone, Debug, Default)]
pub struct Payload {
    text: String,
    packets: u64,
}

impl Payload {
    /// An empty payload with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            packets: 0,
        }
    }

    /// Appends a packet given as text, type digit included: `2`, `4…`. It must not hold
    /// [`SEPARATOR`]; packets of this crate never do.
    pub fn push_text(&mut self, packet: &str) {
        self.separate();
        self.text.push_str(packet);
    }

    /// Appends a binary message as `b` + base64.
    pub fn push_binary(&mut self, bytes: &[u8]) {
        self.separate();
        self.text.push('b');
        STANDARD.encode_string(bytes, &mut self.text);
    }

    /// Bytes so far, to keep the answer within the client's limits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Packets so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether nothing was pushed; such a payload must not be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The body; `Bytes::from` takes it without copying.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn separate(&mut self) {
        self.packets += 1;
        if !self.text.is_empty() {
            self.text.push(char::from(SEPARATOR));
        }
    }
}

/// An empty message, `4`, with room for `bytes` more; the encoders of [`crate::socket`] append.
#[must_use]
pub fn message(bytes: usize) -> String {
    let mut out = String::with_capacity(bytes + 1);
    out.push(MESSAGE);
    out
}

/// What the server opens a session with (protocol v4, "Handshake").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Handshake<'a> {
    /// The Engine.IO session id, a secret of this client.
    pub sid: &'a str,
    /// Transports the client may move to; empty on WebSocket.
    pub upgrades: &'a [&'a str],
    /// Time between two pings.
    pub ping_interval_ms: u64,
    /// Time a pong may take.
    pub ping_timeout_ms: u64,
    /// Bytes of the largest body or frame the server takes.
    pub max_payload: usize,
}

impl Handshake<'_> {
    /// The open packet, `0{…}`, with the reference server's key order.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut number = itoa::Buffer::new();
        let mut out = String::with_capacity(128);
        out.push_str("0{\"sid\":");
        json::push_string(&mut out, self.sid);
        out.push_str(",\"upgrades\":[");
        for (i, transport) in self.upgrades.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            json::push_string(&mut out, transport);
        }
        out.push_str("],\"pingInterval\":");
        out.push_str(number.format(self.ping_interval_ms));
        out.push_str(",\"pingTimeout\":");
        out.push_str(number.format(self.ping_timeout_ms));
        out.push_str(",\"maxPayload\":");
        out.push_str(number.format(self.max_payload));
        out.push('}');
        out
    }
}

/// Why a request was refused (engine.io `server.ts`, `Server.errors`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// `transport` is missing or not served.
    TransportUnknown = 0,
    /// No session of that id here.
    SessionUnknown = 1,
    /// A handshake by another method than GET.
    BadMethod = 2,
    /// The request does not fit the session's transport, or is malformed.
    BadRequest = 3,
    /// The origin or the client is not allowed.
    Forbidden = 4,
    /// `EIO` is not exactly `4`.
    UnsupportedProtocol = 5,
}

impl Refusal {
    /// The number clients switch on.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The text clients show.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionUnknown => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedProtocol => "Unsupported protocol version",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::TransportUnknown
            | Self::SessionUnknown
            | Self::BadMethod
            | Self::BadRequest
            | Self::UnsupportedProtocol => 400,
        }
    }

    /// The HTTP body, `application/json`.
    #[must_use]
    pub const fn json(self) -> &'static str {
        match self {
            Self::TransportUnknown => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::SessionUnknown => r#"{"code":1,"message":"Session ID unknown"}"#,
            Self::BadMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            Self::Forbidden => r#"{"code":4,"message":"Forbidden"}"#,
            Self::UnsupportedProtocol => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(bytes: &[u8]) -> Packet<'static> {
        Packet::Binary(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn decodes_packets() {
        let check = |text, expect| assert_eq!(decode(text), expect, "{text}");
        check("0{}", Ok(Packet::Open("{}")));
        check("1", Ok(Packet::Close));
        check("2", Ok(Packet::Ping("")));
        check("2probe", Ok(Packet::Ping("probe")));
        check("3", Ok(Packet::Pong("")));
        check("3probe", Ok(Packet::Pong("probe")));
        check("4", Ok(Packet::Message("")));
        check("4hello", Ok(Packet::Message("hello")));
        check("4é€", Ok(Packet::Message("é€")));
        check("5", Ok(Packet::Upgrade));
        check("6", Ok(Packet::Noop));
        check("bAQID", Ok(binary(&[1, 2, 3])));
        check("bAQIDBA==", Ok(binary(&[1, 2, 3, 4])));
        check("bAQIDBA", Ok(binary(&[1, 2, 3, 4])));
        check("bAQID\r\nBA==\r\n", Ok(binary(&[1, 2, 3, 4])));
        check("b-_-_", Ok(binary(&[0xfb, 0xff, 0xbf])));
        check("b", Ok(binary(&[])));
        check("bA", Err(Error::Base64Invalid));
        check("b????", Err(Error::Base64Invalid));
        check("bAQ==BB", Err(Error::Base64Invalid));
        check("", Err(Error::Empty));
        check("abc", Err(Error::TypeUnknown));
        check("7", Err(Error::TypeUnknown));
        check("é", Err(Error::TypeUnknown));
        check("1x", Err(Error::DataUnexpected));
        check("5x", Err(Error::DataUnexpected));
        check("6x", Err(Error::DataUnexpected));
    }

    #[test]
    fn decodes_payloads() {
        fn check(body: &str, max: usize, expect: &[Result<Packet<'_>, Error>]) {
            let got: Vec<_> = decode_payload(body, max).collect();
            assert_eq!(got, expect, "{body:?}");
        }
        check("2", 9, &[Ok(Packet::Ping(""))]);
        check("6\x1e1", 9, &[Ok(Packet::Noop), Ok(Packet::Close)]);
        check(
            "4hello\x1e2\x1e4world",
            9,
            &[
                Ok(Packet::Message("hello")),
                Ok(Packet::Ping("")),
                Ok(Packet::Message("world")),
            ],
        );
        check(
            "4a\x1ebAQID\x1ebBAUG",
            9,
            &[Ok(Packet::Message("a")), Ok(binary(&[1, 2, 3])), Ok(binary(&[4, 5, 6]))],
        );
        check("", 9, &[Err(Error::Empty)]);
        check("\x1e", 9, &[Err(Error::Empty)]);
        check("6\x1e", 9, &[Ok(Packet::Noop), Err(Error::Empty)]);
        check("6\x1eabc\x1e1", 9, &[Ok(Packet::Noop), Err(Error::TypeUnknown)]);
        check("6\x1e6", 2, &[Ok(Packet::Noop), Ok(Packet::Noop)]);
        let many = Err(Error::TooManyPackets { max: 1 });
        check("6\x1e6", 1, &[Ok(Packet::Noop), many]);
    }

    #[test]
    fn builds_payloads() {
        let mut payload = Payload::default();
        assert!(payload.is_empty());
        payload.push_text("462-7[{\"_placeholder\":true,\"num\":0}]");
        payload.push_binary(&[1, 2, 3]);
        payload.push_binary(&[4, 5, 6, 7]);
        assert_eq!(payload.len(), 36 + 6 + 10);
        assert_eq!(
            payload.finish(),
            "462-7[{\"_placeholder\":true,\"num\":0}]\x1ebAQID\x1ebBAUGBw=="
        );
    }

    #[test]
    fn encodes_the_observed_handshake() {
        let handshake = Handshake {
            sid: "xsySG-lJ9RCukTPBAAAA",
            upgrades: &["websocket"],
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            max_payload: 1_000_000,
        };
        assert_eq!(
            handshake.encode(),
            r#"0{"sid":"xsySG-lJ9RCukTPBAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
        );
        let none = Handshake {
            upgrades: &[],
            ..handshake
        };
        assert!(none.encode().contains(r#","upgrades":[],"#));
    }

    #[test]
    fn refusal_bodies_agree_with_their_parts() {
        let all = [
            Refusal::TransportUnknown,
            Refusal::SessionUnknown,
            Refusal::BadMethod,
            Refusal::BadRequest,
            Refusal::Forbidden,
            Refusal::UnsupportedProtocol,
        ];
        for (i, refusal) in all.into_iter().enumerate() {
            assert_eq!(usize::from(refusal.code()), i);
            let body = format!(r#"{{"code":{i},"message":"{}"}}"#, refusal.message());
            assert_eq!(refusal.json(), body);
            assert_eq!(refusal.status(), if i == 4 { 403 } else { 400 });
        }
    }
}
