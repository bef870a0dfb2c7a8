//! The POST: packets from the client, decided one after the other, their outcome stored in one step.

use super::batch::{Batch, Standing, Stop};
use super::get::{CLOSE, NOOP, moved, settles_in, unavailable};
use super::recent::{known, remember};
use super::{Abort, Reply, end, overlapped, patiently};
use crate::budget::Share;
use crate::ending::Ending;
use crate::metrics::Limit;
use crate::protocol::Protocol;
use crate::rate::pause_of_post;
use crate::worker::Worker;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use session::{Offset, Record, Sid};
use std::cell::Cell;
use std::rc::Rc;
use store::{PostBegin, PostDone, PostEffects, RequestId};
use tokio::time::sleep;
use tracing::debug;
use wire::engine::Refusal;

/// How many bytes of a body are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// By what was known of the session when it was here last: of a longer body the rest waits until more is known.
    Guess(usize),
    /// The session has joined no namespace: a longer body is refused.
    Unsettled(usize),
    /// The same of one that has.
    Settled(usize),
}

/// The text of a body, which counts until all of it is acted on.
pub(crate) struct Taken {
    pub(crate) text: String,
    /// Counts as long as it is there.
    pub(crate) _share: Share,
}

/// Why a request body could not be had.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client broke off, or was too slow.
    Gone,
    /// Not UTF-8.
    NotText,
    /// The worker's budget is used up, and this body had to give back its part.
    OverBudget,
    /// Over `engine.max_payload_bytes`, or `socket.connect_bytes_max` of a session that has joined no namespace.
    TooLarge,
    /// Not whole within `http.body_timeout_ms`.
    TooSlow,
}

/// The body of a POST.
pub(crate) struct Incoming<'a> {
    /// How much of it is read, which the session decides.
    pub(crate) allowance: &'a Cell<Allowance>,
    /// The body, once it has arrived.
    pub(crate) text: LocalBoxFuture<'a, Result<Taken, BodyError>>,
}

/// Serves a POST with a sid.
pub(crate) async fn post(
    worker: &Rc<Worker>,
    sid: &Sid,
    request: RequestId,
    protocol: Protocol,
    body: Incoming<'_>,
) -> Reply {
    let abort = Abort::new(worker, sid);
    let reply = serve(worker, sid, protocol, request, body).await;
    abort.disarm();
    reply
}

async fn serve(worker: &Rc<Worker>, sid: &Sid, protocol: Protocol, request: RequestId, body: Incoming<'_>) -> Reply {
    let Incoming {
        allowance,
        text: mut body,
    } = body;
    let known = known(worker, sid);
    // A body that came with the head, of a session that was here lately, usually needs one step of the store
    // instead of two.
    if let Some(known) = &known {
        allowance.set(guessed(worker, &known.record));
    }
    let come = known.is_some().then(|| (&mut body).now_or_never()).flatten();
    let mut begun = None;
    if let (Some(known), Some(Ok(taken))) = (&known, &come)
        && may_go_on(worker, &known.record)
        && pause_of_post(&worker.settings.limits, &taken.text).is_none()
    {
        let standing = Standing::Guess {
            revision: known.revision,
        };
        let record = Record::clone(&known.record);
        let batch = Batch::new(worker, request, protocol, standing, record, Offset::default());
        match handle(batch, &taken.text).await {
            Ok(reply) => return reply,
            Err(outrun) => begun = outrun,
        }
    }
    let begun = match begun {
        Some(begun) => Ok(*begun),
        None => patiently(async || worker.store.post_begin(sid, request, None).await).await,
    };
    let (record, revision, sent, parked) = match begun {
        Err(error) => return unavailable(&error),
        Ok(PostBegin::Unknown) => return Reply::Refused(Refusal::SessionUnknown),
        // Its client comes back and resumes, as it would have done without the repetition.
        Ok(PostBegin::Broken) => return Reply::Unavailable,
        Ok(PostBegin::Repeated) => return Reply::Taken,
        Ok(PostBegin::Moved(record)) => return moved(&record),
        Ok(PostBegin::Overlap) => return overlapped(worker, sid).await,
        Ok(PostBegin::Go { record: None, .. }) => return Reply::Refused(Refusal::SessionUnknown),
        Ok(PostBegin::Go {
            record: Some(record),
            revision,
            sent,
            parked,
        }) => (record, revision, sent, parked),
    };
    if record.closing {
        return Reply::Refused(Refusal::SessionUnknown);
    }
    if !may_go_on(worker, &record) {
        end(worker, sid, &Ending::ConnectTimeout).await;
        return Reply::Broken;
    }
    allowance.set(allowed(worker, &record));
    let taken = match come {
        Some(come) => come,
        None => body.await,
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => return untaken(worker, sid, request, &error).await,
    };
    // The lease keeps others out meanwhile.
    if let Some(pause) = pause_of_post(&worker.settings.limits, &taken.text) {
        worker.metrics.limits.one(Limit::Rate);
        sleep(pause).await;
    }
    remember(worker, revision, &Rc::new(record.clone()));
    let batch = Batch::new(worker, request, protocol, Standing::Begun { parked }, record, sent);
    // What has begun is not outrun.
    handle(batch, &taken.text).await.unwrap_or(Reply::Unavailable)
}

