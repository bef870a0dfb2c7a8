//! Requests to the door of the handshake, one by one: method, target, version, fields. The statuses are those of the
//! reference server (Node 20, socket.io 4.8) and of `ws` below it, unless a comment says otherwise.

use crate::harness::{Frame, Link, Plan, Reply, Server, Wire, soon};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

const OPEN: &str = "0{";
const TRANSPORT: &str = r#"{"code":0"#;
const SID: &str = r#"{"code":1"#;
const METHOD: &str = r#"{"code":2"#;
const BAD: &str = r#"{"code":3"#;
const EIO: &str = r#"{"code":5"#;

/// What becomes of the connection: stays with a promise, says that it closes and does, or nothing is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stays,
    Closes,
    Unsaid,
}
use Then::{Closes, Stays, Unsaid};

/// The answer to a head, whose lines are given without their ends.
async fn answer(server: &Server, lines: &[&str], body: &str) -> (Reply, Then) {
    let mut link = Link::open(server.addr).await.expect("connect");
    let bytes = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
    link.send(bytes.as_bytes()).await.expect("send");
    let reply = soon("an answer", link.reply(lines[0].starts_with("HEAD"))).await;
    let reply = reply.unwrap_or_else(|fault| panic!("{fault}: {lines:?}"));
    let connection = reply.header("connection").unwrap_or_default().to_ascii_lowercase();
    let promised = reply.header("keep-alive").is_some();
    let then = match connection.as_str() {
        "close" | "close, upgrade" => {
            soon("the end", link.closed()).await;
            Closes
        }
        "keep-alive" if promised => Stays,
        _ => Unsaid,
    };
    assert_eq!(promised, then == Stays, "promised and not kept: {reply:?}");
    (reply, then)
}

/// Targets and methods of a handshake that polls; the connection stays in all cases.
async fn check_targets(cases: &[(&str, &str, u16, &str)]) {
    let server = Plan::new().start().await;
    for (method, target, status, body) in cases {
        let (reply, then) = answer(&server, &[&format!("{method} {target} HTTP/1.1"), "Host: x"], "").await;
        assert_eq!((reply.status, then), (*status, Stays), "{method} {target}: {reply:?}");
        assert!(reply.text().starts_with(body), "{method} {target}: {reply:?}");
    }
}

#[tokio::test]
async fn targets_and_methods() {
    let huge = format!("{POLLING}&sid={}", "a".repeat(4000));
    check_targets(&[
        ("GET", POLLING, 200, OPEN),
        ("GET", "/socket.io//?EIO=4&transport=polling", 200, OPEN),
        ("GET", "/socket.io/x?EIO=4&transport=polling", 200, OPEN),
        ("GET", "/socket%2Eio/?EIO=4&transport=polling", 404, ""),
        ("GET", "/Socket.IO/?EIO=4&transport=polling", 404, ""),
        // The reference server wants the slash, and does not take the form that RFC 9112, 3.2.2 has it accept.
        ("GET", "/socket.io?EIO=4&transport=polling", 200, OPEN),
        ("GET", "http://x/socket.io/?EIO=4&transport=polling", 200, OPEN),
        ("GET", "/socket.io/", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=flashsocket", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=webtransport", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=POLLING", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport[]=polling", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=constructor", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=poll+ing", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4;transport=polling", 400, TRANSPORT),
        ("GET", "/socket.io/?EIO=4&transport=%70olling", 200, OPEN),
        ("GET", "/socket.io/?&&EIO=4&&transport=polling&", 200, OPEN),
        ("GET", "/socket.io/?EIO=4&transport=polling&x=%zz", 200, OPEN),
        ("GET", "/socket.io/?transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=&transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=3&transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=5&transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=04&transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=4+&transport=polling", 400, EIO),
        ("GET", "/socket.io/?eio=4&transport=polling", 400, EIO),
        ("GET", "/socket.io/??EIO=4&transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=%34&transport=polling", 200, OPEN),
        ("GET", "/socket.io/?EIO=4&EIO=4&transport=polling", 200, OPEN),
        // Of a name that comes twice the first value counts; with the reference server it is the last.
        ("GET", "/socket.io/?EIO=3&EIO=4&transport=polling", 400, EIO),
        ("GET", "/socket.io/?EIO=4&EIO=3&transport=polling", 200, OPEN),
        (
            "GET",
            "/socket.io/?EIO=4&transport=polling&transport=websocket",
            200,
            OPEN,
        ),
        // An empty sid is none.
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=", 200, OPEN),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid", 200, OPEN),
        ("POST", "/socket.io/?EIO=4&transport=polling&sid=", 400, METHOD),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=%00%ff", 400, SID),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=%20", 400, SID),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=__proto__", 400, SID),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=a&sid=b", 400, SID),
        ("GET", &huge, 400, SID),
        ("GET", "/socket.io/?EIO=4&transport=polling&b64=1", 200, OPEN),
        // No JSONP: the reference server wraps the answer into a call.
        ("GET", "/socket.io/?EIO=4&transport=polling&j=0", 200, OPEN),
        ("POST", POLLING, 400, METHOD),
        ("PUT", POLLING, 400, METHOD),
        ("PATCH", POLLING, 400, METHOD),
        ("DELETE", POLLING, 400, METHOD),
        ("HEAD", POLLING, 400, ""),
        ("OPTIONS", POLLING, 400, METHOD),
        ("FOO", POLLING, 400, METHOD),
        ("GET", WEBSOCKET, 400, BAD),
        ("GET", "/socket.io/?EIO=4&transport=websocket&sid=abc", 400, SID),
    ])
    .await;
}

