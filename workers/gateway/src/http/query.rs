//! The query of an engine request.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The parameters that mean something to us; the first of each name counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) eio: Option<Cow<'a, str>>,
    pub(crate) transport: Option<Cow<'a, str>>,
    pub(crate) sid: Option<Cow<'a, str>>,
    /// Whether events are to carry their offset.
    pub(crate) recovery: Option<Cow<'a, str>>,
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
        query
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
        assert_eq!(Query::parse("EIO=3&EIO=4").eio.as_deref(), Some("3"));
    }
}