/// The answer to a POST whose body could not be had.
async fn untaken(worker: &Rc<Worker>, sid: &Sid, request: RequestId, error: &BodyError) -> Reply {
    let (ending, reply) = match error {
        BodyError::TooLarge => {
            let nothing = PostEffects::default();
            return match patiently(async || worker.store.post_finish(sid, request, nothing.clone()).await).await {
                Ok(_) => Reply::TooLarge,
                Err(error) => unavailable(&error),
            };
        }
        BodyError::OverBudget => (Ending::OverBudget, Reply::Busy),
        BodyError::TooSlow => (Ending::EngineProtocol("request body"), Reply::TooSlow),
        BodyError::Gone | BodyError::NotText => (Ending::EngineProtocol("request body"), Reply::Broken),
    };
    end(worker, sid, &ending).await;
    reply
}

/// Longest body of a session: little before it has joined a namespace.
fn allowed(worker: &Worker, record: &Record) -> Allowance {
    let (engine, socket) = (&worker.settings.engine, &worker.settings.socket);
    if record.settled {
        Allowance::Settled(engine.max_payload_bytes)
    } else {
        Allowance::Unsettled(engine.max_payload_bytes.min(socket.connect_bytes_max))
    }
}

/// The same by what was known of the session when it was here last: it may have joined a namespace since, elsewhere.
fn guessed(worker: &Worker, known: &Record) -> Allowance {
    match allowed(worker, known) {
        Allowance::Guess(max) | Allowance::Unsettled(max) => Allowance::Guess(max),
        Allowance::Settled(max) => Allowance::Settled(max),
    }
}

/// Whether the session is not over: it is not being closed, and its time to join a namespace has not run out.
fn may_go_on(worker: &Worker, record: &Record) -> bool {
    !record.closing && (record.settled || !settles_in(worker, record).is_zero())
}

/// Decides about the packets and stores what comes of it. If the record that was guessed is not the present one,
/// nothing has happened, and the answer of beginning properly is given, if there is one.
async fn handle(mut batch: Batch<'_>, text: &str) -> Result<Reply, Option<Box<PostBegin>>> {
    let mut ending = match batch.take(text).await {
        Ok(()) => None,
        Err(Stop::Ending(ending)) => Some(ending),
        Err(Stop::Outrun(begun)) => return Err(Some(begun)),
        Err(Stop::Unavailable(error)) => return Ok(unavailable(&error)),
    };
    let mut reply = Reply::Taken;
    if let Some(last) = ending.as_ref().and_then(|ending| last_packet(ending, batch.parked())) {
        let forgets = !ending.as_ref().is_some_and(Ending::recoverable);
        batch.say_goodbye(last, forgets);
        if matches!(ending, Some(Ending::EngineProtocol(_))) {
            reply = Reply::Broken;
        }
        ending = None;
    }
    let mail = batch.settle_mail().await;
    // Before the POST is answered, and before it counts as done.
    if !batch.deliver().await {
        return Ok(Reply::Unavailable);
    }
    if let Some(ending) = ending {
        batch.note(mail.len());
        batch.end(&ending).await;
        let left = matches!(ending, Ending::ClientLeft);
        return Ok(if left { Reply::Taken } else { Reply::Broken });
    }
    Ok(match batch.finish(&mail).await {
        Ok(PostDone::Done { .. }) => {
            batch.note(mail.len());
            // The memberships must be stored before the application is asked about them.
            if !batch.ask_application().await {
                return Ok(Reply::Unavailable);
            }
            match batch.take_over().await {
                Ok(()) => reply,
                Err(lost) => match lost.passing() {
                    Some(error) => unavailable(error),
                    // Another connection has it now; this client gets a new session.
                    None => {
                        debug!(reason = %lost, "resumed session not taken over");
                        batch.end(&Ending::TakenOver).await;
                        Reply::Broken
                    }
                },
            }
        }
        Ok(PostDone::Behind) => return Err(None),
        Ok(PostDone::Repeated) => Reply::Taken,
        // A client that posts and never polls: its answers have nowhere to go.
        Ok(PostDone::Full) => {
            batch.end(&Ending::SlowClient).await;
            Reply::Broken
        }
        Ok(PostDone::Gone | PostDone::Fenced { .. }) => Reply::Refused(Refusal::SessionUnknown),
        Err(error) => unavailable(&error),
    })
}

/// What the client's poll receives about the end of the session, if anything: as in the
/// reference server a goodbye is answered with a noop, and an error with a close. What is no Engine.IO packet ends the
/// session there and then, so only a poll that waits hears of it; after a broken Socket.IO packet the next poll does.
fn last_packet(ending: &Ending, parked: bool) -> Option<&'static str> {
    match ending {
        Ending::ClientLeft if parked => Some(NOOP),
        Ending::EngineProtocol(_) if parked => Some(CLOSE),
        Ending::Protocol(_) => {
            debug!(reason = %ending, "client broke the protocol");
            Some(CLOSE)
        }
        Ending::BadFrame(..)
        | Ending::EngineProtocol(_)
        | Ending::ClientLeft
        | Ending::ConnectTimeout
        | Ending::Dismissed
        | Ending::Drain
        | Ending::Kicked
        | Ending::LogLost
        | Ending::Moved
        | Ending::OverBudget
        | Ending::Overlap
        | Ending::PayloadTooLarge
        | Ending::PingTimeout
        | Ending::SlowClient
        | Ending::StoreUnavailable
        | Ending::TakenOver
        | Ending::TransportClosed
        | Ending::TransportError(_) => None,
    }
}
