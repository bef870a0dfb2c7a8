//! An application in processes of its own: what clients do is put into its inbox; what it does comes through the log.
//! docs/design/application-link.md.

use crate::ending::Ending;
use http::{HeaderMap, Uri};
use serde_json::json;
use session::{Answer, Event, Joined, Record, Sid, Transport};
use std::time::Duration;
use store::{Applications, LinkTerms, Put, StoreError, Unit};
use tokio::time::{Instant, sleep};
use tracing::debug;

/// Shortest time between two looks at a socket.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(1);
/// How long a client waits while its partition is full; then its connection ends (1013, or 503 for a POST).
const FULL_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts meanwhile.
const FULL_RETRY: Duration = Duration::from_millis(50);
/// Ack ids that processes give: 20 bits for the process, 32 for its counter.
const PROCESS_BITS: u32 = 32;
const ANSWER_ID_END: u128 = 1 << 52;
/// Cookies, tokens and the like, as they are stored: more of a request's head is left out (bytes).
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// The way to the application.
pub(crate) struct External {
    pub(crate) link: Applications,
    pub(crate) terms: LinkTerms,
    /// When a socket is looked after again.
    pub(crate) look_again: Duration,
    /// `socket.connect_timeout_ms`.
    connect_timeout: Duration,
}

/// Why something did not reach the inbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undelivered {
    /// Too much waits for the application already.
    #[error("the inbox of the application is full")]
    Full,
    /// Redis did not store it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl External {
    /// `None` without a Redis, which the configuration does not allow.
    pub(crate) fn new(link: Option<Applications>, liveness: Duration, connect_timeout: Duration) -> Option<Self> {
        Some(Self {
            link: link?,
            terms: LinkTerms::default(),
            look_again: liveness.max(LOOK_AGAIN_MIN),
            connect_timeout,
        })
    }

    fn partition(&self, sid: &Sid) -> u32 {
        self.terms.partition(sid)
    }

    /// A session begins: its application is told of the handshake when it asks for a namespace.
    pub(crate) async fn hello(&self, record: &Record, uri: &Uri, headers: &HeaderMap) -> Result<(), StoreError> {
        let keep = self.connect_timeout + self.look_again * 2;
        let unit = Unit::hello(&record.sid, environ(record, uri, headers), keep);
        self.link.put(vec![unit]).await.map(drop)
    }

    /// A client asks for a namespace.
    pub(crate) fn connect(&self, record: &Record, nsp: &str, joined: &Joined, auth: Option<String>) -> Unit {
        let environ = bare_environ(record);
        let ids = (&joined.sid, joined.pid.as_ref());
        let looks = (&record.sid, self.look_again);
        Unit::connect(self.partition(&joined.sid), ids, nsp, environ, auth, looks)
    }

    /// A client sent an event.
    pub(crate) fn event(&self, joined: &Joined, event: &Event<'_>) -> Unit {
        let args = event.args.whole().to_owned();
        let partition = self.partition(&joined.sid);
        Unit::event(
            partition,
            &joined.sid,
            event.nsp,
            event.ack,
            args,
            event.attachments.clone(),
        )
    }

    /// A client acks what a process emitted; `None` if no process has given such an id.
    pub(crate) fn answer(joined: &Joined, answer: Answer<'_>) -> Option<Unit> {
        let process = (answer.id < ANSWER_ID_END).then(|| u32::try_from(answer.id >> PROCESS_BITS).ok())??;
        let args = answer.args.to_owned();
        Some(Unit::answer(process, &joined.sid, answer.id, args, answer.attachments))
    }

    /// Stores what a client did, in order; waits while the inbox is full.
    pub(crate) async fn deliver(&self, mut units: Vec<Unit>) -> Result<(), Undelivered> {
        let deadline = Instant::now() + FULL_PATIENCE;
        while !units.is_empty() {
            let said = self.link.put(units.clone()).await?;
            let mut refused = said.iter().map(|put| *put == Put::Full);
            units.retain(|_| refused.next().unwrap_or_default());
            if units.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(Undelivered::Full);
            }
            sleep(FULL_RETRY).await;
        }
        Ok(())
    }

    /// A session has ended; if it is kept, its client may come back to some of its sockets.
    pub(crate) async fn ended(&self, record: &Record, kept: bool, ending: &Ending) {
        if !matches!(ending, Ending::TakenOver) {
            self.leave(gone(record, kept), reason(ending)).await;
        }
    }

    /// Memberships are over, all for the same reason. If it cannot be stored, it is found out later, by looking after them.
    pub(crate) async fn leave(&self, sids: Vec<Sid>, reason: &'static str) {
        let units: Vec<Unit> = sids.iter().map(|sid| Unit::leave(sid, reason)).collect();
        if !units.is_empty()
            && let Err(error) = self.link.put(units).await
        {
            debug!(%error, "leave of a client not stored for the application");
        }
    }
}

