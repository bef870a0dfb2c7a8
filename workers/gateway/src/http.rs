//! HTTP/1.1: connections, routes, and the engine's requests.

mod body;
mod client;
mod emit;
mod engine;
mod fields;
mod official;
mod origin;
mod query;
mod reply;
mod socket;
mod switch;

use crate::answer::{Answer, plain};
use crate::budget::{Share, Standing};
use crate::lifecycle::{Held, Idle, IdlePolicy};
use crate::metrics::{Code, Limit};
use crate::protocol::Protocol;
use crate::ready;
use crate::worker::{Counted, Worker};
pub(crate) use body::Body;
pub(crate) use fields::host_fault;
use http::header::{CONNECTION, EXPECT, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket::{Progress, Socket};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

/// RFC 2068, 19.7.1.1; sent by Node's server too.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Serves a connection, in a task of its own.
pub(crate) fn admit(worker: &Rc<Worker>, held: Held, peer: SocketAddr) {
    // A connection that comes in the last drain gets 503, and delays nothing.
    let counted = (!worker.lifecycle.is_last()).then(|| Counted::new(worker));
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        serve(worker, held, peer).await;
        drop(counted);
    });
}

/// Serves one connection to its end, or until another worker has it.
async fn serve(worker: Rc<Worker>, mut held: Held, peer: SocketAddr) {
    let mut idle_policy = worker.lifecycle.idle_policy.subscribe();
    idle_policy.mark_changed();
    while let Some((parting, handoff)) = hold(&worker, held, peer, &mut idle_policy).await {
        let (back, came_back) = oneshot::channel();
        held = match handoff.try_send(Idle { held: parting, back }) {
            Ok(()) => match came_back.await {
                Ok(held) => held,
                Err(_) => return,
            },
            // The other worker takes no more.
            Err(refused) => refused.into_inner().held,
        };
    }
}

