//! The opening handshake of a WebSocket (RFC 6455, 4.2): what its client asks for, and the two answers.

use super::fields;
use crate::answer::{Answer, body as text};
use bytes::Bytes;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::engine::Refusal;

/// What a client that wants a WebSocket asked for.
pub(super) struct Offer {
    accept: String,
    /// A client that offers subprotocols closes a WebSocket for which none was chosen.
    protocol: Option<HeaderValue>,
}

impl Offer {
    /// Reads it; an error is the answer. Of another version the client is told which one is spoken here (RFC 6455, 4.4:
    /// 426). The reference server answers that with 400, and speaks 8 too.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Box<Answer>> {
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
            return Err(Box::new(other_version()));
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
        let (Some(key), Ok(protocol)) = (key, fields::first_protocol(headers)) else {
            return Err(Box::new(refuse(Refusal::BadRequest)));
        };
        Ok(Self {
            accept: derive_accept_key(key),
            protocol,
        })
    }

    /// The answer that switches.
    pub(super) fn accept(self, mut headers: HeaderMap) -> Answer {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = headers;
        answer
    }
}

/// The answer that does not, as the reference server does it: text, and the connection is closed.
pub(super) fn refuse(refusal: Refusal) -> Answer {
    let mut answer = text(StatusCode::BAD_REQUEST, "text/html", refusal.message());
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn other_version() -> Answer {
    let mut answer = text(StatusCode::UPGRADE_REQUIRED, "text/html", "Upgrade Required");
    let headers = answer.headers_mut();
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    // RFC 9110, 15.5.22 wants it, and 7.8 that `Connection` names it.
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("close, Upgrade"));
    answer
}

/// The value of a field that may be there once.
fn only<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first.as_bytes())
}

/// Whether it is base64 of 16 bytes. The bits behind the last byte may be anything: some clients make the text at random.
fn is_key(key: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==")
        .is_some_and(|key| key.len() == 22 && key.iter().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_sixteen_bytes() {
        for (key, expect) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("+/+/+/+/+/+/+/+/+/+/+/==", true),
            ("", false),
            ("x", false),
            ("dGhlIHNhbXBsZSBub25jZQ=", false),
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25jZWE=", false),
            ("dGhlIHNhbXBsZSBub25jZWFh", false),
            ("dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==", false),
            ("dGhlIHNhbXBsZSBub2-jZQ==", false),
        ] {
            assert_eq!(is_key(key.as_bytes()), expect, "{key}");
        }
    }
}
