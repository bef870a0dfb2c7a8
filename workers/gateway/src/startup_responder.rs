//! Before Redis has answered: health requests are answered, all others are asked to come back.

use crate::answer::{Answer, body, unavailable};
use crate::http::host_fault;
use crate::ready;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// So long a visitor may take for one request.
const VISIT: Duration = Duration::from_secs(5);
/// Visitors at a time; more wait in the accept queue.
const VISITORS_MAX: usize = 64;
/// When accept(2) fails, this long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers on a listener until dropped; connections accepted before that are served to the end.
pub(crate) async fn receive(listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(VISITORS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::task::spawn_local(async move {
                visit(stream).await;
                drop(place);
            })),
            Err(error) => {
                debug!(%error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn visit(stream: TcpStream) {
    let service = service_fn(async |request: Request<Incoming>| {
        let fault = host_fault(&request);
        Ok::<_, Infallible>(fault.unwrap_or_else(|| answer(request.uri().path())))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(VISIT)
        .keep_alive(false);
    let visit = timeout(VISIT, builder.serve_connection(TokioIo::new(stream), service)).await;
    if !matches!(visit, Ok(Ok(()))) {
        debug!("connection closed before the worker was ready");
    }
}

/// The same on the admin listener.
pub(crate) fn answer(path: &str) -> Answer {
    match path {
        "/api/live" => ready::live(),
        "/api/ready" => {
            let json = r#"{"status":"not_ready","checks":{"log":false,"redis":false},"security_validated":false,"multi_worker_support":false}"#;
            body(StatusCode::SERVICE_UNAVAILABLE, "application/json", json)
        }
        _ => unavailable(),
    }
}
