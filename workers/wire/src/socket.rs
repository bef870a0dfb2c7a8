//! Socket.IO v5: packets as they stand inside an Engine.IO message.
//!
//! `<type>[<attachments>-][<nsp>,][<ack id>][<JSON>]`. Source: socket.io-protocol v5, "Packet
//! encoding"; socket.io-parser `index.ts`. JSON is validated and kept as raw text; binary packets
//! hold placeholders for the attachments that follow them as binary messages.

mod encode;
mod placeholder;

use std::borrow::Cow;

pub use encode::{
    encode, encode_ack, encode_ack_values, encode_connect, encode_connect_error, encode_disconnect, encode_event,
    encode_event_values, event_with_offset, with_offset,
};
pub use placeholder::{check_attachments, placeholders, renumber};

use crate::engine::SEPARATOR;
use crate::{Error, json};

const ATTACHMENTS_MAX: usize = 10; // as socket.io-parser's maxAttachments
const NSP_BYTES_MAX: usize = 256;
const DEPTH_MAX: usize = 64; // below serde_json's 128, so a tree can be built of it

/// What a peer may send; more is an error and closes its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Attachments of one packet.
    pub attachments_max: usize,
    /// Bytes of a namespace, its `/` included.
    pub nsp_bytes_max: usize,
    /// Nesting of arrays and objects; the outermost array counts as 1.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attachments_max: ATTACHMENTS_MAX,
            nsp_bytes_max: NSP_BYTES_MAX,
            depth_max: DEPTH_MAX,
        }
    }
}

impl Limits {
    /// Whether a namespace can have this name.
    ///
    /// # Errors
    /// [`Error::NamespaceTooLong`], [`Error::NamespaceInvalid`].
    pub fn check_nsp(&self, nsp: &str) -> Result<(), Error> {
        if nsp.len() > self.nsp_bytes_max {
            let max = self.nsp_bytes_max;
            return Err(Error::NamespaceTooLong { max });
        }
        if nsp.bytes().any(|b| b < 0x20) {
            return Err(Error::NamespaceInvalid);
        }
        Ok(())
    }
}

/// One packet. The binary types 5 and 6 are `Event` and `Ack` with `attachments`; with none of
/// them they equal types 2 and 3, which they are written as. A namespace is `/` when not given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// `0`: the client joins a namespace, or the server confirms.
    Connect {
        /// The name as it came, with a query if the client put one there. It may be none that a namespace can have
        /// ([`Limits::check_nsp`]): a client that asks for it is refused, and its connection continues.
        nsp: &'a str,
        /// A JSON object.
        auth: Option<&'a str>,
    },
    /// `1`: the peer leaves the namespace.
    Disconnect {
        /// The namespace.
        nsp: &'a str,
    },
    /// `2`, `5`: an event.
    Event {
        /// The namespace.
        nsp: &'a str,
        /// The id that the peer wants an ack under. It comes back as it is; the reference server makes a JavaScript
        /// number of it, which is another one above 2^53, and above 10^21 a text that no client reads.
        ack: Option<u128>,
        /// Name and arguments.
        args: Args<'a>,
        /// Binary messages that follow.
        attachments: usize,
    },
    /// `3`, `6`: the answer to an event.
    Ack {
        /// The namespace.
        nsp: &'a str,
        /// The event's id.
        id: u128,
        /// A JSON array, maybe empty; see [`json::inside`] and [`json::values`].
        args: &'a str,
        /// Binary messages that follow.
        attachments: usize,
    },
    /// `4`: a namespace was refused. Only servers send it: from a client it closes the connection.
    ConnectError {
        /// The namespace.
        nsp: &'a str,
        /// A JSON object or string.
        data: Option<&'a str>,
    },
}

/// Name and arguments of an event: slices of its validated JSON array.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Args<'a> {
    whole: &'a str,
    name: Cow<'a, str>,
    rest: &'a str,
}