#[tokio::test]
async fn hosts_and_versions() {
    let server = Plan::new().start().await;
    let get = format!("GET {POLLING} HTTP/1.1");
    let old = format!("GET {POLLING} HTTP/1.0");
    let cases: &[(&[&str], u16, Then)] = &[
        (&[&get, "Host: x"], 200, Stays),
        (&[&get, "host:   X:80  "], 200, Stays),
        (&[&get, "Host: [::1]:8000"], 200, Stays),
        (&[&get, "Host:"], 200, Stays),
        (&[&get], 400, Closes),
        // RFC 9112, 3.2: 400. Node takes the first, or anything.
        (&[&get, "Host: x", "Host: x"], 400, Closes),
        (&[&get, "Host: x", "Host: y"], 400, Closes),
        (&[&get, "Host: x, y"], 400, Closes),
        (&[&get, "Host: x/y"], 400, Closes),
        (&[&get, "Host: u@x"], 400, Closes),
        (&["GET /api/live HTTP/1.1"], 400, Closes),
        (&["GET /elsewhere HTTP/1.1"], 400, Closes),
        (&[&old], 200, Unsaid),
        (&[&old, "Host: x"], 200, Unsaid),
        (&[&old, "Host: x", "Host: y"], 400, Closes),
    ];
    for (lines, status, then) in cases {
        let (reply, came) = answer(&server, lines, "").await;
        assert_eq!((reply.status, came), (*status, *then), "{lines:?}: {reply:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_promises_nothing() {
    let server = Plan::new().start().await;
    let get = format!("GET {POLLING} HTTP/1.1");
    let wrong = format!("POST {POLLING} HTTP/1.1");
    let cases: &[(&[&str], &str, u16, Then)] = &[
        (&[&get, "Connection: keep-alive"], "", 200, Stays),
        (&[&get, "Connection: close"], "", 200, Closes),
        (&[&get, "Connection: Close"], "", 200, Closes),
        (&[&get, "Connection: keep-alive, close"], "", 200, Closes),
        (&[&get, "Connection: close", "Connection: keep-alive"], "", 200, Closes),
        (&[&get, "Connection: keep-alive", "Connection: close"], "", 200, Closes),
        (
            &["GET /elsewhere HTTP/1.1", "Connection: keep-alive, close"],
            "",
            404,
            Closes,
        ),
        // A body that was not wanted is read, if it comes: then the connection can stay.
        (&[&get, "Content-Length: 3"], "abc", 200, Stays),
        (&["POST /elsewhere HTTP/1.1", "Content-Length: 3"], "abc", 404, Stays),
        (&["POST /api/emit HTTP/1.1", "Content-Length: 3"], "abc", 404, Stays),
        (&["POST /api/live HTTP/1.1", "Content-Length: 3"], "abc", 405, Stays),
        (&[&wrong, "Content-Length: 3"], "abc", 400, Stays),
        (
            &[&wrong, "Transfer-Encoding: chunked"],
            "3\r\nabc\r\n0\r\n\r\n",
            400,
            Stays,
        ),
        // One that waits to be asked for is not.
        (
            &["POST /elsewhere HTTP/1.1", "Content-Length: 3", "Expect: 100-continue"],
            "",
            404,
            Closes,
        ),
        (&[&wrong, "Content-Length: 3", "Expect: 100-continue"], "", 400, Closes),
    ];
    for (lines, body, status, then) in cases {
        let lines = [&lines[..1], &["Host: x"], &lines[1..]].concat();
        let (reply, came) = answer(&server, &lines, body).await;
        assert_eq!((reply.status, came), (*status, *then), "{lines:?}: {reply:?}");
    }
}

/// A request for a WebSocket with these lines behind its first and `Host`, without those of the usual ones that begin
/// like one of them.
async fn switch(server: &Server, first: &str, lines: &[&str]) -> (Reply, Then) {
    let name = |line: &str| line.split(':').next().expect("a name").to_ascii_lowercase();
    let given: Vec<String> = lines.iter().map(|line| name(line)).collect();
    let mut all = vec![first, "Host: x"];
    all.extend(
        [UPGRADE, CONNECTION, VERSION, KEY]
            .iter()
            .filter(|line| !given.contains(&name(line))),
    );
    // A name without a colon only takes the usual line away.
    all.extend(lines.iter().filter(|line| line.contains(':')));
    answer(server, &all, "").await
}

#[tokio::test]
async fn what_asks_for_a_websocket() {
    let server = Plan::new().start().await;
    let get = format!("GET {WEBSOCKET} HTTP/1.1");
    let cases: &[(&[&str], u16, Then)] = &[
        (&[], 101, Unsaid),
        (&["Upgrade: WebSocket"], 101, Unsaid),
        (&["Connection: upgrade"], 101, Unsaid),
        (&["Connection: keep-alive, Upgrade"], 101, Unsaid),
        (&["Connection: keep-alive", CONNECTION], 101, Unsaid),
        (&["Sec-WebSocket-Version:   13  "], 101, Unsaid),
        // RFC 9110, 7.8: a list. `ws` wants the one.
        (&["Upgrade: h2c, websocket"], 101, Unsaid),
        // An upgrade that is none is ignored.
        (&["Upgrade"], 400, Stays),
        (&["Upgrade: h2c"], 400, Stays),
        (&["Upgrade: websocket/13"], 400, Stays),
        (&["Connection"], 400, Stays),
        (&["Connection: keep-alive"], 400, Stays),
        (&["Connection: upgrades"], 400, Stays),
        // RFC 6455, 4.4: 426 with the version; `ws` answers 400, and speaks 8 too.
        (&["Sec-WebSocket-Version"], 426, Closes),
        (&["Sec-WebSocket-Version: 12"], 426, Closes),
        (&["Sec-WebSocket-Version: 8"], 426, Closes),
        (&["Sec-WebSocket-Version: 13, 8"], 426, Closes),
        (&[VERSION, VERSION], 426, Closes),
        (&["Sec-WebSocket-Key"], 400, Closes),
        (&["Sec-WebSocket-Key:"], 400, Closes),
        (&["Sec-WebSocket-Key: abc"], 400, Closes),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFh"], 400, Closes),
        (&[KEY, KEY], 400, Closes),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZZ=="], 101, Unsaid),
        (&["Sec-WebSocket-Extensions: permessage-deflate"], 101, Unsaid),
        (&["Sec-WebSocket-Extensions: ;;"], 101, Unsaid),
        (&["Sec-WebSocket-Protocol:"], 400, Closes),
        (&["Sec-WebSocket-Protocol: v1,"], 400, Closes),
        (&["Sec-WebSocket-Protocol: v1, v1"], 400, Closes),
        (&["Sec-WebSocket-Protocol: v1 v2"], 400, Closes),
    ];
    for (lines, status, then) in cases {
        let (reply, came) = switch(&server, &get, lines).await;
        assert_eq!((reply.status, came), (*status, *then), "{lines:?}: {reply:?}");
        let version = (*status == 426).then_some("13");
        assert_eq!(reply.header("sec-websocket-version"), version, "{lines:?}");
    }
}

#[tokio::test]
async fn websockets_that_are_refused_or_not_asked_for() {
    let server = Plan::new().start().await;
    let get = format!("GET {WEBSOCKET} HTTP/1.1");
    for (first, status, then) in [
        // A proxy that speaks HTTP/1.0 passes no 101 on: its client is to stay with polling. The reference server
        // switches, and the client waits.
        (format!("GET {WEBSOCKET} HTTP/1.0"), 400, Unsaid),
        (format!("GET {POLLING} HTTP/1.0"), 200, Unsaid),
        (format!("POST {WEBSOCKET} HTTP/1.1"), 400, Stays),
        (format!("PUT {WEBSOCKET} HTTP/1.1"), 400, Stays),
        (format!("HEAD {WEBSOCKET} HTTP/1.1"), 400, Stays),
        // The reference server opens it and closes it again.
        (
            "GET /socket.io/?EIO=3&transport=websocket HTTP/1.1".to_owned(),
            400,
            Closes,
        ),
        ("GET /socket.io/?transport=websocket HTTP/1.1".to_owned(), 400, Closes),
        // It opens this one, and begins a session that it cannot serve.
        (format!("GET {POLLING} HTTP/1.1"), 400, Closes),
        (format!("GET {WEBSOCKET}x HTTP/1.1"), 400, Closes),
        (format!("GET {WEBSOCKET}&sid=unknown HTTP/1.1"), 400, Closes),
        (format!("GET {WEBSOCKET}&sid= HTTP/1.1"), 101, Unsaid),
        // It never answers this one.
        (
            "GET /elsewhere?EIO=4&transport=websocket HTTP/1.1".to_owned(),
            404,
            Stays,
        ),
    ] {
        let (reply, came) = switch(&server, &first, &[]).await;
        assert_eq!((reply.status, came), (status, then), "{first}: {reply:?}");
    }
    // A body would stand before the frames.
    let (reply, came) = answer(
        &server,
        &[&get, "Host: x", UPGRADE, CONNECTION, VERSION, KEY, "Content-Length: 2"],
        "40",
    )
    .await;
    assert_eq!((reply.status, came), (400, Stays), "{reply:?}");
}

#[tokio::test]
async fn the_first_subprotocol_is_chosen() {
    let server = Plan::new().start().await;
    for (offered, chosen) in [("v1", "v1"), ("v2, v1", "v2"), ("Chat.v1,v2", "Chat.v1")] {
        // This client closes if nothing was chosen, as browsers do.
        let mut wire = Wire::dial(server.addr, WEBSOCKET, &[("sec-websocket-protocol", offered)])
            .await
            .expect("a WebSocket");
        assert_eq!(wire.response.headers()["sec-websocket-protocol"], chosen);
        assert!(matches!(wire.next().await, Frame::Text(open) if open.starts_with(OPEN)));
    }
    let wire = Wire::open(&server).await;
    assert_eq!(wire.response.headers().get("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn pages_of_the_own_host_need_no_place_on_the_list() {
    let server = Plan::new()
        .with(
            "http = { origins = ['https://a.example:443', 'capacitor://localhost', 'chrome-extension://abc', 'file://', 'null'], \
             trusted_proxies = ['127.0.0.1'] }",
        )
        .start()
        .await;
    let own = server.url();
    let cases: &[(&[(&'static str, &str)], bool)] = &[
        (&[("origin", &own)], true),
        (&[("origin", "https://a.example")], true),
        (&[("origin", "HTTPS://A.example:443")], true),
        (&[("origin", "capacitor://localhost")], true),
        (&[("origin", "chrome-extension://abc")], true),
        (&[("origin", "file://")], true),
        (&[("origin", "null")], true),
        (&[("origin", "http://a.example")], false),
        (&[("origin", "tauri://localhost")], false),
        (&[("origin", "chrome-extension://def")], false),
        (&[("origin", "http://127.0.0.1")], false),
        (&[("host", "b.example"), ("origin", "http://b.example:80")], true),
        (&[("host", "b.example"), ("origin", "https://b.example:443")], true),
        (&[("host", "b.example:443"), ("origin", "https://b.example")], true),
        (&[("host", "b.example"), ("origin", "http://c.example")], false),
        // A proxy that ended TLS: a page that came without is another origin.
        (
            &[
                ("host", "b.example"),
                ("origin", "https://b.example"),
                ("x-forwarded-proto", "https"),
            ],
            true,
        ),
        (
            &[
                ("host", "b.example"),
                ("origin", "http://b.example"),
                ("x-forwarded-proto", "https"),
            ],
            false,
        ),
        (
            &[
                ("host", "b.example"),
                ("origin", "http://b.example"),
                ("x-forwarded-proto", "http"),
            ],
            true,
        ),
    ];
    for (headers, opens) in cases {
        let opened = Wire::dial(server.addr, WEBSOCKET, headers).await;
        assert_eq!(opened.is_ok(), *opens, "{headers:?}: {opened:?}");
    }
}
