//! `POST /api/emit`: an event, or a list of them, for our clients. Answers 200 only when all are in the log.

use super::body::{Body, bounded};
use crate::answer::{Answer, body, busy, plain};
use crate::entries::entry_of;
use crate::metrics::Limit;
use crate::poll::BodyError;
use crate::worker::Worker;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;
use store::{AppendError, Appended, Dedupe};
use subtle::ConstantTimeEq;
use wire::foreign::{Order, plain as read_event};

/// Events of one request.
const EVENTS_MAX: usize = 1000;
/// `Retry-After` for a sender that is too fast, or while Redis is away (seconds).
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// An event as the log takes it, and its id.
type Entry = (Bytes, Option<Dedupe>);

pub(super) async fn serve(worker: &Worker, request: Request<&mut Body>) -> Answer {
    let Some(secret) = &worker.settings.emit.secret else {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if !is_allowed(request.headers(), secret.expose()) {
        let mut answer = refuse(StatusCode::UNAUTHORIZED, "the bearer token of emit.secret is needed");
        let scheme = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        return answer;
    }
    // More than the queue holds could never be appended.
    let max = worker.settings.log.queue_bytes_max;
    let (head, body) = request.into_parts();
    let (text, _share) = match bounded(worker, &head.headers, body, max).await {
        Ok(taken) => taken,
        Err(BodyError::OverBudget) => {
            worker.metrics.limits.one(Limit::Buffers);
            return busy();
        }
        Err(BodyError::TooLarge) => {
            let why = format!("the body is larger than log.queue_bytes_max, {max} bytes");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, &why);
        }
        Err(BodyError::TooSlow) => return refuse(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        Err(BodyError::Gone | BodyError::NotText) => {
            return refuse(StatusCode::BAD_REQUEST, "the body broke off");
        }
    };
    let single = text.trim_ascii_start().first() == Some(&b'{');
    match read(worker, &text, single) {
        Ok(entries) => append(worker, entries, single).await,
        Err(answer) => *answer,
    }
}

fn is_allowed(headers: &HeaderMap, secret: &str) -> bool {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.is_some_and(|(_, token)| token.trim().as_bytes().ct_eq(secret.as_bytes()).into())
}

/// All events, or what is wrong with the first that is none: nothing is appended then.
fn read(worker: &Worker, text: &Bytes, single: bool) -> Result<Vec<Entry>, Box<Answer>> {
    let bad = |why: String| Box::new(refuse(StatusCode::BAD_REQUEST, &why));
    let events: Vec<&RawValue> = if single {
        vec![serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?]
    } else {
        serde_json::from_slice(text).map_err(|e| bad(format!("neither an event nor a list of events: {e}")))?
    };
    if events.is_empty() || events.len() > EVENTS_MAX {
        return Err(bad(format!("1 to {EVENTS_MAX} events, not {}", events.len())));
    }
    let max = worker.settings.log.entry_bytes_max;
    let mut entries = Vec::with_capacity(events.len());
    for (at, event) in events.iter().enumerate() {
        let order = read_event(event.get().as_bytes()).map_err(|e| bad(format!("event {at}: {e}")))?;
        if let (Order::Emit { audience, .. }, Some(names)) = (&order, &worker.limits.namespaces)
            && !names.contains(&audience.nsp)
        {
            let nsp = &audience.nsp;
            return Err(bad(format!("event {at}: {nsp:?} is none of socket.namespaces")));
        }
        let entry = entry_of(order, &worker.limits).map_err(|e| bad(format!("event {at}: {e}")))?;
        let Some(entry) = entry else { continue };
        if entry.0.len() > max {
            let why = format!("event {at} is larger than log.entry_bytes_max, {max} bytes");
            return Err(Box::new(refuse(StatusCode::PAYLOAD_TOO_LARGE, &why)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

async fn append(worker: &Worker, entries: Vec<Entry>, single: bool) -> Answer {
    // Queued in this order, whatever the order of the answers.
    let queued: Vec<_> = entries
        .into_iter()
        .map(|(entry, id)| worker.store.append(entry, id))
        .collect();
    let mut results = Vec::with_capacity(queued.len());
    for outcome in join_all(queued).await {
        match outcome {
            Ok(appended) => results.push(result(&appended)),
            Err(error) => return failed(&error, results.len()),
        }
    }
    let json = match results.pop() {
        Some(only) if single => only,
        last => {
            results.extend(last);
            json!({ "results": results })
        }
    };
    body(StatusCode::OK, "application/json", json.to_string())
}

fn result(appended: &Appended) -> serde_json::Value {
    json!({ "offset": appended.offset.to_string(), "duplicate": appended.duplicate })
}

/// Some events may be in the log already: a sender that gives them ids can send all of them again.
fn failed(error: &AppendError, appended: usize) -> Answer {
    let status = match error {
        AppendError::QueueFull { .. } | AppendError::TooManyIds => StatusCode::TOO_MANY_REQUESTS,
        AppendError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        AppendError::Closed | AppendError::Refused { .. } | AppendError::Timeout { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let json = json!({ "error": error.to_string(), "appended": appended });
    let mut answer = body(status, "application/json", json.to_string());
    if status != StatusCode::PAYLOAD_TOO_LARGE {
        answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
    }
    answer
}

fn refuse(status: StatusCode, why: &str) -> Answer {
    body(status, "application/json", json!({ "error": why }).to_string())
}