impl<'a> Args<'a> {
    /// Reads the array of an event, validated by the caller with [`json::validate`].
    ///
    /// # Errors
    /// [`Error::PayloadMistyped`], [`Error::EventNameInvalid`], [`Error::EventNameReserved`].
    pub(crate) fn read(whole: &'a str) -> Result<Self, Error> {
        let inside = json::inside(whole).ok_or(Error::PayloadMistyped)?;
        let (first, rest) = json::split_value(inside);
        let name = match first.as_bytes() {
            [b'"', text @ .., b'"'] => {
                if memchr::memchr(b'\\', text).is_some() {
                    Cow::Owned(json::string(first).ok_or(Error::EventNameInvalid)?)
                } else {
                    Cow::Borrowed(first.get(1..first.len() - 1).unwrap_or(""))
                }
            }
            [b'0'..=b'9' | b'-', ..] => Cow::Borrowed(first),
            _ => return Err(Error::EventNameInvalid),
        };
        if is_reserved(&name) {
            return Err(Error::EventNameReserved);
        }
        let rest = json::trim_start(rest.strip_prefix(',').unwrap_or(""));
        Ok(Self { whole, name, rest })
    }

    /// The whole array, `["name",…]`.
    #[must_use]
    pub fn whole(&self) -> &'a str {
        self.whole
    }

    /// The name, unescaped. A numeric name gives its text: like in JavaScript, `5` names the same
    /// event as `"5"`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arguments after the name as the raw text of an array's inside, e.g.
    /// `1,"2",{"3":[true]}`; empty if there are none.
    #[must_use]
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// The arguments after the name, each as raw JSON.
    #[must_use]
    pub fn values(&self) -> json::Values<'a> {
        json::values(self.rest)
    }
}

/// Reads one packet: the text of an Engine.IO message, its `4` taken off. White space after the
/// JSON is legal, as JSON has it; anything else is not.
///
/// # Errors
/// Any but those of [`crate::engine`]; the connection is to be closed on each.
pub fn decode<'a>(text: &'a str, limits: &Limits) -> Result<Packet<'a>, Error> {
    let mut chars = text.chars();
    let kind = chars.next().ok_or(Error::Empty)?;
    let rest = chars.as_str();
    match kind {
        '0' => {
            // Whether one can have that name is for the answer to say.
            let (nsp, rest) = split_nsp(rest)?;
            let (_, rest) = read_no_id(nsp, rest)?;
            let auth = read_optional(rest, limits)?;
            if auth.is_some_and(|auth| !auth.starts_with('{')) {
                return Err(Error::PayloadMistyped);
            }
            Ok(Packet::Connect { nsp, auth })
        }
        '1' => {
            let (nsp, rest) = read_plain_head(rest, limits)?;
            if !rest.is_empty() {
                return Err(Error::PayloadUnexpected);
            }
            Ok(Packet::Disconnect { nsp })
        }
        '2' => read_event(rest, 0, limits),
        '3' => read_ack(rest, 0, limits),
        '4' => {
            let (nsp, rest) = read_plain_head(rest, limits)?;
            let data = read_optional(rest, limits)?;
            if data.is_some_and(|data| !data.starts_with(['{', '"'])) {
                return Err(Error::PayloadMistyped);
            }
            Ok(Packet::ConnectError { nsp, data })
        }
        '5' => {
            let (attachments, rest) = read_attachments(rest, limits)?;
            read_event(rest, attachments, limits)
        }
        '6' => {
            let (attachments, rest) = read_attachments(rest, limits)?;
            read_ack(rest, attachments, limits)
        }
        _ => Err(Error::TypeUnknown),
    }
}

fn read_event<'a>(text: &'a str, attachments: usize, limits: &Limits) -> Result<Packet<'a>, Error> {
    let (nsp, rest) = read_nsp(text, limits)?;
    let (ack, rest) = read_id(rest)?;
    let args = Args::read(read_array(rest, attachments, limits)?)?;
    Ok(Packet::Event {
        nsp,
        ack,
        args,
        attachments,
    })
}

