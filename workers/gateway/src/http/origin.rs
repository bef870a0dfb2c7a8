//! Which web pages may talk to us: CORS for requests, a check of our own for WebSockets.

use crate::answer::Answer;
use boot::{Http, Origins};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// Adds what a browser has to see; nothing without an Origin or without CORS.
pub(crate) fn cors(http: &Http, request: &HeaderMap, answer: &mut HeaderMap) {
    match &http.origins {
        Origins::SameOrigin => return,
        Origins::Any => {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Origins::Only(list) => {
            answer.append(VARY, HeaderValue::from_static("Origin"));
            let Some(origin) = request.get(ORIGIN) else { return };
            if !is_listed(list, origin) {
                return;
            }
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
    if http.credentials {
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// The answer to a preflight; nothing without CORS.
pub(crate) fn preflight(http: &Http, request: &HeaderMap) -> Option<Answer> {
    if http.origins == Origins::SameOrigin {
        return None;
    }
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE"),
    );
    headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(answer)
}

/// Whether a page of this origin may open a WebSocket: browsers do not apply CORS to it. Clients that send no Origin are no
/// browsers. A page that was served by the host and port that it connects to needs no word in the configuration; `by_tls`
/// if a trusted proxy said that the request came so.
pub(crate) fn may_open_websocket(http: &Http, request: &HeaderMap, by_tls: bool) -> bool {
    let Some(origin) = request.get(ORIGIN) else { return true };
    let is_same = || {
        let host = request.get(HOST).and_then(|host| host.to_str().ok());
        matches!((origin.to_str(), host), (Ok(origin), Some(host)) if boot::origin::is_same(origin, host, by_tls))
    };
    match &http.origins {
        Origins::Any => true,
        Origins::Only(list) => is_listed(list, origin) || is_same(),
        Origins::SameOrigin => is_same(),
    }
}

/// Whether an origin is one of those in the configuration, which stand there in their normal form. Most come in it.
fn is_listed(list: &[String], origin: &HeaderValue) -> bool {
    let holds = |origin: &[u8]| list.iter().any(|allowed| allowed.as_bytes() == origin);
    holds(origin.as_bytes())
        || origin
            .to_str()
            .is_ok_and(|origin| boot::origin::normal(origin).is_some_and(|origin| holds(origin.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn websockets_are_for_known_pages() {
        let http = |origins| Http {
            header_timeout: Default::default(),
            body_timeout: Default::default(),
            keepalive_timeout: Default::default(),
            header_bytes_max: 0,
            compression: false,
            compression_bytes_min: 0,
            origins,
            credentials: false,
            trusted_proxies: Vec::new(),
        };
        let check = |origins, pairs: &[_], expect| {
            assert_eq!(
                may_open_websocket(&http(origins), &headers(pairs), false),
                expect,
                "{pairs:?}"
            );
        };
        check(Origins::SameOrigin, &[(HOST, "a.example")], true);
        check(
            Origins::SameOrigin,
            &[(HOST, "a.example"), (ORIGIN, "https://A.example")],
            true,
        );
        check(
            Origins::SameOrigin,
            &[(HOST, "a.example"), (ORIGIN, "https://b.example")],
            false,
        );
        check(Origins::SameOrigin, &[(HOST, "a.example"), (ORIGIN, "null")], false);
        check(
            Origins::Only(vec!["http://b".into()]),
            &[(HOST, "a"), (ORIGIN, "http://b")],
            true,
        );
        let list = || {
            Origins::Only(
                ["http://b", "capacitor://localhost", "file://"]
                    .map(String::from)
                    .into(),
            )
        };
        for (origin, expect) in [
            ("http://b", true),
            ("HTTP://B:80", true),
            ("https://b", false),
            ("http://b:8000", false),
            ("capacitor://localhost", true),
            ("Capacitor://localhost", true),
            ("tauri://localhost", false),
            ("file://", true),
            ("null", false),
            // Its own host needs no place on the list.
            ("http://a", true),
            ("https://a:443", true),
            ("https://a:8443", false),
        ] {
            check(list(), &[(HOST, "a"), (ORIGIN, origin)], expect);
        }
        check(
            Origins::Only(vec!["null".into()]),
            &[(HOST, "a"), (ORIGIN, "null")],
            true,
        );
        check(Origins::Any, &[(HOST, "a"), (ORIGIN, "http://b")], true);
    }
}
