//! The in-memory twin: the same semantics in this process, for one worker without Redis (and for
//! tests of several). Nothing in it waits.

mod log;
mod polls;
mod sessions;
mod tail;

pub(crate) use tail::MemoryTail;

use crate::answer::{Mail, RequestId};
use crate::options::Options;
use log::Log;
use rustc_hash::FxHashMap;
use session::{Offset, Record, Sid};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tail::MemoryInbox;
use tokio::time::Instant;

/// A worker's store over a space.
pub(crate) struct Memory {
    space: Rc<RefCell<Space>>,
    options: Rc<Options>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("me", &self.options.me)
            .finish_non_exhaustive()
    }
}

/// What Redis would hold.
struct Space {
    sessions: FxHashMap<Sid, Session>,
    lost: FxHashMap<Sid, Mortal<Record>>,
    pids: FxHashMap<String, Mortal<Sid>>,
    dead: FxHashMap<String, Mortal<()>>,
    log: Log,
    inboxes: FxHashMap<String, Rc<MemoryInbox>>,
}

/// Something with a TTL.
struct Mortal<T> {
    value: T,
    expires: Instant,
}

struct Session {
    record: Record,
    expires: Instant,
    poll: Option<PollState>,
    mail: VecDeque<(Offset, bytes::Bytes)>,
    /// What `upgrade_finish` found, for a repeated call.
    moved: Option<(Holder, Offset, Mail, Instant)>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    incarnation: String,
    request: RequestId,
}

impl Holder {
    /// Whether it is the same request, sent once or repeated; `told`: whether its id is telling.
    fn is_of(&self, other: &Self, told: bool) -> bool {
        self == other || (told && self.request.given() == other.request.given())
    }
}

struct Lease {
    holder: Holder,
    deadline: Instant,
}

struct PollState {
    expires: Instant,
    revision: u64,
    /// The client has all up to here.
    cursor: Offset,
    /// The last answer covered up to here, and this many packets of the mail.
    sent: Offset,
    sent_mail: usize,
    /// `None` while a pong is outstanding.
    ping_due: Option<Instant>,
    get: Option<Lease>,
    post: Option<Lease>,
    upgrade: Option<Lease>,
    probed: bool,
    /// The last request answered, and whether a ping was in the answer.
    answered: Option<(Holder, bool)>,
    /// The last POST finished.
    finished: Option<Holder>,
    /// The ids that the handshake came with.
    first: Vec<u64>,
}

/// Expired entries are removed when they are met, and all of them this often.
const PURGE_INTERVAL: Duration = Duration::from_secs(5);

impl Memory {
    pub(crate) fn open(options: Options) -> (Self, MemoryTail) {
        let space = Space {
            sessions: FxHashMap::default(),
            lost: FxHashMap::default(),
            pids: FxHashMap::default(),
            dead: FxHashMap::default(),
            log: Log::new(&options),
            inboxes: FxHashMap::default(),
        };
        Self::over(Rc::new(RefCell::new(space)), Rc::new(options))
    }

    pub(crate) fn sibling(&self, me: &str) -> (Self, MemoryTail) {
        let mut options = Options::clone(&self.options);
        me.clone_into(&mut options.me);
        Self::over(Rc::clone(&self.space), Rc::new(options))
    }

    fn over(space: Rc<RefCell<Space>>, options: Rc<Options>) -> (Self, MemoryTail) {
        let inbox = Rc::new(MemoryInbox::default());
        space.borrow_mut().inboxes.insert(options.me.clone(), Rc::clone(&inbox));
        let tail = MemoryTail::new(&space, inbox, &options);
        (Self { space, options }, tail)
    }

    pub(crate) fn ping(&self) -> Duration {
        Duration::ZERO
    }

    fn holder(&self, request: RequestId) -> Holder {
        Holder {
            incarnation: self.options.me.clone(),
            request,
        }
    }
}

impl Space {
    /// The session, if it lives; its poll state is gone if that has expired.
    fn session(&mut self, sid: &Sid, now: Instant) -> Option<&mut Session> {
        if self.sessions.get(sid).is_some_and(|s| s.expires <= now) {
            self.sessions.remove(sid);
        }
        let session = self.sessions.get_mut(sid)?;
        if session.poll.as_ref().is_some_and(|p| p.expires <= now) {
            session.poll = None;
            session.mail.clear();
        }
        Some(session)
    }

    fn is_dead(&self, incarnation: &str, now: Instant) -> bool {
        self.dead.get(incarnation).is_some_and(|d| d.expires > now)
    }

    /// Whether a request holds it: in time, and not declared dead.
    fn is_held(&self, lease: Option<&Lease>, now: Instant) -> bool {
        lease.is_some_and(|l| l.deadline > now && !self.is_dead(&l.holder.incarnation, now))
    }

    /// Tells the worker of a parked poll to look again.
    fn wake(&self, holder: Option<&Holder>, sid: &Sid) {
        if let Some(inbox) = holder.and_then(|h| self.inboxes.get(&h.incarnation)) {
            inbox.wake(sid);
        }
    }

    /// Removes a session and wakes its parked poll.
    fn remove(&mut self, sid: &Sid) {
        if let Some(session) = self.sessions.remove(sid) {
            let lease = session.poll.and_then(|p| p.get);
            self.wake(lease.map(|l| l.holder).as_ref(), sid);
        }
    }

    fn purge(&mut self, now: Instant) {
        self.sessions.retain(|_, s| s.expires > now);
        self.lost.retain(|_, m| m.expires > now);
        self.pids.retain(|_, m| m.expires > now);
        self.dead.retain(|_, m| m.expires > now);
        self.log.purge(now);
    }
}

impl PollState {
    fn new(asked: &[RequestId], head: Offset, now: Instant, ttl: Duration, ping_interval: Duration) -> Self {
        Self {
            expires: now + ttl,
            revision: 1,
            cursor: head,
            sent: head,
            sent_mail: 0,
            ping_due: Some(now + ping_interval),
            get: None,
            post: None,
            upgrade: None,
            probed: false,
            answered: None,
            finished: None,
            first: asked.iter().filter_map(|request| request.given()).collect(),
        }
    }

    /// Whether the id that a poll came with tells it from all others (`telling` in `lease.lua`).
    fn tells_poll(&self, mine: &Holder) -> bool {
        let post = self.post.as_ref().map(|lease| &lease.holder);
        self.tells(mine, [self.finished.as_ref(), post])
    }

    /// The same of a POST.
    fn tells_post(&self, mine: &Holder) -> bool {
        let get = self.get.as_ref().map(|lease| &lease.holder);
        self.tells(mine, [self.answered.as_ref().map(|(holder, _)| holder), get])
    }

    fn tells(&self, mine: &Holder, others: [Option<&Holder>; 2]) -> bool {
        let id = mine.request.given();
        let others = others.into_iter().flatten().map(|other| other.request.given());
        id.is_some_and(|id| !self.first.contains(&id)) && others.into_iter().all(|other| other != id)
    }
}
