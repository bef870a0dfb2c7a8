//! The server under test: where it is, TCP connections to it, and HTTP requests that each use a fresh one.

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// An error is a text that names its kind: that is what gets counted.
pub(crate) type Outcome<T> = Result<T, String>;

/// The last source address is 127.0.0.250 (how many).
const SOURCES_MAX: u32 = 250;
/// Of a body that is no JSON, in the name of an error (characters).
const BODY_SHOWN: usize = 60;

pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) path: String,
    pub(crate) timeout: Duration,
    sources: u32,
    next_source: Cell<u32>,
}

impl Target {
    pub(crate) fn parse(url: &str, path: &str, sources: u32, timeout_s: f64) -> Outcome<Self> {
        let (scheme, rest) = url.split_once("://").ok_or("url: no scheme")?;
        if !matches!(scheme, "http" | "ws") {
            return Err(format!("url: scheme {scheme} is not supported"));
        }
        let host = rest.split('/').next().unwrap_or_default();
        let mut found = host.to_socket_addrs().map_err(|error| format!("url: {error}"))?;
        let addr = found.next().ok_or("url: no address")?;
        if !addr.ip().is_loopback() {
            return Err(format!("url: {} is not a loopback address", addr.ip()));
        }
        Ok(Self {
            addr,
            path: path.to_owned(),
            timeout: Duration::from_secs_f64(timeout_s),
            sources: sources.clamp(1, SOURCES_MAX),
            next_source: Cell::new(0),
        })
    }

    /// A TCP connection from the next source address 127.0.0.x, so that ports do not run short.
    pub(crate) async fn tcp(&self) -> Outcome<TcpStream> {
        let socket = if self.addr.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.map_err(|error| io_kind("socket", &error))?;
        if self.sources > 1 && self.addr.is_ipv4() {
            let number = self.next_source.get();
            self.next_source.set(number.wrapping_add(1));
            // The kernel chooses the port when the destination is known. Without it ports run short sooner.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).ok();
            let source = Ipv4Addr::new(127, 0, 0, 1 + (number % self.sources) as u8);
            socket
                .bind(SocketAddr::new(IpAddr::V4(source), 0))
                .map_err(|error| io_kind("bind", &error))?;
        }
        let stream = timeout(self.timeout, socket.connect(self.addr))
            .await
            .map_err(|_| "connect: timeout".to_owned())?
            .map_err(|error| io_kind("connect", &error))?;
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    /// One HTTP request on a TCP connection of its own; the body of a 200 answer, else an error.
    pub(crate) async fn http(&self, sid: Option<&str>, post: Option<&str>) -> Outcome<String> {
        timeout(self.timeout, self.request(sid, post))
            .await
            .map_err(|_| "http: timeout".to_owned())?
    }

    async fn request(&self, sid: Option<&str>, post: Option<&str>) -> Outcome<String> {
        let mut stream = self.tcp().await?;
        let request = self.head(sid, post.map(str::len)) + post.unwrap_or_default();
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(|error| io_kind("http write", &error))?;
        let mut received = Vec::with_capacity(1024);
        loop {
            if let Some((status, body)) = complete(&received, false) {
                return judge(status, body);
            }
            let count = stream
                .read_buf(&mut received)
                .await
                .map_err(|error| io_kind("http read", &error))?;
            if count == 0 {
                let (status, body) = complete(&received, true).ok_or("http: closed without an answer")?;
                return judge(status, body);
            }
        }
    }

    /// The order of the query and its `t` are those of the official client: servers tell clients apart by them.
    fn head(&self, sid: Option<&str>, body_bytes: Option<usize>) -> String {
        let method = if body_bytes.is_some() { "POST" } else { "GET" };
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let mut head = format!(
            "{method} {}?EIO=4&transport=polling{sid}&t={} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.path,
            cache_buster(),
            self.addr
        );
        if let Some(bytes) = body_bytes {
            head += &format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {bytes}\r\n");
        }
        head + "\r\n"
    }
}

/// Eight characters of base 36, as `randomString` of engine.io-client 6.6 makes them.
fn cache_buster() -> String {
    let digit = || char::from_digit(fastrand::u32(0..36), 36).unwrap_or('0');
    std::iter::repeat_with(digit).take(8).collect()
}

fn judge(status: u16, body: String) -> Outcome<String> {
    if status == 200 {
        return Ok(body);
    }
    let message = match serde_json::from_str::<Value>(&body) {
        Ok(Value::String(text)) => Some(text),
        Ok(value) => value.get("message").and_then(Value::as_str).map(str::to_owned),
        Err(_) => None,
    };
    let message = message.unwrap_or_else(|| body.chars().take(BODY_SHOWN).collect());
    // Some servers put the session id into the message, which would make every error a kind of its own.
    if message.to_lowercase().contains("invalid session") {
        return Err(format!("http {status}: Invalid session"));
    }
    Err(format!("http {status}: {message}"))
}

/// Status and body once the answer is whole: by Content-Length, by its chunks, or by the end of the stream.
fn complete(received: &[u8], at_end: bool) -> Option<(u16, String)> {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = received.split_at(end);
    let body = body.get(4..)?;
    let headers = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let status = headers.get(9..12)?.parse().ok()?;
    let header = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(length) = header("content-length:").and_then(|value| value.parse::<usize>().ok()) {
        return body.get(..length).map(|whole| (status, text(whole)));
    }
    if header("transfer-encoding:").is_some_and(|value| value.contains("chunked")) {
        return unchunked(body).map(|whole| (status, text(&whole)));
    }
    at_end.then(|| (status, text(body)))
}

/// RFC 9112, section 7.1; nothing until the last chunk is there.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..end)?).ok()?.split(';').next()?;
        let length = usize::from_str_radix(size.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 4 + length..)?;
    }
}

/// The kind of an error of the operating system, and the stage in which it came.
pub(crate) fn io_kind(stage: &str, error: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    let names = [
        (Kind::ConnectionRefused, "refused"),
        (Kind::ConnectionReset, "reset"),
        (Kind::BrokenPipe, "broken pipe"),
        (Kind::UnexpectedEof, "unexpected eof"),
        (Kind::AddrNotAvailable, "no local port"),
        (Kind::AddrInUse, "no local port"),
    ];
    let known = names.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or_else(
        || format!("{stage}: {:?}", error.kind()),
        |(_, name)| format!("{stage}: {name}"),
    )
}
