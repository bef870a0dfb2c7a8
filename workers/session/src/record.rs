//! What is known about a session, as it stands in Redis.

mod machine;

pub use machine::{Answer, Event, Limits, Step, Violation};

use crate::{Names, Offset, Pid, Sid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Version of the record's form; a record of a later version is refused.
const VERSION: u16 = 1;
/// Room for the text of a usual record.
const TEXT_BYTES: usize = 512;

/// How a session's packets travel at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the protocol's own words")]
pub enum Transport {
    Polling,
    Websocket,
}

/// A session: everything that another worker needs to serve it. The JSON is for operators too
/// (`GET socketio:session:{sid}`). `v` and `epoch` come first and in this order: the scripts of
/// the store read the epoch by that prefix.
///
/// Older builds know one `who` for the whole session. It is still written for them and for operators; what
/// counts is [`Joined::who`]. `remote = "Self"` makes the derived functions inherent: the traits are below.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Record {
    v: u16,
    /// Fences writers: a connection that takes the session over raises it, and a write with a lower one fails.
    pub epoch: u64,
    /// The Engine.IO sid.
    pub sid: Sid,
    /// The name that all named memberships agreed on when the last one began; see [`Self::join`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    /// Whether each membership has its own name. Absent in what an older build wrote: it drops fields that it does not know,
    /// this one and the memberships' names alike.
    #[serde(default)]
    own_names: bool,
    /// Present transport.
    pub transport: Transport,
    /// The worker that holds its WebSocket, or that served it last.
    pub worker: String,
    /// The client's address.
    pub address: String,
    /// When it began, in milliseconds since 1970.
    pub created_ms: u64,
    /// Whether a namespace that this client joins gets a recovery id (see `recovery.offsets`): the events of those that
    /// have one carry their offset.
    #[serde(default)]
    pub offsets: bool,
    /// Whether any namespace was ever joined: then the connect timeout is over for good.
    #[serde(default)]
    pub settled: bool,
    /// The session is over; the next poll says so and ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closing: bool,
    /// Joined namespaces, by name.
    pub namespaces: Names<Joined>,
    /// A binary packet whose attachments have not all arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// A session's membership in a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// The Socket.IO sid: public, and a room of its own.
    pub sid: Sid,
    /// The user, if the application named one when it admitted the client to this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The private recovery id, if recovery is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Pid>,
    /// Whether the application has not said yet that the client is let in: it has been told nothing, and sends nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// Position of the log at which it was joined: nothing before it concerns this session.
    pub since: Offset,
    /// Rooms (without the own sid), each with the position of the log at which it was joined.
    #[serde(default)]
    pub rooms: Names<Offset>,
    /// The application's own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl Joined {
    /// Whether events carry their offset: to a client that was given a recovery id. It keeps the last argument of every event
    /// as its offset from then on, whatever it says for other namespaces.
    #[must_use]
    pub const fn carries_offsets(&self) -> bool {
        self.pid.is_some()
    }
}

/// A binary packet in the middle of its arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Text of the Socket.IO packet.
    pub text: String,
    /// Attachments so far.
    #[serde(with = "base64_list")]
    pub attachments: Vec<bytes::Bytes>,
}

impl Partial {
    /// Bytes of what has come.
    #[must_use]
    pub fn size(&self) -> usize {
        self.text.len() + self.attachments.iter().map(bytes::Bytes::len).sum::<usize>()
    }
}

mod base64_list {
    //! Attachments as base64 texts.
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(list: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        let decoded = list.iter().map(|text| STANDARD.decode(text).map(Bytes::from));
        decoded.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// The text in Redis is no session record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of a record.
    #[error("session record not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("session record has version {0}, this is {VERSION}")]
    Version(u16),
}

impl Record {
    /// A session that has just begun.
    #[must_use]
    pub fn new(sid: Sid, transport: Transport, worker: String, address: String, created_ms: u64) -> Self {
        Self {
            v: VERSION,
            epoch: 1,
            sid,
            who: None,
            own_names: true,
            transport,
            worker,
            address,
            created_ms,
            offsets: false,
            settled: false,
            closing: false,
            namespaces: Names::default(),
            partial: None,
        }
    }

    /// Adds or replaces the membership in a namespace.
    ///
    /// Builds that know one name for the whole session get it only if the memberships do not contradict each other: a name
    /// that was good enough for one namespace must not count in another.
    pub fn join(&mut self, nsp: &str, joined: Joined) {
        self.namespaces.insert(nsp, joined);
        self.who = match self.names()[..] {
            [name] => Some(name.to_owned()),
            _ => None,
        };
    }

    /// The different names of the memberships, for logs and operators; of a session that is in no namespace any more, the
    /// last one.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        if self.namespaces.is_empty() {
            return self.who.as_deref().into_iter().collect();
        }
        let mut names: Vec<&str> = self
            .namespaces
            .values()
            .filter_map(|joined| joined.who.as_deref())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// [`Self::names`] as one text, if there are any.
    #[must_use]
    pub fn shown_names(&self) -> Option<String> {
        Some(self.names().join(",")).filter(|names| !names.is_empty())
    }

    /// Gives the memberships of an older build's record the name of the session.
    fn inherit_names(&mut self) {
        if self.own_names {
            return;
        }
        self.own_names = true;
        for (_, joined) in self.namespaces.iter_mut() {
            joined.who.clone_from(&self.who);
        }
    }

