//! The official JavaScript client, told by its handshake from others that speak the same protocol. What each of them sends,
//! and what cannot be told apart: docs/design/client-detection.md.

use super::query::Query;
use http::HeaderMap;
use http::header::{ORIGIN, SEC_WEBSOCKET_EXTENSIONS, USER_AGENT};
use session::Transport;
use std::ops::RangeInclusive;

/// How long the `t` of the official client is: seven characters of a clock in base 64 (up to 4.7; a point and a counter behind
/// them if there are several in a millisecond), or five of a clock in base 36 and one to three random ones (since 4.8).
const TIMESTAMP_BYTES: RangeInclusive<usize> = 6..=10;
/// What clients of other languages call themselves, wherever they say so.
const OTHERS: [&str; 9] = [
    "dart",
    "go-http-client",
    "java/",
    "node-fetch-",
    "php",
    "python",
    "ruby",
    "starscream",
    "websocket++",
];
/// The HTTP library of the Java client, and of React Native on Android, which runs the official one and sends an `Origin`.
const OKHTTP: &str = "okhttp";

/// Whether the handshake is one of the official client. Nothing depends on what the application has in the query.
pub(crate) fn is_client(query: &Query<'_>, headers: &HeaderMap, transport: Transport) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let agent = text(USER_AGENT).unwrap_or_default().to_ascii_lowercase();
    let has_origin = headers.contains_key(ORIGIN);
    let is_other = OTHERS.iter().any(|name| agent.contains(name)) || (agent.contains(OKHTTP) && !has_origin);
    let is_like = match transport {
        Transport::Polling => query.timestamps.last().is_some_and(|text| is_timestamp(text)),
        // Browsers and React Native send an origin; the client's library on Node offers compression by default.
        Transport::Websocket => {
            let deflates = |value: &str| value.contains("permessage-deflate");
            has_origin || text(SEC_WEBSOCKET_EXTENSIONS).is_some_and(deflates)
        }
    };
    query.in_official_order && is_like && !is_other
}

