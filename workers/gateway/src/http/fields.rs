//! Header fields as RFC 9110 and RFC 9112 have them: lists of tokens, and `Host`.

use crate::answer::{Answer, plain};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};

/// The elements of a list, over all lines of the field (RFC 9110, 5.6.1).
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// Whether a list holds a token, in whatever letters.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// Whether the client wants the connection closed after the answer: `close` counts whatever stands beside it (RFC 9112, 9.3).
pub(super) fn wants_close(headers: &HeaderMap) -> bool {
    lists(headers, &CONNECTION, b"close")
}

/// Whether a request asks for a WebSocket (RFC 6455, 4.2.1). An `Upgrade` that is not for us to heed is ignored, and the
/// request is what it is without (RFC 9110, 7.8): one in HTTP/1.0, where a proxy passes on what its client sent and could not
/// switch, one that `Connection` does not name, and one of another method.
pub(super) fn wants_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    headers.contains_key(UPGRADE)
        && request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && lists(headers, &UPGRADE, b"websocket")
        && lists(headers, &CONNECTION, b"upgrade")
}

/// What a request with a wrong `Host` is answered: there must be one in HTTP/1.1, and no two (RFC 9112, 3.2). Without that,
/// a proxy and we might take it for one to different hosts.
pub(crate) fn host_fault<B>(request: &Request<B>) -> Option<Answer> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let text = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => "no Host\n",
        (Some(_), Some(_)) => "more than one Host\n",
        (Some(host), None) if !is_host(host) => "Host is none\n",
        (None | Some(_), _) => return None,
    };
    let mut answer = plain(StatusCode::BAD_REQUEST, text);
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

/// Whether it can be `host [ ":" port ]` (RFC 3986, 3.2.2); nothing at all is allowed.
fn is_host(value: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    value.as_bytes().iter().all(plain)
}

/// The first subprotocol that a client offers, as `ws` below the reference server chooses; an error if the list is none, or
/// names one twice (RFC 6455, 4.1).
pub(super) fn first_protocol(headers: &HeaderMap) -> Result<Option<HeaderValue>, ()> {
    let mut offered: Vec<&[u8]> = Vec::new();
    for protocol in elements(headers, &http::header::SEC_WEBSOCKET_PROTOCOL) {
        // Its characters are those of a header's name.
        let is_token = HeaderName::from_bytes(protocol).is_ok();
        if !is_token || offered.contains(&protocol) {
            return Err(());
        }
        offered.push(protocol);
    }
    offered
        .first()
        .map(|first| HeaderValue::from_bytes(first).map_err(drop))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};

    fn request(method: &str, version: Version, fields: &[(HeaderName, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).version(version);
        for (name, value) in fields {
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap()
    }

    #[test]
    fn close_counts_wherever_it_stands() {
        for (lines, expect) in [
            (&["close"][..], true),
            (&["Close"], true),
            (&["keep-alive, close"], true),
            (&["close,keep-alive"], true),
            (&["keep-alive", "close"], true),
            (&["close", "keep-alive"], true),
            (&["upgrade ,\tclose "], true),
            (&["keep-alive"], false),
            (&["closed"], false),
            (&["\"close\""], false),
            (&[""], false),
            (&[], false),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| (CONNECTION, *line)).collect();
            let request = request("GET", Version::HTTP_11, &fields);
            assert_eq!(wants_close(request.headers()), expect, "{lines:?}");
        }
    }

    #[test]
    fn an_upgrade_counts_if_all_of_it_is_there() {
        use Version as V;
        for (method, version, upgrade, connection, expect) in [
            ("GET", V::HTTP_11, Some("websocket"), Some("Upgrade"), true),
            ("GET", V::HTTP_11, Some("WebSocket"), Some("upgrade"), true),
            ("GET", V::HTTP_11, Some("websocket"), Some("keep-alive, Upgrade"), true),
            (
                "GET",
                V::HTTP_11,
                Some("h2c, websocket"),
                Some("Upgrade, HTTP2-Settings"),
                true,
            ),
            ("GET", V::HTTP_10, Some("websocket"), Some("Upgrade"), false),
            ("POST", V::HTTP_11, Some("websocket"), Some("Upgrade"), false),
            ("HEAD", V::HTTP_11, Some("websocket"), Some("Upgrade"), false),
            ("GET", V::HTTP_11, Some("websocket"), Some("keep-alive"), false),
            ("GET", V::HTTP_11, Some("websocket"), Some("upgrades"), false),
            ("GET", V::HTTP_11, Some("websocket"), None, false),
            ("GET", V::HTTP_11, Some("h2c"), Some("Upgrade"), false),
            ("GET", V::HTTP_11, Some("websocket/13"), Some("Upgrade"), false),
            ("GET", V::HTTP_11, None, Some("Upgrade"), false),
        ] {
            let fields = upgrade.map(|value| (UPGRADE, value)).into_iter();
            let fields: Vec<_> = fields.chain(connection.map(|value| (CONNECTION, value))).collect();
            let request = request(method, version, &fields);
            assert_eq!(wants_websocket(&request), expect, "{request:?}");
        }
    }

    #[test]
    fn one_host_and_no_more() {
        for (version, hosts, refused) in [
            (Version::HTTP_11, &["a.example"][..], false),
            (Version::HTTP_11, &["A.example:80"], false),
            (Version::HTTP_11, &["[::1]:8000"], false),
            (Version::HTTP_11, &["my_service"], false),
            (Version::HTTP_11, &[""], false),
            (Version::HTTP_10, &[], false),
            (Version::HTTP_10, &["a.example"], false),
            (Version::HTTP_11, &[], true),
            (Version::HTTP_11, &["a.example", "a.example"], true),
            (Version::HTTP_10, &["a.example", "b.example"], true),
            (Version::HTTP_11, &["a.example, b.example"], true),
            (Version::HTTP_11, &["a.example/x"], true),
            (Version::HTTP_11, &["user@a.example"], true),
            (Version::HTTP_11, &["bücher.example"], true),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| (HOST, *host)).collect();
            let answer = host_fault(&request("GET", version, &fields));
            assert_eq!(answer.is_some(), refused, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn the_first_protocol_of_a_list_that_is_one() {
        for (lines, expect) in [
            (&[][..], Ok(None)),
            (&["v1"], Ok(Some("v1"))),
            (&["v2, v1"], Ok(Some("v2"))),
            (&["v2", "v1"], Ok(Some("v2"))),
            (&["Chat.v1"], Ok(Some("Chat.v1"))),
            (&[""], Err(())),
            (&["v1,"], Err(())),
            (&["v1, v1"], Err(())),
            (&["v1 v2"], Err(())),
            (&["a/b"], Err(())),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| (SEC_WEBSOCKET_PROTOCOL, *line)).collect();
            let found = first_protocol(request("GET", Version::HTTP_11, &fields).headers());
            let found = found.map(|found| found.map(|value| value.to_str().unwrap().to_owned()));
            assert_eq!(found, expect.map(|value| value.map(str::to_owned)), "{lines:?}");
        }
    }
}
