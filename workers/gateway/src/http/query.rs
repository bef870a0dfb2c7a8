//! The query of an engine request.

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// How long a `t` of stock clients is: seven characters of a clock in base 64 (socket.io-client up to 4.7, Java), eight in
/// base 36, some of them random (from 4.8 on), or the seconds with up to seven decimals (python-engineio). What is longer
/// is a token.
const REQUEST_ID_BYTES: RangeInclusive<usize> = 7..=20;

/// The parameters that mean something to us; the first of each name counts, but each `t`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) eio: Option<Cow<'a, str>>,
    pub(crate) transport: Option<Cow<'a, str>>,
    pub(crate) sid: Option<Cow<'a, str>>,
    /// Whether events are to carry their offset.
    pub(crate) recovery: Option<Cow<'a, str>>,
    /// Each `t`: stock clients write something else here in every request, so that no cache answers it. It stands behind
    /// what the application adds to the query, which may have a `t` of its own; python-engineio adds none to a POST.
    pub(crate) timestamps: SmallVec<[Cow<'a, str>; 1]>,
    /// Binary messages are sent as base64 texts over WebSocket too.
    pub(crate) b64: bool,
    /// See [`is_in_official_order`].
    pub(crate) in_official_order: bool,
}

impl<'a> Query<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut query = Self {
            in_official_order: is_in_official_order(text),
            ..Self::default()
        };
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "EIO" => &mut query.eio,
                "transport" => &mut query.transport,
                "sid" => &mut query.sid,
                "recovery" => &mut query.recovery,
                "t" => {
                    query.timestamps.push(percent_decode_str(value).decode_utf8_lossy());
                    continue;
                }
                "b64" => {
                    query.b64 = !value.is_empty() && value != "0";
                    continue;
                }
                _ => continue,
            };
            if slot.is_none() {
                *slot = Some(percent_decode_str(value).decode_utf8_lossy());
            }
        }
        // As none: the reference server takes it for a handshake.
        query.sid.take_if(|sid| sid.is_empty());
        query
    }

    /// What may tell this request of its session from all others: the last `t`, if it looks as if a stock client made it.
    /// Whether it differs from request to request, the store sees (`telling` in `lease.lua`).
    pub(crate) fn request_id(&self) -> Option<&[u8]> {
        self.timestamps.last().and_then(|id| as_request_id(id))
    }

    /// What a handshake has of that kind, wherever it stands: a later request with the same has it from the application.
    pub(crate) fn constants(&self) -> impl Iterator<Item = &[u8]> {
        self.timestamps.iter().filter_map(|id| as_request_id(id))
    }
}

/// A `t` that may be a stock client's. A mere number may be seconds, and come twice.
fn as_request_id(timestamp: &str) -> Option<&[u8]> {
    let id = timestamp.as_bytes();
    let is_clock = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_number = id.iter().all(u8::is_ascii_digit);
    (REQUEST_ID_BYTES.contains(&id.len()) && id.iter().all(is_clock) && !is_number).then_some(id)
}

/// Whether a handshake's query is put together as the official JavaScript client does it (`createTransport` and `uri` of
/// engine.io-client): what the application adds, then `EIO` and `transport`, then `t` and `b64`, of which each stands
/// earlier if the application has a key of that name.
fn is_in_official_order(text: &str) -> bool {
    let mut rest = text;
    for last in ["b64=1", "t="] {
        if let Some((before, pair)) = rest.rsplit_once('&')
            && pair.starts_with(last)
        {
            rest = before;
        }
    }
    let mut pairs = rest.rsplit('&');
    pairs.next().is_some_and(|pair| pair.starts_with("transport=")) && pairs.next() == Some("EIO=4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_known_clients() {
        let js = Query::parse("EIO=4&transport=polling&t=abc&sid=x%2Dy");
        assert_eq!(
            (js.eio.as_deref(), js.transport.as_deref()),
            (Some("4"), Some("polling"))
        );
        assert_eq!(js.sid.as_deref(), Some("x-y"));
        assert_eq!(Query::parse(""), Query::default());
        for (text, id) in [
            ("t=Oq3xK9_", Some("Oq3xK9_")),
            ("t=abcdefgh&transport=polling&EIO=4&t=1795678.123", Some("1795678.123")),
            ("t=1795678.123&t=x", None),
            ("t=P9s-_k2.0", Some("P9s-_k2.0")),
            ("t=h0mk2x9a", Some("h0mk2x9a")),
            ("t=eyJhbGciOiJIUzI1NiJ9.e30", None),
            ("t=abc%20defgh", None),
            ("t=", None),
            ("t=1795678012", None),
            ("t=abc", None),
            ("EIO=4", None),
        ] {
            assert_eq!(Query::parse(text).request_id(), id.map(str::as_bytes), "{text}");
        }
        let python = Query::parse("t=abcdefgh&transport=polling&EIO=4&t=1795678.123&t=x");
        assert!(python.constants().eq([b"abcdefgh".as_slice(), b"1795678.123"]));
        assert_eq!(Query::parse("sid=&EIO=4").sid, None);
        assert_eq!(Query::parse("EIO=3&EIO=4").eio.as_deref(), Some("3"));
    }
}