/// Whether the official client may have made this `t`: a mere number is another's.
fn is_timestamp(text: &str) -> bool {
    let (clock, counter) = text.split_once('.').unwrap_or((text, "0"));
    let is_base64 = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_number = clock.bytes().all(|byte| byte.is_ascii_digit());
    TIMESTAMP_BYTES.contains(&text.len()) && !is_number && is_base64(clock) && is_base64(counter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;

    const DEFLATE: (&str, &str) = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    const XHR: (&str, &str) = ("user-agent", "node-XMLHttpRequest");
    const BROWSER: (&str, &str) = (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    );
    const OKHTTP: (&str, &str) = ("user-agent", "okhttp/3.13.1");
    const DART: (&str, &str) = ("user-agent", "Dart/3.5 (dart:io)");
    const HERE: (&str, &str) = ("origin", "http://127.0.0.1:7181");

    fn judge(target: &str, lines: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let transport = if target.contains("transport=websocket") {
            Transport::Websocket
        } else {
            Transport::Polling
        };
        is_client(&Query::parse(target), &headers, transport)
    }

    /// Name, query, headers that count, and whether it is the official client.
    type Handshake = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        bool,
    );

    /// Captured from the clients, or put together by their sources where they cannot be run here.
    const KNOWN: &[Handshake] = &[
        (
            "js 4.8 node polling",
            "EIO=4&transport=polling&t=l87ixmgn",
            &[XHR],
            true,
        ),
        (
            "js 4.6 node polling",
            "EIO=4&transport=polling&t=Q8jgduc&b64=1",
            &[XHR],
            true,
        ),
        // Not told apart from 4.6: `recovery=0`.
        (
            "js 4.4 node polling",
            "EIO=4&transport=polling&t=Q8jgdCy&b64=1",
            &[XHR],
            true,
        ),
        (
            "js 4.8 browser polling",
            "EIO=4&transport=polling&t=l87ixmgn",
            &[BROWSER],
            true,
        ),
        ("js 4.8 node websocket", "EIO=4&transport=websocket", &[DEFLATE], true),
        ("js 4.4 node websocket", "EIO=4&transport=websocket", &[DEFLATE], true),
        (
            "js browser websocket",
            "EIO=4&transport=websocket",
            &[BROWSER, HERE, DEFLATE],
            true,
        ),
        (
            "js base64 websocket",
            "EIO=4&transport=websocket&b64=1",
            &[DEFLATE],
            true,
        ),
        (
            "js with timestamps",
            "EIO=4&transport=websocket&t=l87ixmgn",
            &[DEFLATE],
            true,
        ),
        (
            "react native android",
            "EIO=4&transport=websocket",
            &[("user-agent", "okhttp/4.9.2"), HERE],
            true,
        ),
        ("react native ios", "EIO=4&transport=websocket", &[HERE], true),
        ("java websocket", "EIO=4&transport=websocket", &[OKHTTP], false),
        (
            "java websocket, okhttp 4",
            "EIO=4&transport=websocket",
            &[("user-agent", "okhttp/4.12.0"), DEFLATE],
            false,
        ),
        ("java polling", "EIO=4&transport=polling", &[OKHTTP], false),
        (
            "java polling with timestamps",
            "EIO=4&transport=polling&t=Q8jgdCy",
            &[OKHTTP],
            false,
        ),
        ("rust websocket", "EIO=4&transport=websocket", &[], false),
        (
            "rust polling",
            "EIO=4&transport=polling&t=984223921",
            &[("accept", "*/*")],
            false,
        ),
        ("dart websocket", "EIO=4&transport=websocket", &[DART, DEFLATE], false),
        ("dart polling", "EIO=4&transport=polling&t=mh2k9x0a", &[DART], false),
        ("c# websocket", "EIO=4&transport=websocket", &[], false),
        ("c# polling", "EIO=4&transport=polling&t=1796062490", &[], false),
        (
            "python websocket",
            "transport=websocket&EIO=4&t=1796062493.932489",
            &[HERE],
            false,
        ),
        (
            "python polling",
            "transport=polling&EIO=4&t=1796062490.1213312",
            &[("user-agent", "python-requests/2.34.2")],
            false,
        ),
        (
            "python own query",
            "transport=polling&EIO=4&token=a&t=1796062490.12",
            &[],
            false,
        ),
        ("swift websocket", "transport=websocket&EIO=4", &[HERE, DEFLATE], false),
        (
            "c++ websocket",
            "EIO=4&transport=websocket&t=1796062490",
            &[("user-agent", "WebSocket++/0.8.2")],
            false,
        ),
        ("no client", "", &[], false),
        ("another protocol", "EIO=3&transport=websocket", &[DEFLATE], false),
    ];

    #[test]
    fn handshakes_of_known_clients() {
        for (name, target, lines, expect) in KNOWN {
            assert_eq!(judge(target, lines), *expect, "{name}");
        }
    }

    /// Whatever an application adds, where its client adds it.
    #[test]
    fn an_own_query_changes_nothing() {
        let owns = [
            "token=abc",
            "a=1&b=2",
            "EIOx=4",
            "user=EIO%3D4%26transport%3Dpolling",
            "t2=x",
            "empty=",
            "recovery=",
            "b64x=1",
            "token=a%20b",
            "0=1",
        ];
        for own in owns {
            for (transport, tail, lines) in [("polling", "&t=l87ixmgn", &[XHR][..]), ("websocket", "", &[DEFLATE])] {
                let target = format!("{own}&EIO=4&transport={transport}{tail}");
                assert!(judge(&target, lines), "{target}");
            }
            // Java's and C#'s stand behind, Rust's before; by nothing of it they become the official client.
            for (target, lines) in [
                (format!("EIO=4&transport=websocket&{own}"), &[OKHTTP][..]),
                (format!("{own}&EIO=4&transport=websocket"), &[OKHTTP]),
                (format!("EIO=4&transport=websocket&{own}"), &[]),
                (format!("{own}&EIO=4&transport=websocket"), &[]),
                (format!("{own}&EIO=4&transport=polling&t=984223921"), &[]),
                (format!("{own}&EIO=4&transport=websocket"), &[DART, DEFLATE]),
            ] {
                assert!(!judge(&target, lines), "{target}");
            }
        }
        // Its own `t`, with the client's put into its place.
        assert!(judge("t=l87ixmgn&token=a&EIO=4&transport=polling", &[XHR]));
    }
}
