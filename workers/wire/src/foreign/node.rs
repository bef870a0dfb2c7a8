//! `@socket.io/redis-emitter` (MessagePack over pub/sub, requests as JSON) and
//! `@socket.io/redis-streams-adapter` (items of a stream). `@socket.io/redis-adapter` writes the same as the former.

use super::msgpack::{except as except_of, field, names as names_of, push_json, read};
use super::{Audience, ForeignError, Order, emit, given, names, names_except, namespace, object};
use crate::json;
use bytes::Bytes;
use rmpv::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

/// socket.io's `RequestType`s, over pub/sub.
mod request_type {
    pub(super) const REMOTE_JOIN: u64 = 2;
    pub(super) const REMOTE_LEAVE: u64 = 3;
    pub(super) const REMOTE_DISCONNECT: u64 = 4;
}

/// socket.io-adapter's `MessageType`s, in the stream.
mod message_type {
    pub(super) const BROADCAST: u64 = 3;
    pub(super) const SOCKETS_JOIN: u64 = 4;
    pub(super) const SOCKETS_LEAVE: u64 = 5;
    pub(super) const DISCONNECT_SOCKETS: u64 = 6;
}

/// What both emitters may say in JSON. The streams emitter writes MessagePack if there are binary values.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", default)]
    kind: u64,
    #[serde(borrow, default)]
    opts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    packet: Option<&'a RawValue>,
    #[serde(borrow, default)]
    rooms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    close: Option<&'a RawValue>,
    /// Of requests for one socket, by emitters before socket.io 4.
    #[serde(borrow, default)]
    sid: Option<&'a RawValue>,
    #[serde(borrow, default)]
    room: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Options<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    rooms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    except: Option<&'a RawValue>,
    #[serde(borrow, default)]
    flags: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Flags {
    #[serde(default)]
    volatile: bool,
}

#[derive(Deserialize)]
struct Packet<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    nsp: Option<&'a RawValue>,
}

const NO_OPTIONS: ForeignError =
    ForeignError::Shape("options with `rooms`, which say which clients it is for, are missing");
const NO_DATA: ForeignError = ForeignError::Shape("the packet's data is no list");
const NO_EVENT: ForeignError = ForeignError::Shape("the packet is no event");

impl Message<'_> {
    /// The clients that it is for, and whether it is volatile.
    fn audience(&self, nsp: String) -> Result<(Audience, bool), ForeignError> {
        if let (None, Some(sid)) = (self.opts, self.sid) {
            let rooms = vec![json::name(sid.get()).ok_or(ForeignError::Target)?];
            let except = Vec::new();
            return Ok((Audience { nsp, rooms, except }, false));
        }
        let options: Options<'_> = object(self.opts.ok_or(NO_OPTIONS)?.get().as_bytes())?;
        let flags = options
            .flags
            .and_then(|flags| object::<Flags>(flags.get().as_bytes()).ok());
        let audience = Audience {
            nsp,
            rooms: names(options.rooms.ok_or(NO_OPTIONS)?.get())?,
            except: options
                .except
                .map_or_else(Vec::new, |except| names_except(except.get())),
        };
        Ok((audience, flags.unwrap_or_default().volatile))
    }

    /// The rooms that sockets join or leave.
    fn rooms(&self) -> Result<Vec<String>, ForeignError> {
        let rooms = self.rooms.or(self.room.filter(|_| self.opts.is_none()));
        names(rooms.ok_or(ForeignError::Shape("`rooms` is missing"))?.get())
    }

    fn closes(&self) -> bool {
        !matches!(
            self.close.map(RawValue::get),
            None | Some("null" | "false" | "0" | "\"\"")
        )
    }

    /// The event in the packet, for `nsp` if the packet names none.
    fn event(&self, nsp: String) -> Result<Order, ForeignError> {
        let packet = self.packet.ok_or(ForeignError::Shape("`packet` is missing"))?;
        let packet: Packet<'_> = object(packet.get().as_bytes())?;
        if !packet.kind.is_none_or(|kind| matches!(kind.get(), "2" | "5")) {
            return Err(NO_EVENT);
        }
        let data = packet
            .data
            .map(RawValue::get)
            .filter(|data| json::inside(data).is_some());
        let nsp = match packet.nsp {
            None => nsp,
            Some(named) => {
                json::string(named.get()).ok_or(ForeignError::Shape("the packet's namespace is no string"))?
            }
        };
        let (audience, volatile) = self.audience(namespace(Some(nsp)))?;
        emit(audience, data.ok_or(NO_DATA)?.to_owned(), Vec::new(), volatile, None)
    }
}

/// The namespace in a channel `<prefix>#<nsp>#…`.
#[must_use]
pub fn channel_namespace<'a>(channel: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = channel.strip_prefix(prefix)?.strip_prefix('#')?;
    let (nsp, _) = rest.split_once('#')?;
    nsp.starts_with('/').then_some(nsp)
}