fn read_ack<'a>(text: &'a str, attachments: usize, limits: &Limits) -> Result<Packet<'a>, Error> {
    let (nsp, rest) = read_nsp(text, limits)?;
    let (id, rest) = read_id(rest)?;
    let id = id.ok_or(Error::AckIdMissing)?;
    let args = read_array(rest, attachments, limits)?;
    Ok(Packet::Ack {
        nsp,
        id,
        args,
        attachments,
    })
}

/// Namespace of a type that takes no id; gives it and the payload's text.
fn read_plain_head<'a>(text: &'a str, limits: &Limits) -> Result<(&'a str, &'a str), Error> {
    let (nsp, rest) = read_nsp(text, limits)?;
    read_no_id(nsp, rest)
}

fn read_no_id<'a>(nsp: &'a str, rest: &'a str) -> Result<(&'a str, &'a str), Error> {
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Error::AckIdUnexpected);
    }
    Ok((nsp, json::trim_end(rest)))
}

fn read_attachments<'a>(text: &'a str, limits: &Limits) -> Result<(usize, &'a str), Error> {
    let (digits, rest) = split_digits(text);
    let rest = rest.strip_prefix('-').ok_or(Error::AttachmentsInvalid)?;
    if digits.is_empty() {
        return Err(Error::AttachmentsInvalid);
    }
    let max = limits.attachments_max;
    match digits.parse() {
        Ok(count) if count <= max => Ok((count, rest)),
        Ok(_) | Err(_) => Err(Error::TooManyAttachments { max }), // digits only fail by overflow
    }
}

/// Any name that can be answered: answers repeat it, and a separator in it would split a polling payload.
fn split_nsp(text: &str) -> Result<(&str, &str), Error> {
    if !text.starts_with('/') {
        return Ok(("/", text));
    }
    let (nsp, rest) = text.split_once(',').unwrap_or((text, ""));
    if memchr::memchr(SEPARATOR, nsp.as_bytes()).is_some() {
        return Err(Error::NamespaceInvalid);
    }
    Ok((nsp, rest))
}

/// A name that a namespace can have.
fn read_nsp<'a>(text: &'a str, limits: &Limits) -> Result<(&'a str, &'a str), Error> {
    let (nsp, rest) = split_nsp(text)?;
    limits.check_nsp(nsp)?;
    Ok((nsp, rest))
}

fn read_id(text: &str) -> Result<(Option<u128>, &str), Error> {
    let (digits, rest) = split_digits(text);
    if digits.is_empty() {
        return Ok((None, rest));
    }
    let id = digits.parse().map_err(|_| Error::AckIdInvalid)?;
    Ok((Some(id), rest))
}

fn read_array<'a>(text: &'a str, attachments: usize, limits: &Limits) -> Result<&'a str, Error> {
    match text.as_bytes().first() {
        None => return Err(Error::PayloadMissing),
        Some(b'[') => {}
        Some(b'{' | b'"' | b't' | b'f' | b'n') => return Err(Error::PayloadMistyped),
        Some(_) => return Err(Error::JsonInvalid),
    }
    json::validate(text, limits.depth_max)?;
    check_attachments(text, attachments, limits.attachments_max)?;
    Ok(json::trim_end(text))
}

fn read_optional<'a>(text: &'a str, limits: &Limits) -> Result<Option<&'a str>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with(['{', '[', '"', 't', 'f', 'n']) {
        return Err(Error::JsonInvalid);
    }
    json::validate(text, limits.depth_max)?;
    Ok(Some(text))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Names that libraries emit to their own listeners (socket.io-parser `RESERVED_EVENTS`).
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener"
    )
}

#[cfg(test)]
mod tests;
