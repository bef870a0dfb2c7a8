//! `@socket.io/redis-emitter` (MessagePack over pub/sub, requests as JSON) and
//! `@socket.io/redis-streams-adapter` (items of a stream). `@socket.io/redis-adapter` writes the same as the former.

use super::msgpack::{field, push_json, read, strings};
use super::{ForeignError, Order, Whom, emit, namespace};
use rmpv::Value;
use serde::Deserialize;

/// socket.io's `RequestType`s, over pub/sub.
mod request_type {
    pub(super) const REMOTE_JOIN: u64 = 2;
    pub(super) const REMOTE_LEAVE: u64 = 3;
    pub(super) const REMOTE_DISCONNECT: u64 = 4;
}

/// socket.io-adapter's `MessageType`s, in the stream.
mod message_type {
    pub(super) const BROADCAST: &str = "3";
    pub(super) const SOCKETS_JOIN: &str = "4";
    pub(super) const SOCKETS_LEAVE: &str = "5";
    pub(super) const DISCONNECT_SOCKETS: &str = "6";
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(default)]
    opts: Options,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    close: bool,
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
        Some([_uid, packet, options]) => packet_order(packet, options, None),
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
    let Request {
        kind,
        opts,
        rooms,
        close,
    } = serde_json::from_slice(message)?;
    let whom = Whom {
        nsp: nsp.to_owned(),
        rooms: opts.rooms,
        except: opts.except,
    };
    Ok(match kind {
        request_type::REMOTE_JOIN => Order::Join { whom, rooms },
        request_type::REMOTE_LEAVE => Order::Leave { whom, rooms },
        request_type::REMOTE_DISCONNECT => Order::Disconnect { whom, close },
        _ => Order::Nothing,
    })
}

/// Reads an item of the stream: fields `nsp`, `type`, `data` (JSON, or base64 of MessagePack).
///
/// # Errors
/// [`ForeignError`] if it is none.
pub fn stream_item<'a>(field_of: impl Fn(&str) -> Option<&'a str>) -> Result<Order, ForeignError> {
    let kind = field_of("type").ok_or(ForeignError::Shape("field `type` is missing"))?;
    let nsp = namespace(field_of("nsp").map(str::to_owned));
    let Some(data) = field_of("data") else {
        return Ok(Order::Nothing);
    };
    let data = if data.starts_with('{') {
        serde_json::from_str::<Value>(data)?
    } else {
        let bytes =
            crate::base64::decode(data).map_err(|_| ForeignError::Shape("field `data` is neither JSON nor base64"))?;
        read(&bytes)?
    };
    let options = field(&data, "opts").unwrap_or(&Value::Nil);
    let whom = || Whom {
        nsp: nsp.clone(),
        rooms: strings(field(options, "rooms")),
        except: strings(field(options, "except")),
    };
    let rooms = || strings(field(&data, "rooms"));
    Ok(match kind {
        message_type::BROADCAST => {
            let packet = field(&data, "packet").ok_or(ForeignError::Shape("`packet` is missing"))?;
            // With a request id it waits for acks, which only servers can give.
            packet_order(packet, options, Some(nsp))?
        }
        message_type::SOCKETS_JOIN => Order::Join {
            whom: whom(),
            rooms: rooms(),
        },
        message_type::SOCKETS_LEAVE => Order::Leave {
            whom: whom(),
            rooms: rooms(),
        },
        message_type::DISCONNECT_SOCKETS => Order::Disconnect {
            whom: whom(),
            close: field(&data, "close").and_then(Value::as_bool).unwrap_or(false),
        },
        _ => Order::Nothing,
    })
}

/// A packet with options; `nsp` is used if the packet names none.
fn packet_order(packet: &Value, options: &Value, nsp: Option<String>) -> Result<Order, ForeignError> {
    let data = field(packet, "data").ok_or(ForeignError::Shape("the packet has no data"))?;
    if !data.is_array() {
        return Err(ForeignError::Shape("the packet's data is no list"));
    }
    let mut args = String::new();
    let mut attachments = Vec::new();
    push_json(&mut args, data, &mut attachments);
    let named = field(packet, "nsp").and_then(Value::as_str).map(str::to_owned);
    let whom = Whom {
        nsp: namespace(named.or(nsp)),
        rooms: strings(field(options, "rooms")),
        except: strings(field(options, "except")),
    };
    let flags = field(options, "flags").unwrap_or(&Value::Nil);
    let volatile = field(flags, "volatile").and_then(Value::as_bool).unwrap_or(false);
    emit(whom, args, attachments, volatile, None)
}
