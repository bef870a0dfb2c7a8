//! An HTTP/1.1 client that hides nothing: bytes out, status, headers and body in.

use super::{soon, until};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One request; `Host` and `Content-Length` are added where they are missing.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let text = Self::new("POST", target).header("Content-Type", "text/plain;charset=UTF-8");
        Self {
            body: Some(body.into()),
            ..text
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !has("host") {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body
            && !has("content-length")
            && !has("transfer-encoding")
        {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "header {name} twice in {self:?}");
        first
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|fault| panic!("{fault} in {self:?}"))
    }

    /// Status and body at once, for comparisons.
    pub fn pair(&self) -> (u16, &str) {
        (self.status, self.text())
    }

    /// An Engine.IO error in full: status, type and body.
    #[track_caller]
    pub fn assert_error(&self, code: u8, message: &str) {
        let status = if code == 4 { 403 } else { 400 };
        let body = format!("{{\"code\":{code},\"message\":\"{message}\"}}");
        assert_eq!(self.pair(), (status, body.as_str()));
        assert_eq!(self.header("content-type"), Some("application/json"));
    }
}

/// A connection on which requests follow each other.
#[derive(Debug)]
pub struct Link {
    stream: BufReader<TcpStream>,
    addr: SocketAddr,
}

impl Link {
    pub async fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(addr).await?, addr)
    }

    pub fn over(stream: TcpStream, addr: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            addr,
        })
    }

    /// An answer has begun.
    pub async fn begun(&mut self) -> io::Result<()> {
        self.stream.fill_buf().await.map(drop)
    }

    pub async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.send(&request.bytes(self.addr)).await?;
        self.reply(request.method == "HEAD").await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Nothing more is sent; answers are still read.
    pub async fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown().await
    }

    /// The next answer; `bodiless` if it answers a HEAD.
    pub async fn reply(&mut self, bodiless: bool) -> io::Result<Reply> {
        let (status, headers) = self.head().await?;
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        if bodiless || status / 100 == 1 || status == 204 || status == 304 {
            return Ok(reply);
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = self.chunks().await?;
        } else if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().expect("a length")];
            self.stream.read_exact(&mut reply.body).await?;
        } else {
            self.stream.read_to_end(&mut reply.body).await?;
        }
        Ok(reply)
    }

    /// Whether the other side has closed, once it does; bytes that still come are an error.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset closes as well as an orderly end.
        if let Ok(count) = self.stream.read_to_end(&mut rest).await {
            assert_eq!(count, 0, "more came: {:?}", String::from_utf8_lossy(&rest));
        }
    }

    /// Reads until the other side closes, and whatever came.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest).await {
            Ok(_) => rest,
            Err(fault) if fault.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(fault) => panic!("reading: {fault}"),
        }
    }

    async fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let first = self.line().await?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| first.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| io::Error::other(format!("not a header: {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).map_err(io::Error::other)?;
            let from = body.len();
            body.resize(from + size, 0);
            self.stream.read_exact(&mut body[from..]).await?;
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// The answer to a request on a connection of its own.
pub async fn ask(addr: SocketAddr, request: Request) -> io::Result<Reply> {
    let request = request.header("Connection", "close");
    Link::open(addr).await?.ask(&request).await
}

/// Asks, each time anew, until an answer is `good`.
#[track_caller]
pub fn ask_again(addr: SocketAddr, request: Request, good: impl Fn(&Reply) -> bool) -> impl Future<Output = Reply> {
    until("a good answer", async move || {
        let reply = soon("an answer", ask(addr, request.clone())).await;
        reply.ok().filter(|reply| good(reply))
    })
}
