//! Which web pages may talk to us: CORS for requests, a check of our own for WebSockets.

use super::answer::Answer;
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
            if !list.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
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

/// Whether a page of this origin may open a WebSocket: browsers do not apply CORS to it. Clients
/// that send no Origin are no browsers.
pub(crate) fn may_open_websocket(http: &Http, request: &HeaderMap) -> bool {
    let Some(origin) = request.get(ORIGIN) else { return true };
    match &http.origins {
        Origins::Any => true,
        Origins::Only(list) => list.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
        Origins::SameOrigin => {
            let host = request.get(HOST).and_then(|host| host.to_str().ok());
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
        }
    }
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
            assert_eq!(may_open_websocket(&http(origins), &headers(pairs)), expect, "{pairs:?}");
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
        check(
            Origins::Only(vec!["http://b".into()]),
            &[(HOST, "a"), (ORIGIN, "http://a")],
            false,
        );
        check(Origins::Any, &[(HOST, "a"), (ORIGIN, "http://b")], true);
    }
}
