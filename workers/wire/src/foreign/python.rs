//! python-socketio's `RedisManager` and `AsyncRedisManager` (`pubsub_manager.py`), JSON as of 5.15.1: one
//! channel, one object per message, `data` is the list of arguments.

use super::{ForeignError, Order, Whom, base64, emit, namespace};
use crate::json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// First byte of a pickle of protocol 2 and later.
const PICKLE: u8 = 0x80;

#[derive(Deserialize)]
struct Message<'a> {
    method: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    binary: bool,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    room: Option<Names>,
    #[serde(default)]
    skip_sid: Option<Names>,
    #[serde(default)]
    sid: Option<String>,
}

/// One name or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Several(Vec<String>),
}

pub(super) fn list(names: Option<Names>) -> Vec<String> {
    names.map(several).unwrap_or_default()
}

pub(super) fn several(names: Names) -> Vec<String> {
    match names {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    }
}

/// Reads a message of the channel.
///
/// # Errors
/// [`ForeignError`] if it is none, [`ForeignError::Pickle`] if the sender is too old.
pub fn python(message: &[u8]) -> Result<Order, ForeignError> {
    if message.first() == Some(&PICKLE) {
        return Err(ForeignError::Pickle);
    }
    let message: Message<'_> = serde_json::from_slice(message)?;
    let nsp = namespace(message.namespace.clone());
    let one = |sid: Option<String>| {
        let sid = sid.ok_or(ForeignError::Shape("`sid` is missing"))?;
        Ok::<_, ForeignError>(Whom {
            nsp: nsp.clone(),
            rooms: vec![sid],
            except: Vec::new(),
        })
    };
    let rooms = || match message.room {
        Some(Names::One(ref room)) => Ok(vec![room.clone()]),
        Some(Names::Several(ref rooms)) => Ok(rooms.clone()),
        None => Err(ForeignError::Shape("`room` is missing")),
    };
    match message.method.as_str() {
        "emit" => event(message, nsp),
        "enter_room" => Ok(Order::Join {
            rooms: rooms()?,
            whom: one(message.sid)?,
        }),
        "leave_room" => Ok(Order::Leave {
            rooms: rooms()?,
            whom: one(message.sid)?,
        }),
        "close_room" => {
            let rooms = rooms()?;
            let whom = Whom {
                nsp,
                rooms: rooms.clone(),
                except: Vec::new(),
            };
            Ok(Order::Leave { whom, rooms })
        }
        "disconnect" => Ok(Order::Disconnect {
            whom: one(message.sid)?,
            close: false,
        }),
        // `callback` is an answer to another server; what is unknown is ignored, as in the original.
        _ => Ok(Order::Nothing),
    }
}

fn event(message: Message<'_>, nsp: String) -> Result<Order, ForeignError> {
    let name = message.event.ok_or(ForeignError::Shape("`event` is missing"))?;
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
    json::push_string(&mut args, &name);
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
    let whom = Whom {
        nsp,
        rooms: list(message.room),
        except: list(message.skip_sid),
    };
    emit(whom, args, attachments, false, None)
}
