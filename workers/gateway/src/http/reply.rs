//! How polling requests are answered.

use crate::answer::{Answer, body, busy, refused, unavailable};
use crate::metrics::Limit;
use crate::poll::Reply;
use crate::worker::Worker;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, StatusCode};
use std::io::Write;

/// The answer to a polling request.
pub(crate) fn reply(worker: &Worker, gzip: bool, reply: Reply) -> Answer {
    match reply {
        Reply::Broken => body(StatusCode::BAD_REQUEST, "text/plain; charset=UTF-8", ""),
        Reply::Busy => busy(),
        Reply::Packets(payload) => packets(worker, gzip, payload),
        Reply::Refused(refusal) => refused(refusal),
        Reply::Taken => body(StatusCode::OK, "text/html", "ok"),
        Reply::TooLarge => {
            worker.metrics.limits.one(Limit::Payload);
            body(StatusCode::PAYLOAD_TOO_LARGE, "text/plain; charset=UTF-8", "")
        }
        Reply::TooSlow => body(StatusCode::REQUEST_TIMEOUT, "text/plain; charset=UTF-8", ""),
        Reply::Unavailable => unavailable(),
    }
}

/// The packets of a poll, compressed if they are large and the client wants it.
pub(crate) fn packets(worker: &Worker, gzip: bool, payload: String) -> Answer {
    let http = &worker.settings.http;
    const KIND: &str = "text/plain; charset=UTF-8";
    if !http.compression || payload.len() < http.compression_bytes_min || !gzip {
        return body(StatusCode::OK, KIND, payload);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(payload.len() / 2), Compression::fast());
    let zipped = encoder.write_all(payload.as_bytes()).and_then(|()| encoder.finish());
    // Writing into memory does not fail; if it did, the client could do without.
    let Ok(zipped) = zipped else {
        return body(StatusCode::OK, KIND, payload);
    };
    let mut answer = body(StatusCode::OK, KIND, zipped);
    answer
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
        .headers_mut()
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    answer
}
