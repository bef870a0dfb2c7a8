//! The session: its record, its state machine, offsets, entries of the log. Pure: inputs in, effects
//! out; no I/O, no clock, no async, no randomness of its own.

mod entry;
mod id;
mod names;
mod offset;
mod record;
pub mod trace;

pub use entry::{Entry, EntryError, EntryKind, Target};
pub use id::{IdError, Pid, Sid};
pub use names::Names;
pub use offset::{Offset, OffsetError};
pub use record::{Answer, Event, Joined, Limits, Partial, Record, RecordError, Step, Transport, Violation};
