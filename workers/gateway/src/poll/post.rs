//! The POST: packets from the client, decided one after the other, their outcome stored in one step.

use super::batch::Batch;
use super::get::{CLOSE, NOOP, moved, settles_in, unavailable};
use super::{Abort, Reply, end, patiently};
use crate::ending::Ending;
use crate::worker::Worker;
use crate::ws::Speech;
use futures_util::future::LocalBoxFuture;
use session::Sid;
use std::rc::Rc;
use store::{PostBegin, PostDone, PostEffects, RequestId};
use tracing::debug;
use wire::engine::Refusal;

/// Why a request body could not be had.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client broke off, or was too slow.
    Gone,
    /// Not UTF-8.
    NotText,
    /// Over `engine.max_payload_bytes`.
    TooLarge,
    /// Not whole within `http.body_timeout_ms`.
    TooSlow,
    /// `application/octet-stream`: protocol v3, not served.
    WrongType,
}

/// The body, once it has arrived.
pub(crate) type Body<'a> = LocalBoxFuture<'a, Result<String, BodyError>>;

/// Serves a POST with a sid.
pub(crate) async fn post(worker: &Rc<Worker>, sid: &Sid, speech: Speech, body: Body<'_>) -> Reply {
    let abort = Abort::new(worker, sid);
    let request = worker.store.request();
    let reply = serve(worker, sid, speech, request, body).await;
    abort.disarm();
    reply
}

async fn serve(worker: &Rc<Worker>, sid: &Sid, speech: Speech, request: RequestId, body: Body<'_>) -> Reply {
    let (record, sent, parked) = match patiently(async || worker.store.post_begin(sid, request, None).await).await {
        Err(error) => return unavailable(&error),
        Ok(PostBegin::Unknown) => return Reply::Refused(Refusal::SessionUnknown),
        Ok(PostBegin::Moved(record)) => return moved(&record),
        Ok(PostBegin::Overlap) => return Reply::Broken,
        Ok(PostBegin::Go { record: None, .. }) => return Reply::Refused(Refusal::SessionUnknown),
        Ok(PostBegin::Go {
            record: Some(record),
            sent,
            parked,
            ..
        }) => (record, sent, parked),
    };
    if record.closing {
        return Reply::Refused(Refusal::SessionUnknown);
    }
    if !record.settled && settles_in(worker, &record).is_zero() {
        end(worker, sid, &Ending::ConnectTimeout).await;
        return Reply::Broken;
    }
    let text = match body.await {
        Ok(text) => text,
        Err(BodyError::TooLarge) => {
            return match finish(worker, sid, request, PostEffects::default()).await {
                Ok(_) => Reply::TooLarge,
                Err(reply) => reply,
            };
        }
        Err(error) => {
            end(worker, sid, &Ending::EngineProtocol("request body")).await;
            return if matches!(error, BodyError::TooSlow) {
                Reply::TooSlow
            } else {
                Reply::Broken
            };
        }
    };
    let mut batch = Batch::new(worker, speech, record, sent);
    let mut ending = batch.take(&text).await;
    if let Some(last) = ending.as_ref().and_then(|ending| farewell(ending, parked)) {
        let forgets = !ending.as_ref().is_some_and(Ending::recoverable);
        batch.say_goodbye(last, forgets);
        ending = None;
    }
    let mail = batch.settle_mail().await;
    let done = finish(worker, sid, request, batch.effects(&mail)).await;
    if let Some(ending) = ending {
        end(worker, sid, &ending).await;
        let left = matches!(ending, Ending::ClientLeft);
        return if left { Reply::Taken } else { Reply::Broken };
    }
    match done {
        Ok(PostDone::Done) => match batch.take_over().await {
            Ok(()) => Reply::Taken,
            // Somebody else has it now; this client starts anew.
            Err(lost) => {
                debug!(reason = %lost, "resumed session not taken over");
                end(worker, sid, &Ending::TakenOver).await;
                Reply::Broken
            }
        },
        // A client that posts and never polls: its answers have nowhere to go.
        Ok(PostDone::Full) => {
            end(worker, sid, &Ending::SlowClient).await;
            Reply::Broken
        }
        Ok(PostDone::Gone | PostDone::Fenced { .. }) => Reply::Refused(Refusal::SessionUnknown),
        Err(reply) => reply,
    }
}

/// What the client's poll is told about the end of the session, if it is told anything: as in the
/// reference server a goodbye is answered with a noop, and an error with a close.
fn farewell(ending: &Ending, parked: bool) -> Option<&'static str> {
    match ending {
        Ending::ClientLeft if parked => Some(NOOP),
        Ending::EngineProtocol(_) | Ending::Protocol(_) => {
            debug!(reason = %ending, "client broke the protocol");
            Some(CLOSE)
        }
        Ending::ClientLeft
        | Ending::ConnectTimeout
        | Ending::Dismissed
        | Ending::Drain
        | Ending::Kicked
        | Ending::LogLost
        | Ending::Moved
        | Ending::PayloadTooLarge
        | Ending::PingTimeout
        | Ending::SlowClient
        | Ending::StoreUnavailable
        | Ending::TakenOver
        | Ending::TransportClosed
        | Ending::TransportError(_) => None,
    }
}

async fn finish(worker: &Worker, sid: &Sid, request: RequestId, effects: PostEffects<'_>) -> Result<PostDone, Reply> {
    patiently(async || worker.store.post_finish(sid, request, effects.clone()).await)
        .await
        .map_err(|error| unavailable(&error))
}
