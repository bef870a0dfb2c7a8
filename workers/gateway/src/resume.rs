//! A client that comes back: `40{"pid","offset"}`. Its session is found wherever it was, and goes on
//! here with the same Socket.IO sid and rooms, if the application lets it in as the same user.
//!
//! The new session's record is stored before the old one is given up: a crash in between leaves the
//! old one to be resumed once more.

use crate::admission::Refusal;
use crate::catchup::{Caught, Extent};
use crate::context::Context;
use crate::dispatch::{Admitted, Returning, Seen};
use crate::entries;
use crate::lines::line;
use crate::metrics::Resume;
use crate::missed::{Interest, Missing};
use crate::worker::Worker;
use app::Former;
use session::trace::Value::{Offset as At, Shown, Text};
use session::{Joined, Record, Sid};
use std::rc::Rc;
use store::{Saved, StoreError};
use tracing::{debug, info};

/// So often at most a resume is tried again that another one got ahead of: a client whose connection broke in the middle of its
/// resume is back at once, while a worker is still giving the session to the broken one.
const OVERTAKEN_MAX: usize = 4;

/// Why a client gets a new session. It is logged and counted; the client sees `recovered: false`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// What it missed cannot be told.
    #[error(transparent)]
    Gap(#[from] Missing),
    /// The offset that it came with is none that this server gives, so what it missed cannot be told.
    #[error("the client's offset is none of this server's")]
    Offset,
    /// Redis did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another connection resumed it at the same moment.
    #[error("another connection resumed it")]
    TakenOver,
    /// It was admitted as another user: the recovery id of a user gives nothing of theirs to another one.
    #[error("it is another user's")]
    AnotherUser,
    /// The application does not let it in.
    #[error(transparent)]
    Refused(Refusal),
    /// The window is over, the client left, or it never was.
    #[error("no such session, or its window is over")]
    Unknown,
}

impl Lost {
    /// How it is counted.
    const fn counted(&self) -> Resume {
        match self {
            Self::Gap(Missing::Store(_)) | Self::Store(_) => Resume::Store,
            Self::Gap(Missing::TooMany(_)) => Resume::TooMany,
            Self::Gap(Missing::TooLarge(_)) => Resume::TooLarge,
            Self::Gap(Missing::EndLost) => Resume::EndLost,
            Self::Gap(Missing::Trimmed) => Resume::Trimmed,
            Self::Offset => Resume::Offset,
            Self::TakenOver => Resume::TakenOver,
            Self::Unknown => Resume::Unknown,
            Self::AnotherUser => Resume::AnotherUser,
            Self::Refused(_) => Resume::Refused,
        }
    }

    /// Nothing is lost: Redis did not answer, and may do so when the client tries once more. The session is where it was,
    /// or with the connection that asked for it, or both: its client finds it in either.
    pub(crate) fn passing(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) | Self::Gap(Missing::Store(error)) => Some(error).filter(|error| error.passing()),
            Self::Gap(Missing::EndLost | Missing::TooLarge(_) | Missing::TooMany(_) | Missing::Trimmed)
            | Self::AnotherUser
            | Self::Offset
            | Self::Refused(_)
            | Self::TakenOver
            | Self::Unknown => None,
        }
    }
}

/// Tries again after a conflict with another resume: the last one has the session.
pub(crate) async fn retry_on_conflict<T>(mut attempt: impl AsyncFnMut() -> Result<T, Lost>) -> Result<T, Lost> {
    let mut overtaken = 0;
    loop {
        match attempt().await {
            Err(Lost::TakenOver) if overtaken < OVERTAKEN_MAX => overtaken += 1,
            outcome => return outcome,
        }
    }
}

/// A session that was found, not yet moved.
pub(crate) struct Found {
    old: Record,
    returning: Rc<Returning>,
    /// The membership as it continues: nothing up to `since` is sent again.
    pub(crate) joined: Joined,
    /// The first part of what was missed and the ring no longer has.
    pub(crate) older: Caught,
}

/// Looks for the session that a client wants back, asks the application about it, and looks for what it missed: the first entries, of `bytes` bytes, of what the
/// ring no longer has.
pub(crate) async fn find(
    worker: &Context,
    own: &Sid,
    returning: &Rc<Returning>,
    seen: Seen,
    bytes: usize,
) -> Result<Found, Lost> {
    let (nsp, pid) = (&*returning.nsp, &returning.pid);
    let old = worker
        .store
        .resolve(pid)
        .await?
        .filter(|old| old.sid != *own)
        .ok_or(Lost::Unknown)?;
    let joined = old
        .namespaces
        .get(nsp)
        .filter(|joined| joined.pid.as_ref() == Some(pid));
    let mut joined = joined.cloned().ok_or(Lost::Unknown)?;
    let former = Former {
        who: joined.who.as_deref(),
        data: joined.data.as_deref(),
    };
    let identity = returning.ask(worker, Some(former)).map_err(Lost::Refused)?;
    if identity.who != joined.who {
        return Err(Lost::AnotherUser);
    }
    // Only the answer to CONNECT tells the recovery id, so the application has admitted it.
    joined.pending = false;
    joined.data = identity.data;
    match seen {
        Seen::Nothing => {}
        Seen::UpTo(offset) => joined.since = offset.max(joined.since),
        // Everything since the session's start would come twice.
        Seen::Unreadable => return Err(Lost::Offset),
    }
    if joined.since > worker.head() {
        if joined.since.epoch() != worker.head().epoch() {
            return Err(Lost::Gap(Missing::Trimmed));
        }
        // This worker may be behind; if the log is, what comes next would count as seen already.
        if joined.since > worker.store.end_of_log().await? {
            return Err(Lost::Gap(Missing::EndLost));
        }
    }
    let interest = Interest::Membership {
        nsp: nsp.to_owned(),
        joined: joined.clone(),
    };
    let older = worker
        .catch_up
        .older_than_ring(joined.since, Extent::Counted(bytes), interest)
        .await?;
    Ok(Found {
        old,
        returning: returning.clone(),
        joined,
        older,
    })
}

