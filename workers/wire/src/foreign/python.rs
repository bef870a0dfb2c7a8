//! python-socketio's `RedisManager` and `AsyncRedisManager` (`pubsub_manager.py`), JSON as of 5.15.1: one
//! channel, one object per message, `data` is the list of arguments.

use super::{Audience, ForeignError, Order, base64, emit, names, names_except, namespace, object};
use crate::json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// First byte of a pickle of protocol 2 and later.
const PICKLE: u8 = 0x80;

/// Keys that are null are as good as absent: Python writes all of them.
#[derive(Deserialize)]
struct Message<'a> {
    method: String,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    binary: bool,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(borrow, default)]
    room: Option<&'a RawValue>,
    #[serde(borrow, default)]
    skip_sid: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sid: Option<&'a RawValue>,
}

/// Reads a message of the channel.
///
/// # Errors
/// [`ForeignError`] if it is none, [`ForeignError::Pickle`] if the sender is too old.
pub fn python(message: &[u8]) -> Result<Order, ForeignError> {
    if message.first() == Some(&PICKLE) {
        return Err(ForeignError::Pickle);
    }
    let message: Message<'_> = object(message)?;
    let nsp = namespace(message.namespace.clone());
    let one = || {
        let sid = message.sid.ok_or(ForeignError::Shape("`sid` is missing"))?;
        Ok::<_, ForeignError>(Audience {
            nsp: nsp.clone(),
            rooms: vec![json::string(sid.get()).ok_or(ForeignError::Target)?],
            except: Vec::new(),
        })
    };
    let rooms = || match message.room {
        Some(room) => names(room.get()),
        None => Err(ForeignError::Shape("`room` is missing")),
    };
    match message.method.as_str() {
        "emit" => event(&message, nsp),
        "enter_room" => Ok(Order::Join {
            rooms: rooms()?,
            audience: one()?,
        }),
        "leave_room" => Ok(Order::Leave {
            rooms: rooms()?,
            audience: one()?,
        }),
        "close_room" => {
            let rooms = rooms()?;
            if rooms.is_empty() {
                return Err(ForeignError::Target);
            }
            let audience = Audience {
                nsp,
                rooms: rooms.clone(),
                except: Vec::new(),
            };
            Ok(Order::Leave { audience, rooms })
        }
        "disconnect" => Ok(Order::Disconnect {
            audience: one()?,
            close: false,
        }),
        // `callback` is an answer to another server; what is unknown is ignored, as in the original.
        _ => Ok(Order::Nothing),
    }
}

/// The clients an event is for. No room means all; an empty list means none, as in the original (`get_participants`).
fn audience(message: &Message<'_>, nsp: String) -> Result<Audience, ForeignError> {
    let rooms = match message.room {
        None => Vec::new(),
        Some(room) => {
            let rooms = names(room.get())?;
            if rooms.is_empty() {
                return Err(ForeignError::Target);
            }
            rooms
        }
    };
    let except = message.skip_sid.map_or_else(Vec::new, |skip| names_except(skip.get()));
    Ok(Audience { nsp, rooms, except })
}

fn event(message: &Message<'_>, nsp: String) -> Result<Order, ForeignError> {
    let name = message.event.ok_or(ForeignError::Shape("`event` is missing"))?.get();
    let data = message.data.map_or("null", RawValue::get);
    let mut attachments = Vec::new();
    let mut arguments = data;
    if message.binary {
        let mut parts = json::values(json::inside(data).ok_or(ForeignError::Shape("binary `data` must be a list"))?);
        arguments = parts.next().ok_or(ForeignError::Shape("binary `data` is empty"))?;
        for part in parts {
            attachments.push(base64(&serde_json::from_str::<String>(part)?)?);
        }
    }
    let mut args = String::with_capacity(name.len() + arguments.len() + 8);
    args.push('[');
    args.push_str(name);
    // Python's None as the only argument reaches clients as no argument; versions before 5.15.1 send a
    // value that is not in a list.
    let inside = match json::inside(arguments) {
        Some("null") => "",
        Some(inside) => inside,
        None if arguments == "null" => "",
        None => arguments,
    };
    if !inside.is_empty() {
        args.push(',');
        args.push_str(inside);
    }
    args.push(']');
    emit(audience(message, nsp)?, args, attachments, false, None)
}
