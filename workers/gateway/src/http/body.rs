//! Request bodies: bounded in size and time.

use super::socket::Progress;
use crate::poll::BodyError;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Extensions, HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// Of a body that is not wanted so much is read and forgotten (bytes), in so much time: what a client sends that uploads the
/// largest of files by mistake. Nothing of it is kept.
const FORGOTTEN_BYTES_MAX: usize = 64 << 20;
const FORGETTING_MAX: Duration = Duration::from_secs(10);

/// The body of a request, which knows whether all of it was read: only then can another request follow.
pub(crate) struct Body {
    incoming: Incoming,
    read: bool,
    /// It took too long: there is no waiting for the rest.
    late: bool,
    /// Where it comes from.
    progress: Option<Arc<Progress>>,
}

impl Body {
    pub(crate) fn new(incoming: Incoming, extensions: &Extensions) -> Self {
        Self {
            progress: extensions.get().cloned(),
            read: incoming.is_end_stream(),
            late: false,
            incoming,
        }
    }

    /// Whether there is nothing more of it.
    pub(crate) const fn is_read(&self) -> bool {
        self.read
    }

    /// Reads what was not wanted, within limits, and forgets it: a client that is still sending when the connection is closed
    /// may never see the answer. One that asks before it sends (`Expect`) need not send.
    pub(crate) async fn forget(&mut self, asks_first: bool) {
        if self.read || self.late || asks_first {
            return;
        }
        let mut left = FORGOTTEN_BYTES_MAX;
        let progress = self.progress.clone();
        let forget = async {
            let forget = async {
                while left > 0
                    && let Some(Ok(frame)) = self.frame().await
                {
                    left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                }
            };
            tokio::select! {
                biased;
                () = forget => {}
                () = ended(progress) => {}
            }
        };
        // In time or not, the answer is the same.
        drop(timeout(FORGETTING_MAX, forget).await);
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        self.read = matches!(frame, Poll::Ready(None)) || self.incoming.is_end_stream();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.read
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Reads the body of a POST: text, whatever its `Content-Type` says. python-engineio 4.0 to 4.2 sends its text as
/// `application/octet-stream`; Node's server refuses that, python-engineio's takes it.
pub(crate) async fn read(worker: &Worker, request: Request<&mut Body>) -> Result<String, BodyError> {
    let max = worker.settings.engine.max_payload_bytes;
    let (head, body) = request.into_parts();
    let bytes = bounded(worker, &head.headers, body, max).await?;
    String::from_utf8(bytes.into()).map_err(|_| BodyError::NotText)
}

/// A body of at most `max` bytes.
pub(super) async fn bounded(
    worker: &Worker,
    headers: &HeaderMap,
    body: &mut Body,
    max: usize,
) -> Result<Bytes, BodyError> {
    if declared(headers).is_some_and(|bytes| bytes > max) {
        return Err(BodyError::TooLarge);
    }
    let progress = body.progress.clone();
    let collect = async {
        tokio::select! {
            // First: what has come by now is there at once, and whatever is not will never come.
            biased;
            collected = Limited::new(&mut *body, max).collect() => Some(collected),
            () = ended(progress) => None,
        }
    };
    match timeout(worker.settings.http.body_timeout, collect).await {
        Err(_) => {
            body.late = true;
            Err(BodyError::TooSlow)
        }
        Ok(Some(Ok(body))) => Ok(body.to_bytes()),
        Ok(Some(Err(error))) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Some(Err(_)) | None) => Err(BodyError::Gone),
    }
}

/// Ready when nothing more comes from the client of a request.
pub(super) async fn ended(progress: Option<Arc<Progress>>) {
    match progress {
        Some(progress) => progress.ended().await,
        None => pending().await,
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
