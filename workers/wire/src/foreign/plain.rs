//! Our own form, for `POST /api/emit` and the ingest stream: an object that says all of it in plain words.

use super::{Audience, ForeignError, Order, emit, given, namespace, object};
use crate::json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One event. Everything but `event` may be left out. Values are read one by one, so that an error names the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    /// The arguments.
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    /// The only argument, instead of `args`.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    room: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    rooms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    except: Option<&'a RawValue>,
    #[serde(borrow, default)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow, default)]
    volatile: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Longest id (bytes).
const ID_BYTES_MAX: usize = 128;
/// What the keys for rooms take.
const ROOMS: &str = "the name of a room, a string or a number, or a list of such names";

impl Plain<'_> {
    /// The order it is.
    ///
    /// # Errors
    /// [`ForeignError`] that names the key.
    pub fn order(self) -> Result<Order, ForeignError> {
        let event = text("event", self.event)?;
        if event.is_empty() {
            return Err(ForeignError::Shape("`event` must not be empty"));
        }
        let audience = Audience {
            nsp: namespace(self.namespace.map(|nsp| text("namespace", nsp)).transpose()?),
            rooms: self.audience()?,
            except: self.except.map_or(Ok(Vec::new()), |except| rooms("except", except))?,
        };
        let inside = match (self.args, self.data) {
            (Some(_), Some(_)) => return Err(ForeignError::Shape("give `args` or `data`, not both")),
            (Some(args), None) => {
                json::inside(args.get()).ok_or(ForeignError::Shape("`args` must be a list; one value is `data`"))?
            }
            (None, Some(data)) => data.get(),
            (None, None) => "",
        };
        // As it is written: nothing is lost of a name with a lone surrogate.
        let mut args = ["[", self.event.get()].concat();
        if !inside.is_empty() {
            args.push(',');
            args.push_str(inside);
        }
        args.push(']');
        emit(audience, args, Vec::new(), self.is_volatile()?, self.id()?)
    }

    fn audience(&self) -> Result<Vec<String>, ForeignError> {
        let names = match (self.room, self.rooms) {
            (None, None) => return Ok(Vec::new()),
            (Some(_), Some(_)) => return Err(ForeignError::Shape("give `room` or `rooms`, not both")),
            (Some(room), None) => rooms("room", room)?,
            (None, Some(several)) => rooms("rooms", several)?,
        };
        // A list that came out empty is meant for no client, but would reach all of them.
        if names.is_empty() {
            return Err(ForeignError::Shape(
                "`rooms` is an empty list: name a room, or leave it out to reach everybody",
            ));
        }
        if names.iter().any(String::is_empty) {
            return Err(ForeignError::Shape("the name of a room must not be empty"));
        }
        Ok(names)
    }

    fn is_volatile(&self) -> Result<bool, ForeignError> {
        match self.volatile.map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ForeignError::Key {
                key: "volatile",
                wanted: "true or false",
            }),
        }
    }

    fn id(&self) -> Result<Option<String>, ForeignError> {
        let Some(raw) = self.id else { return Ok(None) };
        json::name(raw.get())
            .filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX)
            .map(Some)
            .ok_or(ForeignError::Key {
                key: "id",
                wanted: "a string of 1 to 128 bytes, or a number",
            })
    }
}

fn text(key: &'static str, raw: &RawValue) -> Result<String, ForeignError> {
    json::string(raw.get()).ok_or(ForeignError::Key {
        key,
        wanted: "a string",
    })
}

/// All of the names, or an error: what is no name is a mistake of the sender, which it can still be told.
fn rooms(key: &'static str, raw: &RawValue) -> Result<Vec<String>, ForeignError> {
    let names: Option<Vec<String>> = match json::inside(raw.get()) {
        Some(list) => json::values(list).map(json::name).collect(),
        None => json::name(raw.get()).map(|name| vec![name]),
    };
    names.ok_or(ForeignError::Key { key, wanted: ROOMS })
}

/// Reads one event.
///
/// # Errors
/// [`ForeignError`] if it is none.
pub fn plain(text: &[u8]) -> Result<Order, ForeignError> {
    object::<Plain<'_>>(text)?.order()
}
