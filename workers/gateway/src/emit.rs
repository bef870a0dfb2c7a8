//! Entries for the log, made from what an application wants to emit.

use app::Action;
use bytes::Bytes;
use session::{Entry, EntryKind, Sid, Target};
use store::{AppendError, Appended, Store};
use wire::engine;
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
        let mut text = engine::message(self.args.len() + self.nsp.len() + 8);
        socket::encode_event(&mut text, &self.nsp, None, &self.args, self.attachments.len());
        // An id counts within its namespace and rooms.
        let dedupe = self.id.map(|id| format!("{}|{}|{id}", self.nsp, self.rooms.join("|")));
        let target = Target {
            nsp: self.nsp,
            rooms: self.rooms,
            except: Vec::new(),
        };
        let entry = Entry {
            kind: EntryKind::Emit,
            target,
            text: text.into(),
            attachments: self.attachments,
        };
        store.append(Bytes::from(entry.encode()), dedupe)
    }
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
