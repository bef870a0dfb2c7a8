//! Engine.IO requests: checks in the order of the reference server, then polling or WebSocket.

use super::body::Body;
use super::query::Query;
use super::reply;
use super::socket::Socket;
use super::switch::{self, Offer};
use super::{body, client, fields, official, origin};
use crate::answer::{self, Answer};
use crate::clock::unix_ms;
use crate::dispatch::flag;
use crate::metrics::{Handshake, Limit, Upgrade};
use crate::poll::{self, Allowance, Incoming};
use crate::protocol::{Protocol, Style};
use crate::random::new_sid;
use crate::sockets::Buffers;
use crate::upgrade::upgrade;
use crate::worker::{Counted, Worker};
use crate::ws::{self, Opening};
use boot::{Cookie, Offsets, SameSite};
use http::header::{ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use session::trace::Value::Text;
use session::{Record, Sid, Transport};
use std::cell::{Cell, RefCell};
use std::iter;
use std::net::SocketAddr;
use std::rc::Rc;
use store::{CREATED_REVISION, RequestId, UpgradeBegin};
use tracing::debug;
use wire::engine::Refusal;

/// Serves a request to the engine's path.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    request: Request<&mut Body>,
    peer: SocketAddr,
    protocol: Protocol,
) -> Answer {
    let http = &worker.settings.http;
    if request.method() == Method::OPTIONS
        && let Some(mut answer) = origin::preflight(http, request.headers())
    {
        origin::cors(http, request.headers(), answer.headers_mut());
        return answer;
    }
    // What CORS needs of the request outlives it.
    let origin = request.headers().get(ORIGIN).cloned();
    // A body would stand before the frames.
    let mut answer = if fields::wants_websocket(&request) && request.body().is_read() {
        Box::pin(websocket(worker, request, peer, protocol)).await
    } else {
        polling(worker, request, peer, protocol).await
    };
    let headers: HeaderMap = origin.into_iter().map(|value| (ORIGIN, value)).collect();
    origin::cors(http, &headers, answer.headers_mut());
    answer
}

/// Checks that both transports share: the transport asked for, and the Origin's bytes.
fn check(worker: &Worker, query: &Query<'_>, headers: &HeaderMap) -> Result<Transport, Refusal> {
    let engine = &worker.settings.engine;
    let transport = match query.transport.as_deref() {
        Some("polling") if engine.polling => Transport::Polling,
        Some("websocket") if engine.websocket => Transport::Websocket,
        _ => return Err(Refusal::TransportUnknown),
    };
    if headers.get(ORIGIN).is_some_and(|origin| origin.to_str().is_err()) {
        return Err(Refusal::BadRequest);
    }
    Ok(transport)
}

async fn polling(worker: &Rc<Worker>, request: Request<&mut Body>, peer: SocketAddr, protocol: Protocol) -> Answer {
    let uri = request.uri().clone();
    let query = Query::parse(uri.query().unwrap_or_default());
    let transport = match check(worker, &query, request.headers()) {
        Ok(transport) => transport,
        Err(refusal) => {
            if query.sid.is_none() {
                worker.metrics.handshakes.one(Handshake::PollingRefused);
            }
            return answer::refused(refusal);
        }
    };
    let Some(text) = query.sid.as_deref() else {
        let refusal = match (request.method(), transport) {
            (&Method::GET, Transport::Polling) if query.eio.as_deref() == Some("4") => {
                return Box::pin(begin(worker, &request, &query, peer, protocol)).await;
            }
            (&Method::GET, Transport::Polling) => Refusal::UnsupportedProtocol,
            (&Method::GET, Transport::Websocket) => Refusal::BadRequest,
            _ => Refusal::BadMethod,
        };
        worker.metrics.handshakes.one(Handshake::PollingRefused);
        return answer::refused(refusal);
    };
    let Ok(sid) = Sid::parse(text) else {
        return answer::refused(Refusal::SessionUnknown);
    };
    if transport == Transport::Websocket {
        // The session is looked at first, as the reference server does.
        return match worker.store.load(&sid).await {
            Ok(Some(_)) => answer::refused(Refusal::BadRequest),
            Ok(None) => answer::refused(Refusal::SessionUnknown),
            Err(_) => answer::unavailable(),
        };
    }
    let gzip = answer::accepts_gzip(request.headers());
    let id = request_id(worker, request.headers(), &query, peer);
    let reply = match *request.method() {
        // Boxed: they are large, and would be moved with every request of the connection.
        Method::GET => {
            let ended = Box::pin(body::ended(request.extensions().get().cloned()));
            Box::pin(poll::get(worker, &sid, id, ended)).await
        }
        Method::POST => {
            let allowance = Cell::new(Allowance::Settled(worker.settings.engine.max_payload_bytes));
            let text = Box::pin(body::read(worker, request, &allowance));
            let body = Incoming {
                allowance: &allowance,
                text,
            };
            Box::pin(poll::post(worker, &sid, id, protocol, body)).await
        }
        _ => poll::Reply::Refused(Refusal::BadMethod),
    };
    reply::reply(worker, gzip, reply)
}

