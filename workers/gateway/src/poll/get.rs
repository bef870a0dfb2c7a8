//! The poll: answered at once if there is anything, otherwise it waits here.

use super::orders::store as store_orders;
use super::recent::{known, learn};
use super::{Abort, Parked, Reply, end, note_foreign, overlapped, patiently};
use crate::catchup::Extent;
use crate::clock::unix_ms;
use crate::ending::Ending;
use crate::fault::{self, Point};
use crate::hub::{News, Park};
use crate::lifecycle::Phase;
use crate::lines::line;
use crate::metrics::Carried;
use crate::missed::{self, Interest, Missing, Piece};
use crate::orders;
use crate::worker::Worker;
use futures_util::future::LocalBoxFuture;
use session::trace::Value::{Number, Offset as At, Text};
use session::{Offset, Record, Sid, Transport};
use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;
use store::{Amended, Mail, Poll, PollMode, RequestId, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use wire::engine::{Payload, Refusal};

/// A poll that only ends.
pub(super) const NOOP: &str = "6";
/// The session is over.
pub(super) const CLOSE: &str = "1";

/// A client whose time to join a namespace is over, while it is joining one, is looked at again after this.
const JOIN_RETRY: Duration = Duration::from_millis(100);

/// Ready when nothing more comes from the client of a request.
pub(crate) type Ended<'a> = LocalBoxFuture<'a, ()>;

/// Serves a GET with a sid. A poll that would wait for a client that sends no more ends the session, as one that the
/// client drops: which of the two it is cannot be told.
pub(crate) async fn get(worker: &Rc<Worker>, sid: &Sid, request: RequestId, ended: Ended<'_>) -> Reply {
    let abort = Abort::new(worker, sid);
    let reply = serve(worker, sid, request, ended).await;
    abort.disarm();
    reply
}

async fn serve(worker: &Rc<Worker>, sid: &Sid, request: RequestId, ended: Ended<'_>) -> Reply {
    fault::at(Point::PollAsked);
    let parked = Parked::new(worker, sid);
    let known = known(worker, sid);
    let revision = known.as_ref().map(|known| known.revision);
    let first = patiently(async || {
        worker
            .store
            .poll(sid, request, PollMode::Begin, worker.head(), revision)
            .await
    })
    .await;
    let known = known.map(|known| known.record);
    match first {
        Err(error) => unavailable(&error),
        Ok(Poll::Unknown | Poll::Ended | Poll::LeaseLost) => Reply::Refused(Refusal::SessionUnknown),
        Ok(Poll::Moved(record)) => moved(&record),
        Ok(Poll::Overlap) => overlapped(worker, sid).await,
        Ok(Poll::Answer {
            record,
            revision,
            after,
            upto,
            mail,
            ping,
            ..
        }) => {
            let Some(record) = learn(worker, known, record, revision) else {
                return Reply::Refused(Refusal::SessionUnknown);
            };
            note_foreign(worker, &record);
            answer(
                worker,
                &Answer {
                    record: &record,
                    after,
                    upto,
                    ping,
                },
                mail,
            )
            .await
        }
        Ok(Poll::Parked {
            record,
            revision,
            after,
            ping_in,
            expires_in,
        }) => {
            let Some(record) = learn(worker, known, record, revision) else {
                return Reply::Refused(Refusal::SessionUnknown);
            };
            note_foreign(worker, &record);
            let now = Instant::now();
            let waiting = Waiting {
                revision,
                after,
                ping_at: ping_in.map(|d| now + d),
                expires_at: now + expires_in,
                settle_by: now + settles_in(worker, &record),
                record,
            };
            wait(&parked, request, waiting, ended).await
        }
    }
}

/// A poll of a session that no longer polls.
pub(super) fn moved(record: &Record) -> Reply {
    match record.transport {
        Transport::Websocket => Reply::Refused(Refusal::BadRequest),
        // Its time ran out: the record is kept for a while for its client to come back to.
        Transport::Polling => Reply::Refused(Refusal::SessionUnknown),
    }
}

/// What is left of the time to join a first namespace; by the clock, so a jump of it costs a
/// client without a namespace its connection at worst.
pub(super) fn settles_in(worker: &Worker, record: &Record) -> Duration {
    let age = Duration::from_millis(unix_ms().saturating_sub(record.created_ms));
    worker.settings.socket.connect_timeout.saturating_sub(age)
}

/// What a waiting poll knows.
struct Waiting {
    record: Rc<Record>,
    revision: u64,
    after: Offset,
    ping_at: Option<Instant>,
    expires_at: Instant,
    /// A client that joined no namespace by then is closed.
    settle_by: Instant,
}

impl Waiting {
    fn look_at(&self) -> Instant {
        let next = self.ping_at.unwrap_or(self.expires_at);
        if self.record.settled {
            next
        } else {
            next.min(self.settle_by)
        }
    }
}

async fn wait(parked: &Parked, request: RequestId, mut waiting: Waiting, mut ended: Ended<'_>) -> Reply {
    let (worker, sid) = (&parked.worker, &parked.sid);
    parked.enter_hub(&waiting.record);
    let mut phase = worker.lifecycle.phase.subscribe();
    let mut mode = look_back(worker, &waiting).then_some(PollMode::Answer);
    loop {
        let asked = match mode.take() {
            Some(mode) => mode,
            None => match sleep_until_woken(&parked.park, &waiting, &mut phase, &mut ended).await {
                PollWake::Ask(mode) => mode,
                PollWake::Leave => return release(worker, sid, request).await,
                PollWake::Gone => return dropped(worker, sid, request).await,
                PollWake::Unsettled => {
                    if !is_joining(worker, &waiting.record).await {
                        return closed(worker, sid, &Ending::ConnectTimeout).await;
                    }
                    waiting.settle_by = Instant::now() + JOIN_RETRY;
                    continue;
                }
            },
        };
        let known = Some(waiting.revision);
        match patiently(async || worker.store.poll(sid, request, asked, worker.head(), known).await).await {
            Err(error) => return unavailable(&error),
            Ok(Poll::Answer {
                record,
                after,
                upto,
                mail,
                ping,
                ..
            }) => {
                let record = record.map_or(waiting.record, Rc::new);
                return answer(
                    worker,
                    &Answer {
                        record: &record,
                        after,
                        upto,
                        ping,
                    },
                    mail,
                )
                .await;
            }
            Ok(Poll::Parked {
                record,
                revision,
                after,
                ping_in,
                expires_in,
            }) => {
                let now = Instant::now();
                (waiting.revision, waiting.after) = (revision, after);
                waiting.ping_at = ping_in.map(|d| now + d);
                waiting.expires_at = now + expires_in;
                if let Some(record) = learn(worker, None, record, revision) {
                    waiting.record = record;
                    parked.enter_hub(&waiting.record);
                    mode = look_back(worker, &waiting).then_some(PollMode::Answer);
                }
            }
            Ok(Poll::Moved(record)) => return left(worker, &record).await,
            Ok(Poll::Ended | Poll::Unknown | Poll::Overlap | Poll::LeaseLost) => {
                return Reply::Packets(CLOSE.to_owned());
            }
        }
    }
}

/// Whether a POST joins a namespace this very moment, or has just done so. If not, none will: it may be
/// giving the session the memberships of an older one, which must not end with it.
async fn is_joining(worker: &Worker, record: &Record) -> bool {
    let mut closing = record.clone();
    closing.closing = true;
    match worker.store.amend(record, &closing).await {
        Ok(Amended::Again) => true,
        Ok(Amended::Done | Amended::Gone) => false,
        Err(error) => {
            debug!(%error, "client without a namespace not closed yet");
            true
        }
    }
}

/// The session polls no longer: it was upgraded, or its client did not answer a ping.
async fn left(worker: &Worker, record: &Record) -> Reply {
    match record.transport {
        Transport::Websocket => Reply::Packets(NOOP.to_owned()),
        Transport::Polling => {
            end(worker, &record.sid, &Ending::PingTimeout).await;
            Reply::Packets(CLOSE.to_owned())
        }
    }
}

/// The client has dropped the poll, or sends no more.
async fn dropped(worker: &Worker, sid: &Sid, request: RequestId) -> Reply {
    if !worker.lifecycle.is_serving() {
        return release(worker, sid, request).await;
    }
    closed(worker, sid, &Ending::TransportClosed).await
}

/// Ends the session, and says so.
async fn closed(worker: &Worker, sid: &Sid, ending: &Ending) -> Reply {
    end(worker, sid, ending).await;
    Reply::Packets(CLOSE.to_owned())
}

/// The worker leaves: the client polls again, and another one answers.
async fn release(worker: &Worker, sid: &Sid, request: RequestId) -> Reply {
    if let Err(error) = worker.store.poll_release(sid, request).await {
        debug!(%error, "poll not released");
    }
    worker
        .trace
        .request(sid, "sent_on", &[("why", Text("worker is draining"))]);
    Reply::Packets(NOOP.to_owned())
}

/// What ends the sleep of a parked poll.
enum PollWake {
    /// The store is to be asked.
    Ask(PollMode),
    /// Nothing more comes from the client.
    Gone,
    /// The worker drains: the client polls again, elsewhere.
    Leave,
    /// No namespace was joined in time.
    Unsettled,
}

async fn sleep_until_woken(
    park: &Park,
    waiting: &Waiting,
    phase: &mut watch::Receiver<Phase>,
    ended: &mut Ended<'_>,
) -> PollWake {
    tokio::select! {
        news = park.news() => match news {
            News::Entry => PollWake::Ask(PollMode::Answer),
            News::Wake => PollWake::Ask(PollMode::Wake),
        },
        () = sleep_until(waiting.look_at()) => {
            let unsettled = !waiting.record.settled && waiting.settle_by <= Instant::now();
            let is_pinged = waiting.ping_at.is_some_and(|at| at <= Instant::now());
            match (unsettled, is_pinged) {
                (true, _) => PollWake::Unsettled,
                (false, true) => PollWake::Ask(PollMode::Ping),
                (false, false) => PollWake::Ask(PollMode::Answer),
            }
        }
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => PollWake::Leave,
        () = ended => PollWake::Gone,
    }
}

/// Whether there is something to say already: the end of the session, or what came into the ring between the cursor and
/// the place in the hub.
fn look_back(worker: &Worker, waiting: &Waiting) -> bool {
    if waiting.record.closing {
        return true;
    }
    match worker.ring.borrow().after(waiting.after) {
        Some(mut entries) => {
            entries.any(|logged| missed::concerns(&waiting.record, logged) || orders::concerns(&waiting.record, logged))
        }
        // Older than the ring: only the log itself can tell.
        None => true,
    }
}

/// What is known when a poll ends.
struct Answer<'a> {
    record: &'a Rc<Record>,
    after: Offset,
    upto: Offset,
    ping: bool,
}