/// Serves a connection until it ends, or can and shall move.
async fn hold(
    worker: &Rc<Worker>,
    held: Held,
    peer: SocketAddr,
    idle_policy: &mut watch::Receiver<IdlePolicy>,
) -> Option<(Held, mpsc::Sender<Idle>)> {
    let Held { tcp, unread, asked } = held;
    let http = &worker.settings.http;
    let mut builder = http1::Builder::new();
    // Its time limits are the socket's, which tells a connection without a request from half a request.
    builder
        .header_read_timeout(None)
        .max_buf_size(http.header_bytes_max.max(8192));
    let progress = Arc::new(Progress::new(asked));
    // Of an answer that is being written.
    let share = Rc::new(worker.budget.share(Standing::Settled));
    let service = {
        let (worker, progress, share) = (worker.clone(), progress.clone(), share.clone());
        service_fn(move |mut request: Request<Incoming>| {
            progress.begin();
            request.extensions_mut().insert(progress.clone());
            let (worker, progress, share) = (worker.clone(), progress.clone(), share.clone());
            async move {
                let answer = route(&worker, request, peer).await;
                share.set(length(&answer));
                progress.end();
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let socket = Socket::new(tcp, unread, progress.clone(), http);
    let mut connection = builder.serve_connection(TokioIo::new(socket), service).with_upgrades();
    let ended = loop {
        let decided = tokio::select! {
            // First: a request that has come by now is none to close a connection on.
            biased;
            ended = poll_fn(|cx| poll_within(&mut connection, &progress, &share, cx)) => match ended {
                Some(ended) => break ended,
                None => {
                    worker.metrics.limits.one(Limit::Buffers);
                    return None;
                }
            },
            Ok(()) = idle_policy.changed() => idle_policy.borrow_and_update().clone(),
        };
        match decided {
            IdlePolicy::Shed if progress.asked() && progress.is_idle() => {
                Pin::new(&mut connection).graceful_shutdown();
                break connection.await;
            }
            IdlePolicy::Shed | IdlePolicy::Stay => {}
            // What was answered has been written, and no request is complete.
            IdlePolicy::Move(handoff) if progress.is_idle() => {
                let parts = connection.into_parts()?;
                let (tcp, unread) = parts.io.into_inner().into_parts(parts.read_buf);
                let asked = progress.asked();
                return Some((Held { tcp, unread, asked }, handoff));
            }
            // Its answer says that it closes.
            IdlePolicy::Move(_) => {}
            IdlePolicy::Close => {
                // Who was accepted and has not been heard yet is heard: the answer closes the connection, and
                // the header timeout ends one that stays silent.
                if progress.asked() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
                break connection.await;
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
    None
}

/// Goes on with a connection, and keeps its share up to date; nothing if the worker needs that back.
fn poll_within<C: Future + Unpin>(
    connection: &mut C,
    progress: &Progress,
    share: &Share,
    cx: &mut Context<'_>,
) -> Poll<Option<C::Output>> {
    let ended = Pin::new(connection).poll(cx);
    if progress.is_idle() {
        share.set(0);
    }
    if ended.is_pending() && share.watch(cx).is_ready() {
        return Poll::Ready(None);
    }
    ended.map(Some)
}

/// Bytes of an answer's body.
fn length(answer: &Answer) -> usize {
    let exact = answer.body().size_hint().exact().unwrap_or_default();
    usize::try_from(exact).unwrap_or(usize::MAX)
}

async fn route(worker: &Rc<Worker>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let (head, incoming) = request.into_parts();
    let mut body = Body::new(incoming, &head.extensions);
    let ends = fields::wants_close(&head.headers);
    let is_new = head.version == Version::HTTP_11;
    let asks_first = head.headers.contains_key(EXPECT);
    let request = Request::from_parts(head, &mut body);
    let mut answer = match host_fault(&request) {
        Some(fault) => fault,
        None => answer(worker, request, peer).await,
    };
    worker.metrics.requests.one(Code::of(answer.status()));
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return answer;
    }
    body.forget(asks_first).await;
    let headers = answer.headers_mut();
    if headers.contains_key(CONNECTION) {
        return answer;
    }
    // What is left of a body cannot be told from a request.
    if ends || !worker.lifecycle.is_serving() || !body.is_read() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if is_new && let Some(promise) = &worker.keepalive {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(KEEP_ALIVE, promise.clone());
    }
    answer
}

async fn answer(worker: &Rc<Worker>, request: Request<&mut Body>, peer: SocketAddr) -> Answer {
    let path = request.uri().path();
    let settings = &worker.settings;
    if is_below(path, &settings.engine.path) {
        return engine::serve(worker, request, peer, Protocol::SocketIo).await;
    }
    let echo = settings.diagnostics.engine_echo.as_deref();
    if echo.is_some_and(|echo| is_below(path, echo)) {
        return engine::serve(worker, request, peer, Protocol::Echo).await;
    }
    let shown = match path {
        "/api/emit" => settings.admin.public_emit,
        _ => settings.admin.public_health,
    };
    let answer = if shown { operator(worker, request).await } else { None };
    answer.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found\n"))
}

/// What is answered for operators, if it is that.
pub(crate) async fn operator(worker: &Worker, request: Request<&mut Body>) -> Option<Answer> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/api/live") => ready::live(),
        (&Method::GET | &Method::HEAD, "/api/ready") => ready::ready(worker).await,
        (&Method::POST, "/api/emit") => emit::serve(worker, request).await,
        (_, "/api/emit") if worker.settings.emit.secret.is_some() => {
            plain(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
        }
        (_, "/api/live" | "/api/ready") => plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
        _ => return None,
    };
    Some(answer)
}

/// Whether a request's path is the endpoint's (which ends with `/`); without the slash counts too.
fn is_below(path: &str, endpoint: &str) -> bool {
    path.starts_with(endpoint) || endpoint.strip_suffix('/') == Some(path)
}
