//! Answers of HTTP.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use wire::engine::Refusal;

/// What hyper sends.
pub(crate) type Answer = Response<Full<Bytes>>;

/// `Retry-After` for a client while Redis is away (seconds).
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// An answer with a body of this type.
pub(crate) fn body(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An answer with a line of text.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Answer {
    body(status, "text/plain; charset=UTF-8", text)
}

/// An error of the engine.
pub(crate) fn refused(refusal: Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    body(status, "application/json", refusal.json())
}

/// Redis is away.
pub(crate) fn unavailable() -> Answer {
    try_later(r#"{"code":3,"message":"Service unavailable: the session store cannot be reached"}"#)
}

/// No session begins here any more.
pub(crate) fn stopping() -> Answer {
    try_later(r#"{"code":3,"message":"Service unavailable: the server is stopping"}"#)
}

/// The worker has all that it can bear.
pub(crate) fn busy() -> Answer {
    try_later(r#"{"code":3,"message":"Service unavailable: too much to do for all clients"}"#)
}

fn try_later(json: &'static str) -> Answer {
    let mut answer = body(StatusCode::SERVICE_UNAVAILABLE, "application/json", json);
    answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
    answer
}

/// RFC 9110, 12.5.3, as far as browsers use it: `gzip` listed and not with `q=0`.
pub(crate) fn accepts_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|p| p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
    })
}