/// Whether an application in processes of its own, if there is one, can be told of the handshake.
async fn say_hello(worker: &Worker, record: &Record, uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(external) = &worker.external else { return true };
    let said = external.hello(record, uri, headers).await;
    if let Err(error) = &said {
        debug!(%error, "handshake not stored for the application");
    }
    said.is_ok()
}

/// A request's id: with it, if it came with one, a proxy's repetition of the request is known again.
fn request_id(worker: &Worker, headers: &HeaderMap, query: &Query<'_>, peer: SocketAddr) -> RequestId {
    let proxies = &worker.settings.http.trusted_proxies;
    let id = worker.store.request();
    match client::request_id(proxies, peer.ip(), headers).or(query.request_id()) {
        Some(given) => id.repeatable(given),
        None => id,
    }
}

/// How many `t` of a handshake's query are noted: one of the client, one of the application, and some to spare.
const CONSTANTS_MAX: usize = 4;

/// The handshake of a polling session.
async fn begin(
    worker: &Worker,
    request: &Request<&mut Body>,
    query: &Query<'_>,
    peer: SocketAddr,
    protocol: Protocol,
) -> Answer {
    if worker.lifecycle.is_last() {
        worker.metrics.handshakes.one(Handshake::PollingUnavailable);
        return answer::stopping();
    }
    if !worker.unsettled.borrow_mut().has_room() {
        worker.metrics.handshakes.one(Handshake::PollingUnavailable);
        worker.metrics.limits.one(Limit::Handshakes);
        return answer::busy();
    }
    let record = new_record(worker, request.headers(), query, peer, Transport::Polling, protocol);
    if !record.settled {
        worker.unsettled.borrow_mut().begin(record.sid.clone());
    }
    let asked = request_id(worker, request.headers(), query, peer);
    let constants = query.constants().take(CONSTANTS_MAX);
    let constants = constants.map(|id| worker.store.request().repeatable(id));
    let asked: Vec<RequestId> = iter::once(asked).chain(constants).collect();
    let (head, ttl) = (worker.head(), worker.ttl(&record));
    if !say_hello(worker, &record, request.uri(), request.headers()).await {
        worker.metrics.handshakes.one(Handshake::PollingUnavailable);
        return answer::unavailable();
    }
    let created = worker.store.create_for(&record, &asked, head, ttl).await;
    worker.note_stored(&created);
    if let Err(error) = created {
        debug!(%error, "session not stored");
        worker.metrics.handshakes.one(Handshake::PollingUnavailable);
        return answer::unavailable();
    }
    worker.metrics.handshakes.one(Handshake::PollingOk);
    let fields = [("transport", Text("polling")), ("address", Text(&record.address))];
    worker.trace.note(&record.sid, "opened", &fields);
    let engine = &worker.settings.engine;
    let upgrades: &[&str] = if engine.allow_upgrades && engine.websocket {
        &["websocket"]
    } else {
        &[]
    };
    let open = ws::handshake(worker, &record, upgrades);
    poll::remember(worker, CREATED_REVISION, &Rc::new(record.clone()));
    let mut answer = reply::packets(worker, answer::accepts_gzip(request.headers()), open);
    set_cookie(worker, &record.sid, answer.headers_mut());
    answer
}

fn new_record(
    worker: &Worker,
    headers: &HeaderMap,
    query: &Query<'_>,
    peer: SocketAddr,
    transport: Transport,
    protocol: Protocol,
) -> Record {
    let address = client::address(&worker.settings.http.trusted_proxies, peer.ip(), headers).to_string();
    let mut record = Record::new(new_sid(), transport, worker.name().to_owned(), address, unix_ms());
    record.offsets = protocol == Protocol::SocketIo && wants_offsets(worker, headers, query, transport);
    // There are no namespaces to wait for.
    record.settled = protocol == Protocol::Echo;
    record
}

/// Whether a client understands offsets: only the official JavaScript client is known to. One that says so itself is believed.
fn wants_offsets(worker: &Worker, headers: &HeaderMap, query: &Query<'_>, transport: Transport) -> bool {
    let recovery = &worker.settings.recovery;
    let said = query.recovery.as_deref().and_then(flag);
    recovery.enabled
        && match recovery.offsets {
            Offsets::Always => true,
            Offsets::Never => false,
            Offsets::Auto => said.unwrap_or_else(|| official::is_client(query, headers, transport)),
        }
}

fn set_cookie(worker: &Worker, sid: &Sid, headers: &mut HeaderMap) {
    let Some(Cookie {
        name,
        path,
        http_only,
        same_site,
        secure,
    }) = &worker.settings.engine.cookie
    else {
        return;
    };
    let same_site = match same_site {
        SameSite::Lax => "Lax",
        SameSite::None => "None",
        SameSite::Strict => "Strict",
    };
    let http_only = if *http_only { "; HttpOnly" } else { "" };
    let secure = if *secure { "; Secure" } else { "" };
    let cookie = format!("{name}={sid}; Path={path}{http_only}{secure}; SameSite={same_site}");
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        headers.insert(SET_COOKIE, value);
    }
}

