//! Entries for the log, made from what an application wants to emit.

use app::Action;
use bytes::Bytes;
use session::{Entry, EntryKind, Sid, Target};
use store::{AppendError, Appended, Store};
use wire::engine;
use wire::foreign::{Order, Whom};
use wire::socket;

/// What an emit needs.
pub(crate) struct Emit {
    pub(crate) nsp: String,
    pub(crate) rooms: Vec<String>,
    /// The whole JSON array.
    pub(crate) args: String,
    pub(crate) attachments: Vec<Bytes>,
    pub(crate) id: Option<String>,
}

impl Emit {
    /// Queues the entry; the future is done when it is in the log.
    pub(crate) fn append(self, store: &Store) -> impl Future<Output = Result<Appended, AppendError>> + use<> {
        let dedupe = dedupe(&self.nsp, &self.rooms, self.id);
        let target = Target {
            nsp: self.nsp,
            rooms: self.rooms,
            except: Vec::new(),
        };
        store.append(event(EntryKind::Emit, target, &self.args, self.attachments), dedupe)
    }
}

/// What a sender is told about a publish that did not get into the log.
pub(crate) fn refusal(result: Result<Appended, AppendError>) -> Option<String> {
    result.err().map(|error| match error {
        // Redis' own words are for the log.
        AppendError::Refused { .. } => "the message log refused it".to_owned(),
        AppendError::Closed
        | AppendError::QueueFull { .. }
        | AppendError::Timeout { .. }
        | AppendError::TooLarge { .. } => error.to_string(),
    })
}

/// An id counts within its namespace and rooms.
fn dedupe(nsp: &str, rooms: &[String], id: Option<String>) -> Option<String> {
    id.map(|id| format!("{nsp}|{}|{id}", rooms.join("|")))
}

fn event(kind: EntryKind, target: Target, args: &str, attachments: Vec<Bytes>) -> Bytes {
    let mut text = engine::message(args.len() + target.nsp.len() + 8);
    socket::encode_event(&mut text, &target.nsp, None, args, attachments.len());
    let entry = Entry {
        kind,
        target,
        text: text.into(),
        attachments,
    };
    entry.encode().into()
}

/// The entry of an order from outside, and the id under which it counts once; `None` if nothing is to be done.
pub(crate) fn entry_of(order: Order) -> Option<(Bytes, Option<String>)> {
    let target = |whom: Whom| Target {
        nsp: whom.nsp,
        rooms: whom.rooms,
        except: whom.except,
    };
    let notice = |kind, whom, text: String| {
        let entry = Entry {
            kind,
            target: target(whom),
            text: text.into(),
            attachments: Vec::new(),
        };
        (Bytes::from(entry.encode()), None)
    };
    // A list of strings: serialisation cannot fail.
    let names = |rooms: &[String]| serde_json::to_string(rooms).unwrap_or_default();
    Some(match order {
        Order::Nothing => return None,
        Order::Emit {
            whom,
            args,
            attachments,
            volatile,
            id,
        } => {
            let kind = if volatile { EntryKind::Volatile } else { EntryKind::Emit };
            let dedupe = dedupe(&whom.nsp, &whom.rooms, id);
            (event(kind, target(whom), &args, attachments), dedupe)
        }
        Order::Join { whom, rooms } => notice(EntryKind::Join, whom, names(&rooms)),
        Order::Leave { whom, rooms } => notice(EntryKind::Leave, whom, names(&rooms)),
        Order::Disconnect { whom, close } => notice(EntryKind::Disconnect, whom, close.to_string()),
    })
}

/// The entry that tells all workers: this session was taken over at this epoch.
pub(crate) fn takeover(sid: &Sid, epoch: u64) -> Bytes {
    let text = format!("{sid} {epoch}").into();
    let entry = Entry {
        kind: EntryKind::Takeover,
        target: Target::default(),
        text,
        attachments: Vec::new(),
    };
    entry.encode().into()
}

/// An application's action, sorted by who carries it out.
pub(crate) enum Deed {
    Emit(Emit),
    Join(String),
    Leave(String),
}

impl Deed {
    pub(crate) fn of(nsp: &str, action: Action) -> Self {
        match action {
            Action::Emit {
                rooms,
                args,
                attachments,
                id,
            } => Self::Emit(Emit {
                nsp: nsp.to_owned(),
                rooms,
                args,
                attachments,
                id,
            }),
            Action::Join { room } => Self::Join(room),
            Action::Leave { room } => Self::Leave(room),
        }
    }
}