impl Found {
    /// Whether it is the membership in this namespace.
    pub(crate) fn is_of(&self, nsp: &str) -> bool {
        self.returning.nsp == nsp
    }

    /// The same membership, where it is now.
    pub(crate) async fn anew(&self, worker: &Context, own: &Sid, bytes: usize) -> Result<Self, Lost> {
        let seen = Seen::UpTo(self.joined.since);
        find(worker, own, &self.returning, seen, bytes).await
    }

    /// Takes the membership away from the old session; the new one must be stored by now. Stale connections,
    /// connections that still hold it, are closed. `former` are old sessions as they are after earlier
    /// takeovers by the same client: its namespaces usually come from one session.
    pub(crate) async fn take_over(&self, worker: &Worker, new: &Sid, former: &mut Vec<Record>) -> Result<(), Lost> {
        let Some(pid) = &self.joined.pid else {
            return Err(Lost::Unknown);
        };
        let known = former.iter().position(|record| record.sid == self.old.sid);
        let old = known.map_or_else(|| self.old.clone(), |at| former.swap_remove(at));
        let mut rest = old.clone();
        rest.epoch += 1;
        rest.namespaces.remove(&self.returning.nsp);
        let kept = (!rest.namespaces.is_empty()).then_some(&rest);
        let ttl = worker.session_ttl();
        match worker.store.takeover(pid, kept, &old.sid, old.epoch, new, ttl).await? {
            Saved::Done => {}
            Saved::Fenced { .. } | Saved::Gone => return Err(Lost::TakenOver),
        }
        self.evict_stale(worker, rest.epoch);
        self.note_resumed(worker, new);
        former.push(rest);
        if worker.settings.logging.connections {
            info!(
                nsp = self.returning.nsp,
                who = self.joined.who,
                from = self.old.worker,
                "session resumed"
            );
        }
        worker.metrics.resumes.one(Resume::Ok);
        Ok(())
    }

    /// In the lives of both sessions.
    fn note_resumed(&self, worker: &Context, new: &Sid) {
        let (nsp, socket) = (Text(&self.returning.nsp), Text(self.joined.sid.as_str()));
        let resumed = [
            ("session", Text(self.old.sid.as_str())),
            ("namespace", nsp),
            ("socket", socket),
            ("since", At(self.joined.since)),
            ("worker", Text(&self.old.worker)),
        ];
        worker.trace.note(new, "resumed", &resumed);
        let goes_on = [("session", Text(new.as_str())), ("namespace", nsp)];
        worker.trace.note(&self.old.sid, "goes_on_as", &goes_on);
    }

    fn evict_stale(&self, worker: &Worker, epoch: u64) {
        if self.old.worker == worker.name() {
            return worker.evict(self.old.sid.as_str(), epoch);
        }
        // The log's order is not needed, its reach is. If it fails, the stale connection finds out by its next save.
        let told = worker.store.append(entries::takeover(&self.old.sid, epoch), None);
        tokio::task::spawn_local(async move {
            if let Err(error) = told.await {
                debug!(%error, "previous connection of a resumed session not told");
            }
        });
    }
}

/// A session that was resumed is found by the pid of an older one, through a pointer that lives as long
/// as it is refreshed: with every sign of life.
pub(crate) async fn refresh_pids(worker: &Context, record: &Record) {
    let pids = record.namespaces.values().filter_map(|joined| joined.pid.as_ref());
    for pid in pids.filter(|pid| pid.session() != record.sid) {
        if let Err(error) = worker.store.point(pid, &record.sid, worker.session_ttl()).await {
            debug!(%error, "recovery id not refreshed");
        }
    }
}

/// Says that a client has to try once more to get its session back.
pub(crate) fn postpone(worker: &Context, nsp: &str, lost: &Lost) {
    worker.metrics.resumes.one(lost.counted());
    line!(info, nsp, reason = %lost, "session not recovered yet: the client has to retry");
}

/// Reports that a client could not get its session back, and asks whether it may have a new one.
///
/// # Errors
/// It may not.
pub(crate) fn start_anew(worker: &Context, sid: &Sid, returning: &Returning, lost: Lost) -> Result<Admitted, Refusal> {
    let nsp = &*returning.nsp;
    worker
        .trace
        .note(sid, "not_recovered", &[("namespace", Text(nsp)), ("why", Shown(&lost))]);
    worker.metrics.resumes.one(lost.counted());
    line!(info, nsp, reason = %lost, "session not recovered: the client gets a new one");
    if let Lost::Refused(refusal) = lost {
        return Err(refusal);
    }
    returning.anew(worker)
}