/// What a WebSocket is opened for.
enum Purpose {
    /// Only to be closed: the session has one already.
    Close,
    Fresh(Record),
    Upgrade {
        sid: Sid,
        request: RequestId,
    },
}

async fn websocket(
    worker: &Rc<Worker>,
    mut request: Request<&mut Body>,
    peer: SocketAddr,
    protocol: Protocol,
) -> Answer {
    let uri = request.uri().clone();
    let query = Query::parse(uri.query().unwrap_or_default());
    let headers = request.headers();
    let asked = match Offer::read(headers) {
        Ok(offer) => purpose(worker, &query, headers, peer, protocol)
            .await
            .map(|purpose| (offer, purpose)),
        Err(answer) => Err(answer),
    };
    let (offer, purpose) = match asked {
        Ok(asked) => asked,
        Err(answer) => {
            note_refused(worker, query.sid.is_some(), answer.status());
            return *answer;
        }
    };
    if let Purpose::Fresh(record) = &purpose
        && !say_hello(worker, record, request.uri(), request.headers()).await
    {
        worker.metrics.handshakes.one(Handshake::WebsocketUnavailable);
        return answer::unavailable();
    }
    let mut cookie = HeaderMap::new();
    if let Purpose::Fresh(record) = &purpose {
        worker.metrics.handshakes.one(Handshake::WebsocketOk);
        set_cookie(worker, &record.sid, &mut cookie);
    }
    let style = Style {
        protocol,
        base64: query.b64,
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        // A drain lets an upgrade end, and then hands it over with the others.
        let _counted = Counted::new(&worker);
        let parts = match upgraded
            .await
            .map(hyper::upgrade::Upgraded::downcast::<TokioIo<Socket>>)
        {
            Ok(Ok(parts)) => parts,
            Ok(Err(_)) => return debug!("upgraded connection has an unknown type"),
            Err(error) => return debug!(%error, "connection not upgraded"),
        };
        let (tcp, unread) = parts.io.into_inner().into_parts(parts.read_buf);
        let buffers = Buffers {
            unread,
            ..Buffers::default()
        };
        let ws = ws::over(tcp, buffers, &worker).await;
        match purpose {
            Purpose::Fresh(record) => ws::open(worker, ws, style, record, Opening::Fresh).await,
            Purpose::Upgrade { sid, request } => upgrade(worker, ws, style, sid, request).await,
            Purpose::Close => ws::close(&RefCell::new(ws), None).await,
        }
    });
    offer.accept(cookie)
}

/// Counts a WebSocket that was not opened: of an upgrade, or of a new session.
fn note_refused(worker: &Worker, upgrade: bool, status: StatusCode) {
    if upgrade {
        worker.metrics.upgrades.one(Upgrade::Refused);
    } else if status == StatusCode::SERVICE_UNAVAILABLE {
        worker.metrics.handshakes.one(Handshake::WebsocketUnavailable);
    } else {
        worker.metrics.handshakes.one(Handshake::WebsocketRefused);
    }
}

async fn purpose(
    worker: &Worker,
    query: &Query<'_>,
    headers: &HeaderMap,
    peer: SocketAddr,
    protocol: Protocol,
) -> Result<Purpose, Box<Answer>> {
    let refuse = |refusal| Err(Box::new(switch::refuse(refusal)));
    match check(worker, query, headers) {
        Ok(Transport::Websocket) => {}
        Ok(Transport::Polling) => return refuse(Refusal::BadRequest),
        Err(refusal) => return refuse(refusal),
    }
    let by_tls = client::by_tls(&worker.settings.http.trusted_proxies, peer.ip(), headers);
    if !origin::may_open_websocket(&worker.settings.http, headers, by_tls) {
        return refuse(Refusal::Forbidden);
    }
    if worker.lifecycle.is_last() {
        return Err(Box::new(answer::stopping()));
    }
    let Some(text) = query.sid.as_deref() else {
        if query.eio.as_deref() != Some("4") {
            return refuse(Refusal::UnsupportedProtocol);
        }
        if !worker.stores() {
            return Err(Box::new(answer::unavailable()));
        }
        return Ok(Purpose::Fresh(new_record(
            worker,
            headers,
            query,
            peer,
            Transport::Websocket,
            protocol,
        )));
    };
    let Ok(sid) = Sid::parse(text) else {
        return refuse(Refusal::SessionUnknown);
    };
    if !worker.settings.engine.allow_upgrades {
        return refuse(Refusal::BadRequest);
    }
    let request = worker.store.request();
    match worker
        .store
        .upgrade_begin(&sid, request, worker.settings.engine.upgrade_timeout)
        .await
    {
        Ok(UpgradeBegin::Go { record }) => {
            poll::note_foreign(worker, &record);
            worker.trace.note(&sid, "upgrading", &[]);
            Ok(Purpose::Upgrade { sid, request })
        }
        Ok(UpgradeBegin::Busy | UpgradeBegin::Moved(_)) => {
            worker.metrics.upgrades.one(Upgrade::Refused);
            Ok(Purpose::Close)
        }
        Ok(UpgradeBegin::Unknown) => refuse(Refusal::SessionUnknown),
        Err(_) => Err(Box::new(answer::unavailable())),
    }
}
