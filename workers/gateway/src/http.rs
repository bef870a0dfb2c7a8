//! HTTP/1.1: connections, routes, and the engine's requests.

mod answer;
mod body;
mod client;
mod emit;
mod engine;
mod origin;
mod query;

use crate::metrics::Code;
use crate::ready;
use crate::worker::{Phase, Worker};
pub(crate) use answer::{Answer, body, plain, unavailable};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;

/// Idle keep-alive connections of a draining worker are closed after so long: a request that is on
/// its way when we close would fail.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// A client is given so long, at least, to take what was sent to it.
const STALL_MIN: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    bound_stalls(&worker, &stream);
    let http = &worker.settings.http;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_timeout)
        .max_buf_size(http.header_bytes_max.max(8192));
    let asked = Rc::new(Cell::new(false));
    let service = {
        let (worker, asked) = (worker.clone(), asked.clone());
        service_fn(move |request| {
            asked.set(true);
            let worker = worker.clone();
            async move { Ok::<_, Infallible>(route(&worker, request, peer).await) }
        })
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut phase = worker.phase.subscribe();
    let ended = tokio::select! {
        // First: a request that has come by now is none to close a connection on.
        biased;
        ended = connection.as_mut() => ended,
        () = drained(&mut phase) => {
            // Who was accepted and has not been heard yet is heard: the answer closes the connection, and
            // the header timeout ends one that stays silent.
            if asked.get() {
                connection.as_mut().graceful_shutdown();
            }
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// A client that takes nothing of what was sent is like one that says nothing: after the same time the kernel ends its
/// connection. Without that, one that never opens its window would keep an answer, and a connection, for ever.
fn bound_stalls(worker: &Worker, stream: &TcpStream) {
    let engine = &worker.settings.engine;
    let patience = (engine.ping_interval + engine.ping_timeout).max(STALL_MIN);
    let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
        debug!(%error, "a client may take its time");
    }
}

/// When connections that are idle may be closed.
async fn drained(phase: &mut tokio::sync::watch::Receiver<Phase>) {
    let stopping = match phase.wait_for(|phase| *phase != Phase::Serving).await {
        Ok(phase) => *phase == Phase::Stopping,
        Err(_) => true,
    };
    if !stopping {
        tokio::time::sleep_until(Instant::now() + IDLE_GRACE).await;
    }
}

async fn route(worker: &Rc<Worker>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let path = request.uri().path();
    let settings = &worker.settings;
    let mut answer = if is_below(path, &settings.engine.path) {
        engine::serve(worker, request, peer, crate::ws::Speech::SocketIo).await
    } else if settings
        .diagnostics
        .engine_echo
        .as_deref()
        .is_some_and(|echo| is_below(path, echo))
    {
        engine::serve(worker, request, peer, crate::ws::Speech::Echo).await
    } else {
        let shown = match path {
            "/api/emit" => settings.admin.public_emit,
            _ => settings.admin.public_health,
        };
        let answer = if shown { operator(worker, request).await } else { None };
        answer.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found\n"))
    };
    worker.metrics.requests.one(Code::of(answer.status()));
    if !worker.is_serving() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer
            .headers_mut()
            .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    answer
}

/// What is answered for operators, if it is that.
pub(crate) async fn operator(worker: &Worker, request: Request<Incoming>) -> Option<Answer> {
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
