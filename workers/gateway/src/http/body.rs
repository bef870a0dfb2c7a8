//! Request bodies: bounded in size and time.

use crate::poll::BodyError;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::timeout;

/// Of a body that is too large so much is read and forgotten, in so much time.
const FORGOTTEN_BYTES_MAX: usize = 64 << 20;
const FORGETTING_MAX: Duration = Duration::from_secs(10);

/// Reads the body of a POST.
pub(crate) async fn read(worker: &Worker, request: Request<Incoming>) -> Result<String, BodyError> {
    let max = worker.settings.engine.max_payload_bytes;
    let (head, body) = request.into_parts();
    if is_binary(&head.headers) {
        return Err(BodyError::WrongType);
    }
    let bytes = bounded(worker, &head.headers, body, max).await?;
    String::from_utf8(bytes.into()).map_err(|_| BodyError::NotText)
}

/// A body of at most `max` bytes. Of a larger one the rest is read and forgotten, within limits: a client that is still
/// sending when the connection is closed may never see the answer.
pub(super) async fn bounded(
    worker: &Worker,
    headers: &HeaderMap,
    mut body: Incoming,
    max: usize,
) -> Result<Bytes, BodyError> {
    let fits = declared(headers).is_none_or(|bytes| bytes <= max);
    if fits {
        let collected = timeout(
            worker.settings.http.body_timeout,
            Limited::new(&mut body, max).collect(),
        )
        .await;
        match collected {
            Err(_) => return Err(BodyError::TooSlow),
            Ok(Ok(body)) => return Ok(body.to_bytes()),
            Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_none() => return Err(BodyError::Gone),
            Ok(Err(_)) => {}
        }
    }
    // Who asks before it sends need not send.
    if !headers.contains_key(EXPECT) {
        let mut left = FORGOTTEN_BYTES_MAX;
        let forget = async {
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        };
        // In time or not, the answer is the same.
        drop(timeout(FORGETTING_MAX, forget).await);
    }
    Err(BodyError::TooLarge)
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/octet-stream"))
}
