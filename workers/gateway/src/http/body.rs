//! Request bodies: bounded in size and time.

use crate::poll::BodyError;
use crate::worker::Worker;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

/// Reads the body of a POST.
pub(crate) async fn read(worker: &Worker, request: Request<Incoming>) -> Result<String, BodyError> {
    let max = worker.settings.engine.max_payload_bytes;
    let (head, body) = request.into_parts();
    if is_binary(&head.headers) {
        return Err(BodyError::WrongType);
    }
    if declared(&head.headers).is_some_and(|bytes| bytes > max) {
        return Err(BodyError::TooLarge);
    }
    let collected = timeout(worker.settings.http.body_timeout, Limited::new(body, max).collect()).await;
    match collected {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Gone),
        Ok(Ok(body)) => String::from_utf8(body.to_bytes().into()).map_err(|_| BodyError::NotText),
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/octet-stream"))
}
