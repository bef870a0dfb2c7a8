//! Request bodies: bounded in size and time.

use super::socket::Progress;
use crate::budget::{Share, Standing};
use crate::poll::{Allowance, BodyError, Taken};
use crate::worker::Worker;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Extensions, HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use std::cell::Cell;
use std::future::{pending, poll_fn};
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
pub(crate) async fn read(
    worker: &Worker,
    request: Request<&mut Body>,
    allowance: &Cell<Allowance>,
) -> Result<Taken, BodyError> {
    let (head, body) = request.into_parts();
    let (bytes, share) = gather(worker, &head.headers, body, allowance).await?;
    let text = String::from_utf8(bytes).map_err(|_| BodyError::NotText)?;
    Ok(Taken { text, _share: share })
}

/// A body of at most `max` bytes, and its share of the budget.
pub(super) async fn bounded(
    worker: &Worker,
    headers: &HeaderMap,
    body: &mut Body,
    max: usize,
) -> Result<(Bytes, Share), BodyError> {
    let allowance = Cell::new(Allowance::Settled(max));
    let (bytes, share) = gather(worker, headers, body, &allowance).await?;
    Ok((bytes.into(), share))
}

async fn gather(
    worker: &Worker,
    headers: &HeaderMap,
    body: &mut Body,
    allowance: &Cell<Allowance>,
) -> Result<(Vec<u8>, Share), BodyError> {
    let progress = body.progress.clone();
    let share = worker.budget.share(Standing::Unsettled);
    let collect = async {
        tokio::select! {
            // First: what has come by now is there at once, and whatever is not will never come.
            biased;
            collected = collect(&mut *body, declared(headers), allowance, &share) => collected,
            () = ended(progress) => Err(BodyError::Gone),
            () = poll_fn(|cx| share.watch(cx)) => Err(BodyError::OverBudget),
        }
    };
    match timeout(worker.settings.http.body_timeout, collect).await {
        Err(_) => {
            body.late = true;
            Err(BodyError::TooSlow)
        }
        Ok(collected) => {
            let bytes = collected?;
            share.stand(Standing::Used);
            Ok((bytes, share))
        }
    }
}

async fn collect(
    body: &mut Body,
    declared: Option<usize>,
    allowance: &Cell<Allowance>,
    share: &Share,
) -> Result<Vec<u8>, BodyError> {
    allowed(declared.unwrap_or_default(), allowance).await?;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Gone)?;
        let Some(data) = frame.data_ref() else { continue };
        share.stand(allowed(bytes.len() + data.len(), allowance).await?);
        bytes.extend_from_slice(data);
        share.set(bytes.len());
    }
    Ok(bytes)
}

/// Whether a body may have so many bytes, and what its client is. If that is more than a guess allows, it waits until more is known: the caller
/// polls it again then.
async fn allowed(bytes: usize, allowance: &Cell<Allowance>) -> Result<Standing, BodyError> {
    poll_fn(|_| {
        Poll::Ready(match allowance.get() {
            Allowance::Guess(max) if bytes > max => return Poll::Pending,
            Allowance::Unsettled(max) | Allowance::Settled(max) if bytes > max => Err(BodyError::TooLarge),
            Allowance::Guess(_) | Allowance::Unsettled(_) => Ok(Standing::Unsettled),
            Allowance::Settled(_) => Ok(Standing::Settled),
        })
    })
    .await
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