/// What is told of a request: JSON. The sid of the session is a secret, and
/// is left out of the query.
fn environ(record: &Record, uri: &Uri, headers: &HeaderMap) -> String {
    let mut bytes = 0;
    let headers: Vec<[String; 2]> = headers
        .iter()
        .map(|(name, value)| [name.as_str().to_owned(), latin1(value.as_bytes())])
        .take_while(|[name, value]| {
            bytes += name.len() + value.len();
            bytes <= HEADERS_BYTES_MAX
        })
        .collect();
    let query = uri.query().unwrap_or_default();
    let shown: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("sid=")).collect();
    let text = json!({
        "path": uri.path(),
        "query": shown.join("&"),
        "headers": headers,
        "client": [record.address, 0],
        "transport": word(record.transport),
    });
    text.to_string()
}

/// As WSGI and ASGI have bytes of headers.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Polling => "polling",
        Transport::Websocket => "websocket",
    }
}

/// What is known without the request.
fn bare_environ(record: &Record) -> String {
    json!({ "client": [record.address, 0], "transport": word(record.transport) }).to_string()
}

/// The reason of a client that leaves a namespace.
pub(crate) const LEFT: &str = "client disconnect";

/// Sockets of a session that has ended. If it can be resumed, those that have a recovery id may come back.
fn gone(record: &Record, kept: bool) -> Vec<Sid> {
    let memberships = record.namespaces.values();
    let over = memberships.filter(|joined| !kept || joined.pid.is_none() || joined.pending);
    over.map(|joined| joined.sid.clone()).collect()
}

/// The reason of a disconnect in python-socketio's words.
fn reason(ending: &Ending) -> &'static str {
    match ending {
        Ending::ClientLeft => LEFT,
        Ending::Dismissed | Ending::Kicked => "server disconnect",
        Ending::PingTimeout => "ping timeout",
        Ending::TransportError(_) => "transport error",
        Ending::BadFrame(..)
        | Ending::ConnectTimeout
        | Ending::Drain
        | Ending::EngineProtocol(_)
        | Ending::LogLost
        | Ending::Moved
        | Ending::OverBudget
        | Ending::Overlap
        | Ending::PayloadTooLarge
        | Ending::Protocol(_)
        | Ending::SlowClient
        | Ending::StoreUnavailable
        | Ending::TakenOver
        | Ending::TransportClosed => "transport close",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_one_that_python_socketio_knows() {
        for (ending, expect) in [
            (Ending::ClientLeft, "client disconnect"),
            (Ending::Kicked, "server disconnect"),
            (Ending::PingTimeout, "ping timeout"),
            (Ending::TransportClosed, "transport close"),
            (Ending::Drain, "transport close"),
        ] {
            assert_eq!(reason(&ending), expect, "{ending}");
        }
    }

    #[test]
    fn a_request_is_told_without_the_sid_and_with_so_many_headers() {
        let (sid, worker) = (Sid::from_random([1; 15]), "w".to_owned());
        let record = Record::new(sid, Transport::Polling, worker, "::1".to_owned(), 1);
        let uri = "/socket.io/?EIO=4&sid=secret&token=a%20b".parse().expect("a URI");
        let mut headers = HeaderMap::new();
        headers.append("cookie", "who=me".parse().expect("a value"));
        headers.append("x-large", "x".repeat(HEADERS_BYTES_MAX).parse().expect("a value"));
        let told: serde_json::Value = serde_json::from_str(&environ(&record, &uri, &headers)).expect("JSON");
        let expect = json!({
            "path": "/socket.io/", "query": "EIO=4&token=a%20b", "headers": [["cookie", "who=me"]],
            "client": ["::1", 0], "transport": "polling",
        });
        assert_eq!(told, expect);
    }
}
