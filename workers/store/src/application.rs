//! The link to an application in processes of its own: what workers write for it, and publish about it. What the
//! processes do, they do by the scripts that are published: docs/design/application-link.md.

use bytes::Bytes;
use session::{Pid, Sid};
use std::time::Duration;

/// Version of the protocol between workers and processes: names, arguments and answers of the published scripts, and the
/// fields of records.
pub const LINK_VERSION: u32 = 1;

/// What both sides go by.
#[derive(Clone, Copy, Debug)]
pub struct LinkTerms {
    /// Partitions of the inbox. Not to be changed while records wait.
    pub partitions: u32,
    /// How long a process owns a partition without a sign of life.
    pub lease: Duration,
    /// Records of a partition that may wait; more are refused.
    pub backlog_max: u64,
    /// How often a record is tried, before it is a dead letter.
    pub attempts_max: u32,
    /// Dead letters that are kept, approximately.
    pub dead_max: u64,
    /// How long the data of a socket is kept if no worker looks after it any more.
    pub forget_after: Duration,
}

impl Default for LinkTerms {
    fn default() -> Self {
        Self {
            partitions: 16,
            lease: Duration::from_secs(3),
            backlog_max: 10_000,
            attempts_max: 5,
            dead_max: 10_000,
            forget_after: Duration::from_secs(3600),
        }
    }
}

impl LinkTerms {
    /// The partition of a socket: its sid names it.
    #[must_use]
    pub fn partition(&self, sid: &Sid) -> u32 {
        let pair = sid.as_str().bytes().take(2).fold(0, |sum, b| sum * 64 + digit(b));
        pair % self.partitions.max(1)
    }
}

/// Value of a character of URL-safe base64.
fn digit(b: u8) -> u32 {
    u32::from(match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'-' => 62,
        _ => 63,
    })
}

/// Something for the application.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) kind: &'static str,
    /// A partition, or the number of a process.
    pub(crate) to: u32,
    pub(crate) sid: String,
    /// When the socket is looked after next.
    pub(crate) due: Duration,
    pub(crate) fields: Vec<(String, Bytes)>,
}

impl Unit {
    fn new(kind: &'static str, to: u32, sid: &Sid) -> Self {
        Self {
            kind,
            to,
            sid: sid.as_str().to_owned(),
            due: Duration::ZERO,
            fields: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    fn attached(mut self, attachments: Vec<Bytes>) -> Self {
        for (index, bytes) in attachments.into_iter().enumerate() {
            self.fields.push((format!("b{index}"), bytes));
        }
        self
    }

    /// A session begins. `environ` is JSON about its handshake, for the sockets that it will have; it is kept so long if it gets none.
    #[must_use]
    pub fn hello(session: &Sid, environ: String, keep: Duration) -> Self {
        let mut unit = Self::new("hello", 0, session).with("e", environ);
        unit.due = keep;
        unit
    }

    /// A client asks to join a namespace. `environ` is what is told of it if its session has
    /// said no hello, `auth` what it sent along; `session` is its
    /// Engine.IO session, by which it is looked after if it has no recovery id.
    #[must_use]
    pub fn connect(
        partition: u32,
        (sid, pid): (&Sid, Option<&Pid>),
        nsp: &str,
        environ: String,
        auth: Option<String>,
        (session, due): (&Sid, Duration),
    ) -> Self {
        let mut unit = Self::new("connect", partition, sid).with("n", nsp.to_owned());
        unit.due = due;
        unit = unit.with("session", session.as_str().to_owned());
        if let Some(pid) = pid {
            unit = unit.with("pid", pid.as_str().to_owned());
        }
        if let Some(auth) = auth {
            unit = unit.with("a", auth);
        }
        unit.with("e", environ)
    }

    /// A client sent an event. `args` is a JSON array.
    #[must_use]
    pub fn event(
        partition: u32,
        sid: &Sid,
        nsp: &str,
        ack: Option<u128>,
        args: String,
        attachments: Vec<Bytes>,
    ) -> Self {
        let mut unit = Self::new("event", partition, sid).with("n", nsp.to_owned());
        if let Some(ack) = ack {
            unit = unit.with("i", ack.to_string());
        }
        unit.with("d", args).attached(attachments)
    }

    /// A socket is gone, for a reason in python-socketio's words. It counts once.
    #[must_use]
    pub fn leave(sid: &Sid, reason: &'static str) -> Self {
        Self::new("leave", 0, sid).with("d", reason)
    }

    /// A client acks what a process emitted; `args` is a JSON array.
    #[must_use]
    pub fn answer(process: u32, sid: &Sid, id: u128, args: String, attachments: Vec<Bytes>) -> Self {
        let unit = Self::new("answer", process, sid)
            .with("k", "ack")
            .with("i", id.to_string());
        unit.with("d", args).attached(attachments)
    }

    /// A socket lives; it is looked after again in so long.
    #[must_use]
    pub fn touch(sid: &Sid, due: Duration) -> Self {
        let mut unit = Self::new("touch", 0, sid);
        unit.due = due;
        unit
    }

    /// Bytes that it takes in a queue.
    pub(crate) fn size(&self) -> usize {
        128 + self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
    }
}

/// What became of a [`Unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is stored.
    Done,
    /// Its partition has all the records that may wait, and this is not one of them.
    Full,
    /// There was nothing to be done: the socket, or the process, is gone.
    Nothing,
}

/// A socket that is to be looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its Socket.IO sid.
    pub sid: Sid,
    /// Its namespace.
    pub nsp: String,
    /// Its recovery id, if it has one.
    pub pid: Option<Pid>,
    /// The Engine.IO session in which it began.
    pub session: Option<Sid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_characters_name_the_partition() {
        let terms = LinkTerms::default();
        let mut seen = [0_u32; 16];
        for a in 0..=255_u8 {
            let sid = Sid::public([a, a.rotate_left(3), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let again = Sid::public([a, a.rotate_left(3), 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
            assert_eq!(terms.partition(&sid), terms.partition(&again));
            let slot = usize::try_from(terms.partition(&sid)).expect("small");
            *seen.get_mut(slot).expect("below 16") += 1;
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
        let one = LinkTerms { partitions: 1, ..terms };
        assert_eq!(one.partition(&Sid::public([255; 12])), 0);
    }
}
