//! Our own form, for `POST /api/emit` and the ingest stream: an object that says all of it in plain words.

use super::python::{Names, list, several};
use super::{ForeignError, Order, Whom, emit, namespace};
use crate::json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One event. Everything but `event` may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain<'a> {
    event: String,
    /// The arguments.
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    /// The only argument, instead of `args`.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    room: Option<Names>,
    #[serde(default)]
    rooms: Option<Names>,
    #[serde(default)]
    except: Option<Names>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    volatile: bool,
    #[serde(default)]
    id: Option<String>,
}

/// Longest id (bytes).
const ID_BYTES_MAX: usize = 128;

impl Plain<'_> {
    /// The order it is.
    ///
    /// # Errors
    /// [`ForeignError`] that names the key.
    pub fn order(self) -> Result<Order, ForeignError> {
        if self
            .id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > ID_BYTES_MAX)
        {
            return Err(ForeignError::Shape("`id` must have 1 to 128 bytes"));
        }
        if self.event.is_empty() {
            return Err(ForeignError::Shape("`event` must not be empty"));
        }
        let rooms = match (self.room, self.rooms) {
            (Some(_), Some(_)) => return Err(ForeignError::Shape("give `room` or `rooms`, not both")),
            (room, rooms) => room.or(rooms).map(several),
        };
        // A list that was made and came out empty is meant for nobody; everybody would get it.
        if rooms.as_ref().is_some_and(Vec::is_empty) {
            return Err(ForeignError::Shape(
                "`rooms` is an empty list: name a room, or leave it out to reach everybody",
            ));
        }
        let rooms = rooms.unwrap_or_default();
        if rooms.iter().any(String::is_empty) {
            return Err(ForeignError::Shape("the name of a room must not be empty"));
        }
        let inside = match (self.args, self.data) {
            (Some(_), Some(_)) => return Err(ForeignError::Shape("give `args` or `data`, not both")),
            (Some(args), None) => {
                json::inside(args.get()).ok_or(ForeignError::Shape("`args` must be a list; one value is `data`"))?
            }
            (None, Some(data)) => data.get(),
            (None, None) => "",
        };
        let mut args = String::with_capacity(self.event.len() + inside.len() + 8);
        args.push('[');
        json::push_string(&mut args, &self.event);
        if !inside.is_empty() {
            args.push(',');
            args.push_str(inside);
        }
        args.push(']');
        let whom = Whom {
            nsp: namespace(self.namespace),
            rooms,
            except: list(self.except),
        };
        emit(whom, args, Vec::new(), self.volatile, self.id)
    }
}

/// Reads one event.
///
/// # Errors
/// [`ForeignError`] if it is none.
pub fn plain(text: &[u8]) -> Result<Order, ForeignError> {
    serde_json::from_slice::<Plain<'_>>(text)?.order()
}
