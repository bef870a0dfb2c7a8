//! The admin listener: metrics and health, for operators. All workers accept from it; the
//! one that gets a question about the fleet asks the supervisor.

use crate::accept::wants_open_metrics;
use crate::answer::{Answer, body, plain};
use crate::http::{Body, host_fault};
use crate::supervisor::Supervisor;
use crate::worker::Worker;
use crate::{http as public, report, startup_responder};
use boot::ToSupervisor;
use http::header::{ACCEPT, EXPECT, HeaderValue, VARY};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use meter::Report;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Visitors at a time; more wait in the accept queue.
const VISITORS_MAX: u32 = 16;
/// A request must be complete by then.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// So long a visitor may take altogether.
const VISIT: Duration = Duration::from_secs(60);
/// When accept(2) fails, this long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the supervisor may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a worker that leaves waits for its visitors.
const LEAVE_PATIENCE: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Admin {
    supervisor: Rc<Supervisor>,
    /// As soon as it serves.
    worker: RefCell<Option<Rc<Worker>>>,
    /// Questions that the supervisor has not answered yet.
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Report>>>,
    asked: Cell<u64>,
    visitors: Arc<Semaphore>,
    /// Accepts no new connections.
    closed: Notify,
}

impl Admin {
    pub(crate) fn new(supervisor: Rc<Supervisor>) -> Rc<Self> {
        Rc::new(Self {
            supervisor,
            worker: RefCell::default(),
            waiting: RefCell::default(),
            asked: Cell::new(0),
            visitors: Arc::new(Semaphore::new(VISITORS_MAX as usize)),
            closed: Notify::new(),
        })
    }

    /// From now on health is the worker's.
    pub(crate) fn serves(&self, worker: &Rc<Worker>) {
        self.worker.replace(Some(worker.clone()));
    }

    /// The supervisor's answer.
    pub(crate) fn answered(&self, id: u64, descriptors: Vec<OwnedFd>) {
        let requester = self.waiting.borrow_mut().remove(&id);
        let (Some(requester), Some(file)) = (requester, descriptors.into_iter().next()) else {
            return;
        };
        match serde_json::from_reader(std::io::BufReader::new(File::from(file))) {
            // Who has asked may have gone.
            Ok(report) => drop(requester.send(report)),
            Err(error) => warn!(%error, "metrics of the fleet not understood"),
        }
    }

    /// Lets the listener go: others have it.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }

    /// Lets it go, and waits for those inside.
    pub(crate) async fn leave(&self) {
        self.close();
        if timeout(LEAVE_PATIENCE, self.visitors.acquire_many(VISITORS_MAX))
            .await
            .is_err()
        {
            debug!("admin connections closed");
        }
    }

    /// Accepts until told otherwise.
    pub(crate) async fn receive(self: Rc<Self>, listener: TcpListener) {
        loop {
            let came = async {
                let place = self.visitors.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let accepted = tokio::select! {
                accepted = came => accepted,
                () = self.closed.notified() => return,
            };
            match accepted {
                (place, Ok((stream, _))) => {
                    let admin = self.clone();
                    tokio::task::spawn_local(async move {
                        admin.visit(stream).await;
                        drop(place);
                    });
                }
                (_, Err(error)) => {
                    debug!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// One request: the next one may be for another worker.
    async fn visit(self: Rc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.route(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_PATIENCE)
            .keep_alive(false);
        let visit = timeout(VISIT, builder.serve_connection(TokioIo::new(stream), service)).await;
        if !matches!(visit, Ok(Ok(()))) {
            debug!("admin connection closed");
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let (head, incoming) = request.into_parts();
        let asks_first = head.headers.contains_key(EXPECT);
        let mut body = Body::new(incoming, &head.extensions);
        let answer = self.answer(Request::from_parts(head, &mut body)).await;
        body.forget(asks_first).await;
        answer
    }

    async fn answer(&self, request: Request<&mut Body>) -> Answer {
        if let Some(fault) = host_fault(&request) {
            return fault;
        }
        let worker = self.worker.borrow().clone();
        let path = request.uri().path();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        match (path, worker) {
            ("/metrics", _) if is_get => {
                let accept = request.headers().get_all(ACCEPT).iter();
                let open = wants_open_metrics(accept.filter_map(|value| value.to_str().ok()));
                self.metrics(open).await
            }
            ("/metrics", _) => plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
            (_, Some(worker)) => public::operator(&worker, request)
                .await
                .unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found\n")),
            (path, None) => startup_responder::answer(path),
        }
    }

    async fn metrics(&self, open: bool) -> Answer {
        let Some(report) = self.ask().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the supervisor does not answer\n");
        };
        match meter::page(&report::families(), &report) {
            Ok(page) => vary(if open {
                body(StatusCode::OK, meter::CONTENT_TYPE, page)
            } else {
                body(StatusCode::OK, meter::PLAIN_CONTENT_TYPE, meter::plain(&page))
            }),
            Err(error) => {
                warn!(%error, "metrics not written");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics not written\n")
            }
        }
    }

    /// What the fleet has counted; what this worker has, up to now.
    async fn ask(&self) -> Option<Report> {
        let worker = self.worker.borrow().clone();
        if let Some(worker) = worker {
            report::tell_now(&worker, &self.supervisor).await;
        }
        let id = self.asked.get();
        self.asked.set(id + 1);
        let (requester, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(id, requester);
        self.supervisor.send(&ToSupervisor::Scrape { id }).await;
        let answer = timeout(ANSWER_PATIENCE, answer).await;
        self.waiting.borrow_mut().remove(&id);
        answer.ok()?.ok()
    }
}

/// Says that another `Accept` gets another answer.
fn vary(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}