/// Reads a broadcast: `[uid, packet, options]`.
///
/// # Errors
/// [`ForeignError`] if it is none.
pub fn broadcast(message: &[u8]) -> Result<Order, ForeignError> {
    let message = read(message)?;
    match message.as_array().map(Vec::as_slice) {
        Some([_uid, packet, options]) => packet_order(packet, options, "/".to_owned()),
        // A request of servers among themselves, by the streams adapter.
        _ if message.is_map() => Ok(Order::Nothing),
        _ => Err(ForeignError::Shape("a broadcast is a list of uid, packet and options")),
    }
}

/// Reads a request for a namespace: JSON with a `type`.
///
/// # Errors
/// [`ForeignError`] if it is none.
pub fn request(nsp: &str, message: &[u8]) -> Result<Order, ForeignError> {
    // A broadcast with an ack is MessagePack: only servers can wait for it.
    if message.first() != Some(&b'{') {
        return Ok(Order::Nothing);
    }
    let message: Message<'_> = object(message)?;
    let nsp = nsp.to_owned();
    Ok(match message.kind {
        request_type::REMOTE_JOIN => Order::Join {
            rooms: message.rooms()?,
            audience: message.audience(nsp)?.0,
        },
        request_type::REMOTE_LEAVE => Order::Leave {
            rooms: message.rooms()?,
            audience: message.audience(nsp)?.0,
        },
        request_type::REMOTE_DISCONNECT => Order::Disconnect {
            audience: message.audience(nsp)?.0,
            close: message.closes(),
        },
        _ => Order::Nothing,
    })
}

/// Reads an item of the stream: fields `nsp`, `type`, `data` (JSON, or base64 of MessagePack).
///
/// # Errors
/// [`ForeignError`] if it is none.
pub fn stream_item<'a>(field_of: impl Fn(&str) -> Option<&'a str>) -> Result<Order, ForeignError> {
    let kind = field_of("type").ok_or(ForeignError::Shape("field `type` is missing"))?;
    let kind = kind
        .parse()
        .map_err(|_| ForeignError::Shape("field `type` is no number"))?;
    if !(message_type::BROADCAST..=message_type::DISCONNECT_SOCKETS).contains(&kind) {
        return Ok(Order::Nothing);
    }
    let nsp = namespace(field_of("nsp").map(str::to_owned));
    let data = field_of("data").ok_or(ForeignError::Shape("field `data` is missing"))?;
    if !data.starts_with('{') {
        let bytes =
            crate::base64::decode(data).map_err(|_| ForeignError::Shape("field `data` is neither JSON nor base64"))?;
        let data = read(&bytes)?;
        return match (kind, field(&data, "packet"), field(&data, "opts")) {
            (message_type::BROADCAST, Some(packet), Some(options)) => packet_order(packet, options, nsp),
            // Only what has binary values in it is written so.
            _ => Err(ForeignError::Shape("field `data` has no packet with options")),
        };
    }
    let message: Message<'_> = object(data.as_bytes())?;
    Ok(match kind {
        // With a request id it waits for acks, which only servers can give.
        message_type::BROADCAST => message.event(nsp)?,
        message_type::SOCKETS_JOIN => Order::Join {
            rooms: message.rooms()?,
            audience: message.audience(nsp)?.0,
        },
        message_type::SOCKETS_LEAVE => Order::Leave {
            rooms: message.rooms()?,
            audience: message.audience(nsp)?.0,
        },
        _ => Order::Disconnect {
            audience: message.audience(nsp)?.0,
            close: message.closes(),
        },
    })
}

/// A packet with options in MessagePack; `nsp` is used if the packet names none.
fn packet_order(packet: &Value, options: &Value, nsp: String) -> Result<Order, ForeignError> {
    if !field(packet, "type").is_none_or(|kind| matches!(kind.as_u64(), Some(2 | 5))) {
        return Err(NO_EVENT);
    }
    let data = field(packet, "data").filter(|data| data.is_array()).ok_or(NO_DATA)?;
    let nsp = match field(packet, "nsp") {
        None => nsp,
        Some(named) => named
            .as_str()
            .ok_or(ForeignError::Shape("the packet's namespace is no string"))?
            .to_owned(),
    };
    let mut args = String::new();
    let mut attachments: Vec<Bytes> = Vec::new();
    push_json(&mut args, data, &mut attachments);
    let audience = Audience {
        nsp: namespace(Some(nsp)),
        rooms: names_of(field(options, "rooms").ok_or(NO_OPTIONS)?)?,
        except: field(options, "except").map_or_else(Vec::new, except_of),
    };
    let flags = field(options, "flags").unwrap_or(&Value::Nil);
    let volatile = field(flags, "volatile").and_then(Value::as_bool).unwrap_or(false);
    emit(audience, args, attachments, volatile, None)
}
