//! The query of an engine request.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Something shorter is no id of a request: the official clients write seven bytes at least.
const REQUEST_ID_BYTES_MIN: usize = 7;

/// The parameters that mean something to us; the first of each name counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) eio: Option<Cow<'a, str>>,
    pub(crate) transport: Option<Cow<'a, str>>,
    pub(crate) sid: Option<Cow<'a, str>>,
    /// Whether events are to carry their offset.
    pub(crate) recovery: Option<Cow<'a, str>>,
    /// Stock clients write something else here in every request, so that no cache answers it.
    pub(crate) timestamp: Option<Cow<'a, str>>,
    /// Binary messages are sent as base64 texts over WebSocket too.
    pub(crate) b64: bool,
    /// The official JavaScript client writes `EIO` first; no other known client does.
    pub(crate) is_official: bool,
}

impl<'a> Query<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut query = Self {
            is_official: text.starts_with("EIO=4&transport="),
            ..Self::default()
        };
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "EIO" => &mut query.eio,
                "transport" => &mut query.transport,
                "sid" => &mut query.sid,
                "recovery" => &mut query.recovery,
                "t" => &mut query.timestamp,
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

    /// What tells this request of its session from all others, if anything does. The official clients take a clock of
    /// milliseconds with random letters, or of microseconds with a point; a mere number may be seconds, and come twice.
    pub(crate) fn request_id(&self) -> Option<&[u8]> {
        let id = self.timestamp.as_deref()?.as_bytes();
        let is_number = id.iter().all(u8::is_ascii_digit);
        (id.len() >= REQUEST_ID_BYTES_MIN && !is_number).then_some(id)
    }
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
        assert_eq!((js.sid.as_deref(), js.is_official), (Some("x-y"), true));
        assert!(!Query::parse("transport=polling&EIO=4&t=1.5").is_official);
        assert_eq!(Query::parse(""), Query::default());
        for (text, id) in [
            ("t=Oq3xK9_", Some("Oq3xK9_")),
            ("t=1795678.123&t=x", Some("1795678.123")),
            ("t=1795678012", None),
            ("t=abc", None),
            ("EIO=4", None),
        ] {
            assert_eq!(Query::parse(text).request_id(), id.map(str::as_bytes), "{text}");
        }
        assert_eq!(Query::parse("sid=&EIO=4").sid, None);
        assert_eq!(Query::parse("EIO=3&EIO=4").eio.as_deref(), Some("3"));
    }
}
