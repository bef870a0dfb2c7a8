//! One request, one answer.

use super::{Link, Target};
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

/// Longest head of an answer, and longest line in it (bytes).
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Longest body (bytes); no answer that is asked for here is longer.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value.as_str()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status, and how the body begins, for messages.
    pub(crate) fn summary(&self) -> String {
        let text = self.text();
        let shown: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
        format!("{} {}", self.status, crate::printer::clean(&shown))
            .trim_end()
            .to_owned()
    }
}

/// Asks on a connection of its own: GET without a body, otherwise POST.
pub(crate) async fn ask(target: &Target, path: &str, body: Option<&str>) -> io::Result<Reply> {
    let mut link = target.connect().await?;
    let (base, authority) = (&target.base, &target.authority);
    let request = match body {
        None => format!("GET {base}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"),
        Some(body) => format!(
            "POST {base}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    link.write_all(request.as_bytes()).await?;
    link.flush().await?;
    let mut reply = head(&mut link).await?;
    reply.body = read_body(&mut link, &reply).await?;
    Ok(reply)
}

/// Status and headers.
pub(super) async fn head(link: &mut Link) -> io::Result<Reply> {
    let mut head = link.take(HEAD_BYTES_MAX);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if head.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed without an answer",
            ));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no answer of HTTP/1.1: {}", crate::printer::clean(&first))))?;
    let header = |line: String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    Ok(Reply {
        status,
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
    })
}

async fn read_body(link: &mut Link, reply: &Reply) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::other(format!("an answer of more than {BODY_BYTES_MAX} bytes"));
    let chunked = reply
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked {
        return chunks(link).await;
    }
    let length = reply.header("content-length").map(str::parse::<usize>);
    match length {
        Some(Ok(length)) if length <= BODY_BYTES_MAX => {
            let mut body = vec![0; length];
            link.read_exact(&mut body).await?;
            Ok(body)
        }
        Some(_) => Err(too_long()),
        None => {
            let mut body = Vec::new();
            link.take(BODY_BYTES_MAX as u64).read_to_end(&mut body).await?;
            Ok(body)
        }
    }
}

async fn chunks(link: &mut Link) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        link.take(HEAD_BYTES_MAX).read_line(&mut line).await?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let from = body.len();
        if size > BODY_BYTES_MAX - from {
            return Err(io::Error::other(format!(
                "an answer of more than {BODY_BYTES_MAX} bytes"
            )));
        }
        if size == 0 {
            return Ok(body);
        }
        body.resize(from + size, 0);
        link.read_exact(body.get_mut(from..).unwrap_or_default()).await?;
        // The end of the line.
        link.read_exact(&mut [0; 2]).await?;
    }
}
