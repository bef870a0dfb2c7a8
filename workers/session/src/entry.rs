//! Entries of the ordered log: which members are meant, and a packet that is encoded once for all of them.
//!
//! Form in Redis: one line of JSON (the header), a line feed, the text of the Engine.IO message,
//! and the attachments one after the other. So `XRANGE` shows an operator what an entry is about,
//! and a worker finds out whether it is concerned without touching the payload.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The members that an entry is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Namespace.
    pub nsp: String,
    /// Rooms (a Socket.IO sid is a room); none means the whole namespace.
    pub rooms: Vec<String>,
    /// Rooms whose members are left out.
    pub except: Vec<String>,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// An event for the members.
    Emit,
    /// An event for the members that may be lost: it is not replayed.
    Volatile,
    /// Members join the rooms listed in the payload (a JSON array).
    Join,
    /// Members leave the rooms listed in the payload (a JSON array).
    Leave,
    /// Members are disconnected from the namespace; the payload is `true` if their connection is closed too.
    Disconnect,
    /// An ack for one member, or an event that wants one. It is not replayed: a client drops the acks it waits for when its
    /// connection ends, and would answer twice.
    Ack,
    /// The application lets a member in that waits for it: now the client is told.
    Admit,
    /// The application does not let it in; the payload is what the client gets as CONNECT_ERROR (JSON).
    Refuse,
    /// The session named by the payload was taken over at the epoch after it (`sid epoch`): older holders close.
    Takeover,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub kind: EntryKind,
    /// The members that it is for.
    pub target: Target,
    /// For an event: the whole Engine.IO message (`42["message",1]`); otherwise see [`EntryKind`].
    pub text: Bytes,
    /// Binary attachments of the packet.
    pub attachments: Vec<Bytes>,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    k: EntryKind,
    #[serde(borrow, default, skip_serializing_if = "is_root")]
    n: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    r: Vec<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    x: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    a: Vec<usize>,
}

/// `skip_serializing_if` hands over a reference.
#[expect(clippy::ptr_arg, reason = "the signature is serde's")]
fn is_root(nsp: &Cow<'_, str>) -> bool {
    nsp.is_empty()
}

/// The bytes are no entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// No line feed, or the line before it is no header.
    #[error("log entry without a readable header")]
    Header,
    /// The lengths of the attachments do not fit the bytes.
    #[error("log entry with attachments that do not fit")]
    Attachments,
    /// The text is no UTF-8.
    #[error("log entry whose text is not UTF-8")]
    Text,
}

impl Entry {
    /// The bytes for Redis.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let borrowed = |list: &'_ [String]| {
            list.iter()
                .map(|s| Cow::Owned(s.clone()))
                .collect::<Vec<Cow<'static, str>>>()
        };
        let nsp = if self.target.nsp == "/" {
            ""
        } else {
            self.target.nsp.as_str()
        };
        let header = Header {
            k: self.kind,
            n: Cow::Borrowed(nsp),
            r: borrowed(&self.target.rooms),
            x: borrowed(&self.target.except),
            a: self.attachments.iter().map(Bytes::len).collect(),
        };
        // Strings and numbers only: serialisation cannot fail.
        let mut out = serde_json::to_vec(&header).unwrap_or_default();
        out.reserve(1 + self.text.len() + header.a.iter().sum::<usize>());
        out.push(b'\n');
        out.extend_from_slice(&self.text);
        for attachment in &self.attachments {
            out.extend_from_slice(attachment);
        }
        out
    }

    /// Reads the bytes of Redis; text and attachments share them.
    ///
    /// # Errors
    /// [`EntryError`] when they are no entry.
    pub fn decode(bytes: &Bytes) -> Result<Self, EntryError> {
        let end = bytes.iter().position(|b| *b == b'\n').ok_or(EntryError::Header)?;
        let head = bytes.get(..end).ok_or(EntryError::Header)?;
        let header: Header<'_> = serde_json::from_slice(head).map_err(|_| EntryError::Header)?;
        let mut rest = bytes.slice(end + 1..);
        let attached = header.a.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        let text_len = attached
            .and_then(|n| rest.len().checked_sub(n))
            .ok_or(EntryError::Attachments)?;
        let text = rest.split_to(text_len);
        std::str::from_utf8(&text).map_err(|_| EntryError::Text)?;
        let attachments = header.a.iter().map(|n| rest.split_to(*n)).collect();
        let nsp = if header.n.is_empty() {
            "/".to_owned()
        } else {
            header.n.into_owned()
        };
        let owned = |list: Vec<Cow<'_, str>>| list.into_iter().map(Cow::into_owned).collect();
        let target = Target {
            nsp,
            rooms: owned(header.r),
            except: owned(header.x),
        };
        Ok(Self {
            kind: header.k,
            target,
            text,
            attachments,
        })
    }

    /// Bytes that it takes in memory, for the ring's bound.
    #[must_use]
    pub fn size(&self) -> usize {
        let names = self
            .target
            .rooms
            .iter()
            .chain(&self.target.except)
            .map(|s| s.len() + 24)
            .sum::<usize>();
        128 + self.target.nsp.len()
            + names
            + self.text.len()
            + self.attachments.iter().map(|a| a.len() + 32).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entry: &Entry) {
        let bytes = Bytes::from(entry.encode());
        assert_eq!(&Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn entries_survive_their_bytes() {
        let mut entry = Entry {
            kind: EntryKind::Emit,
            target: Target {
                nsp: "/".into(),
                rooms: vec!["a\n\"b".into()],
                except: vec!["x".into()],
            },
            text: Bytes::from_static("42[\"message\",\"é\\n\"]".as_bytes()),
            attachments: vec![],
        };
        check(&entry);
        entry.target.nsp = "/chat".into();
        entry.attachments = vec![Bytes::from_static(b"\n\n"), Bytes::new(), Bytes::from_static(&[255])];
        check(&entry);
    }

    #[test]
    fn other_bytes_are_refused() {
        for bad in [
            &b""[..],
            b"\n",
            b"{}\n",
            b"{\"k\":\"emit\",\"a\":[9]}\nx",
            b"{\"k\":\"emit\"}\n\xff",
        ] {
            assert!(Entry::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}
