//! Our own form, for `POST /api/emit` and the ingest stream: an object that says all of it in plain words.

use super::python::{Names, list};
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
    #[serde(default, alias = "room")]
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
            rooms: list(self.rooms),
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