async fn answer(worker: &Rc<Worker>, answer: &Answer<'_>, mail: Mail) -> Reply {
    // Redis takes it for answered: a client that is told to come back would prove by that the receipt of nothing.
    let older = patiently(async || {
        let interest = Interest::of(answer.record, worker.settings.socket.rooms_max);
        match worker
            .catch_up
            .older_than_ring(answer.after, Extent::All, interest)
            .await
        {
            Err(Missing::Store(error)) => Err(error),
            found => Ok(found),
        }
    });
    let older = match older.await.unwrap_or_else(|error| Err(Missing::Store(error))) {
        Ok(found) => found,
        Err(gap) => {
            line!(warn, reason = %gap, "session ended: the events that it missed are not known");
            end(worker, &answer.record.sid, &Ending::TransportClosed).await;
            return Reply::Packets(CLOSE.to_owned());
        }
    };
    let (closing, has_mail) = (answer.record.closing, !mail.is_empty());
    let mut payload = Payload::default();
    let rooms_max = worker.settings.socket.rooms_max;
    let orders = {
        let ring = worker.ring.borrow();
        let newer = || ring.after(older.position).into_iter().flatten();
        // What has come since the store was asked belongs to the next answer.
        let entries = older
            .entries
            .iter()
            .chain(newer())
            .take_while(|logged| logged.offset <= answer.upto);
        let mut record = Cow::Borrowed(answer.record.as_ref());
        let changed = missed::merge(&mut record, entries, mail, rooms_max, |piece| match piece {
            Piece::Packet(packet) => {
                worker.metrics.events_out.one(Carried::Polling);
                packet.push_to(&mut payload);
            }
            Piece::Mail(mail) => payload.push_text(std::str::from_utf8(&mail).unwrap_or_default()),
        });
        changed.then(|| orders::among(older.entries.iter().chain(newer()), answer.upto))
    };
    // After the look at the ring, which goes on meanwhile.
    if closing {
        end_closing(worker, answer.record, has_mail).await;
    }
    if answer.ping {
        payload.push_text("2");
    }
    if let Some(orders) = orders {
        let fields = [("orders", Number(orders.len() as u64))];
        worker.trace.note(&answer.record.sid, "obeyed", &fields);
        // Before the answer: the next request moves the cursor over the orders.
        store_orders(worker, answer.record, &orders).await;
    }
    // An upgrade ends the poll with a noop, if nothing else does. A close stands alone: the official client takes it at
    // once, and what stands before it a moment later, when it listens no more.
    if payload.is_empty() {
        payload.push_text(if closing { CLOSE } else { NOOP });
    }
    let fields = [("packets", Number(payload.packets())), ("upto", At(answer.upto))];
    worker.trace.request(&answer.record.sid, "get", &fields);
    fault::at(Point::PollAnswered);
    Reply::Packets(payload.finish())
}

/// Ends a session whose client hears of it with this poll.
async fn end_closing(worker: &Worker, record: &Record, has_mail: bool) {
    // A client that left or broke the protocol finds a last packet in the mail; one that was sent away had a DISCONNECT.
    let sent_away = !has_mail && record.namespaces.is_empty();
    let ending = if sent_away {
        Ending::Dismissed
    } else {
        Ending::ClientLeft
    };
    end(worker, &record.sid, &ending).await;
}

/// The store did not answer: the client has to come back.
pub(super) fn unavailable(error: &StoreError) -> Reply {
    debug!(%error, "polling request failed");
    Reply::Unavailable
}
