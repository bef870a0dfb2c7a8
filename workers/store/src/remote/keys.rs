//! Every key and channel, in one place.

use crate::ingest::literal;
use session::{Pid, Sid};

/// Names of keys and channels under one prefix. Per-session keys carry the sid as hash tag.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    db: i64,
}

impl Keys {
    pub(super) fn new(prefix: &str, db: i64) -> Self {
        Self {
            prefix: prefix.to_owned(),
            db,
        }
    }

    // Not by `format!`, which grows its string bit by bit: every request makes several of these.
    fn under(&self, kind: &str, name: &str) -> String {
        [&self.prefix, ":", kind, ":", name].concat()
    }

    fn per_session(&self, kind: &str, sid: &Sid) -> String {
        [&self.prefix, ":", kind, ":{", sid.as_str(), "}"].concat()
    }

    /// JSON of the record. Nothing else matches `<prefix>:session:*`.
    pub(super) fn session(&self, sid: &Sid) -> String {
        self.per_session("session", sid)
    }

    /// Hash: state of a polling session.
    pub(super) fn poll(&self, sid: &Sid) -> String {
        self.per_session("poll", sid)
    }

    /// List: packets for a polling session alone.
    pub(super) fn mail(&self, sid: &Sid) -> String {
        self.per_session("mail", sid)
    }

    /// What `poll` and `mail` were when the session upgraded, for a repeated call.
    pub(super) fn moved(&self, sid: &Sid) -> String {
        self.per_session("moved", sid)
    }

    pub(super) fn moved_mail(&self, sid: &Sid) -> String {
        self.per_session("movedmail", sid)
    }

    /// JSON of a session that ended uncleanly.
    pub(super) fn lost(&self, sid: &Sid) -> String {
        self.per_session("lost", sid)
    }

    /// Sid of the session that a pid belongs to now.
    pub(super) fn pid(&self, pid: &Pid) -> String {
        [&self.prefix, ":pid:{", pid.as_str(), "}"].concat()
    }

    /// Marks a worker as dead.
    pub(super) fn dead(&self, incarnation: &str) -> String {
        self.under("dead", incarnation)
    }

    pub(super) fn dead_prefix(&self) -> String {
        self.under("dead", "")
    }

    pub(super) fn session_prefix(&self) -> String {
        self.under("session", "")
    }

    pub(super) fn lost_prefix(&self) -> String {
        self.under("lost", "")
    }

    /// Pattern of all session keys for SCAN; the prefix may hold characters that mean something there.
    pub(super) fn session_pattern(&self) -> String {
        literal(&self.session_prefix()) + "*"
    }

    /// The sid in a session key.
    pub(super) fn sid_of(&self, key: &str) -> Option<Sid> {
        let tag = key.strip_prefix(&self.session_prefix())?;
        Sid::parse(tag.strip_prefix('{')?.strip_suffix('}')?).ok()
    }

    /// Of an operator's trial; nothing that a worker looks at.
    pub(super) fn trial(&self, name: &str) -> String {
        self.under("trial", name)
    }

    /// Stream of the log.
    pub(super) fn log(&self) -> String {
        format!("{}:log", self.prefix)
    }

    /// Hash: epoch, latest sequence number, and each worker's latest batch.
    pub(super) fn log_meta(&self) -> String {
        self.under("log", "meta")
    }

    /// List: where the head was, and when.
    pub(super) fn log_marks(&self) -> String {
        self.under("log", "marks")
    }

    /// List: how many bytes had been appended, and where the head was then.
    pub(super) fn log_sizes(&self) -> String {
        self.under("log", "sizes")
    }

    /// Held by the worker that sent the latest canary.
    pub(super) fn log_canary(&self) -> String {
        self.under("log", "canary")
    }

    /// Stream of notes about sessions.
    pub(super) fn trace(&self) -> String {
        format!("{}:trace", self.prefix)
    }

    /// List: how large each item of it is.
    pub(super) fn trace_sizes(&self) -> String {
        self.under("trace", "sizes")
    }

    /// Incarnation of the worker that leads the ingest.
    pub(super) fn ingest_leader(&self) -> String {
        self.under("ingest", "leader")
    }

    /// Hash: how far the streams of others were read.
    pub(super) fn ingest_position(&self) -> String {
        self.under("ingest", "position")
    }

    /// First part of every key of the application link: one hash tag, so that one script may touch them all.
    pub(super) fn app_prefix(&self) -> String {
        [&self.prefix, ":{app}:"].concat()
    }

    /// Of what workers publish about the link, in one version of its protocol.
    pub(super) fn app_link(&self, version: u32) -> String {
        format!("{}link:{version}", self.app_prefix())
    }

    /// A key of the link with a fixed name.
    pub(super) fn app(&self, name: &str) -> String {
        [&self.app_prefix(), name].concat()
    }

    /// What became of a worker's latest batch of records.
    pub(super) fn app_batch(&self, incarnation: &str) -> String {
        [&self.app_prefix(), "batch:", incarnation].concat()
    }

    pub(super) fn dedupe_prefix(&self) -> String {
        self.under("dedupe", "")
    }

    /// Channel of pushed batches. Pub/sub does not know databases, so the name has to.
    pub(super) fn log_channel(&self) -> String {
        format!("{}:log@{}", self.prefix, self.db)
    }

    /// First part of the channels that wake workers.
    pub(super) fn wake_prefix(&self) -> String {
        format!("{}:wake@{}:", self.prefix, self.db)
    }

    /// Channel that wakes a worker.
    pub(super) fn wake(&self, incarnation: &str) -> String {
        [&self.wake_prefix(), incarnation].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_match_the_pattern_of_sessions() {
        let keys = Keys::new("so[c]ket*io", 3);
        let sid = Sid::from_random([7; 15]);
        assert_eq!(keys.sid_of(&keys.session(&sid)), Some(sid.clone()));
        assert_eq!(keys.sid_of(&keys.poll(&sid)), None);
        assert_eq!(keys.session_pattern(), r"so\[c\]ket\*io:session:*");
        assert!(keys.session(&sid).contains(&format!("{{{sid}}}")));
    }
}