    /// Whether events of a namespace carry their offset.
    #[must_use]
    pub fn carries_offsets(&self, nsp: &str) -> bool {
        self.namespaces.get(nsp).is_some_and(Joined::carries_offsets)
    }

    /// The text for Redis.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = Vec::with_capacity(TEXT_BYTES);
        // Maps with string keys and numbers only: serialisation cannot fail, and it is text.
        serde_json::to_writer(&mut text, self).ok();
        String::from_utf8(text).unwrap_or_default()
    }

    /// Reads the text of Redis.
    ///
    /// # Errors
    /// When it is something else, or of a later version.
    pub fn from_json(text: &str) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_str(text)?;
        if record.v > VERSION {
            return Err(RecordError::Version(record.v));
        }
        Ok(record)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut record = Self::deserialize(deserializer)?;
        record.inherit_names();
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Record {
        let (worker, address) = ("w-0.1".to_owned(), "127.0.0.1".to_owned());
        Record::new(Sid::from_random([1; 15]), Transport::Polling, worker, address, 5)
    }

    fn member(who: Option<&str>) -> Joined {
        Joined {
            sid: Sid::public([2; 12]),
            who: who.map(str::to_owned),
            pid: None,
            pending: false,
            since: Offset::new(9, 3),
            rooms: Names::default(),
            data: None,
        }
    }

    fn who<'a>(record: &'a Record, nsp: &str) -> Option<&'a str> {
        record.namespaces.get(nsp).expect("a membership").who.as_deref()
    }

    #[test]
    fn a_name_counts_in_its_namespace_alone() {
        let mut record = session();
        record.join("/strict", member(Some("alice")));
        record.join("/open", member(None));
        record.join("/lax", member(Some("root")));
        let back = Record::from_json(&record.to_json()).unwrap();
        assert_eq!(who(&back, "/strict"), Some("alice"));
        assert_eq!(who(&back, "/open"), None);
        assert_eq!(who(&back, "/lax"), Some("root"));
        assert_eq!(back.names(), ["alice", "root"]);
        assert_eq!(back.shown_names().as_deref(), Some("alice,root"));
    }

    #[test]
    fn older_builds_get_a_name_that_nothing_contradicts() {
        let top = |names: &[Option<&str>]| {
            let mut record = session();
            for (at, name) in names.iter().enumerate() {
                record.join(&format!("/{at}"), member(*name));
            }
            let text: serde_json::Value = serde_json::from_str(&record.to_json()).unwrap();
            text.get("who").and_then(|who| who.as_str()).map(str::to_owned)
        };
        for (names, expect) in [
            (&[Some("ada")][..], Some("ada")),
            (&[None], None),
            (&[Some("ada"), None], Some("ada")),
            (&[None, Some("ada"), Some("ada")], Some("ada")),
            (&[Some("ada"), Some("root")], None),
        ] {
            assert_eq!(top(names).as_deref(), expect, "{names:?}");
        }
    }

    /// As build 31a75cc writes it; also what it leaves of a record of this build.
    #[test]
    fn a_record_of_an_older_build_has_its_name_in_each_namespace() {
        let joined = r#"{"sid":"AgICAgICAgICAgICAgIC","since":"9-3","rooms":{}}"#;
        let text = format!(
            r#"{{"v":1,"epoch":2,"sid":"AQEBAQEBAQEBAQEBAQEB","who":"ada","transport":"polling","worker":"w-0.1",
            "address":"::1","created_ms":5,"offsets":true,"settled":true,"namespaces":{{"/":{joined},"/b":{joined}}}}}"#
        );
        let mut record = Record::from_json(&text).unwrap();
        assert_eq!((who(&record, "/"), who(&record, "/b")), (Some("ada"), Some("ada")));
        // From now on each has its own.
        record.join("/b", member(Some("eve")));
        let back = Record::from_json(&record.to_json()).unwrap();
        assert_eq!((who(&back, "/"), who(&back, "/b")), (Some("ada"), Some("eve")));
    }

    #[test]
    fn a_session_that_left_its_namespaces_is_still_named() {
        let mut record = session();
        assert_eq!(record.shown_names(), None);
        record.join("/", member(Some("ada")));
        record.namespaces.remove("/");
        assert_eq!(record.shown_names().as_deref(), Some("ada"));
    }

    #[test]
    fn a_record_survives_its_text_and_shows_its_epoch_first() {
        let mut record = Record::new(
            Sid::from_random([1; 15]),
            Transport::Polling,
            "w-0.1".into(),
            "127.0.0.1".into(),
            5,
        );
        record.epoch = 42;
        let since = Offset::new(9, 3);
        let rooms = Names::from([("a", since.next())]);
        let data = serde_json::value::to_raw_value(&serde_json::json!({"n": 1})).ok();
        let joined = Joined {
            sid: Sid::from_random([2; 15]),
            who: None,
            pid: None,
            pending: false,
            since,
            rooms,
            data,
        };
        record.namespaces.insert("/", joined);
        record.partial = Some(Partial {
            text: "51-[]".into(),
            attachments: vec![bytes::Bytes::from_static(&[0, 255])],
        });
        let text = record.to_json();
        assert!(text.starts_with(r#"{"v":1,"epoch":42,"#), "{text}");
        let back = Record::from_json(&text).unwrap();
        assert_eq!(back.to_json(), text);
        assert!(matches!(
            Record::from_json(&text.replacen("\"v\":1", "\"v\":2", 1)),
            Err(RecordError::Version(2))
        ));
    }
}
