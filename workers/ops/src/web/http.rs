//! One request, one answer.

use super::Target;
use crate::output::span;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// Longest body (bytes); no answer that is asked for here is longer.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The sid of a handshake that worked.
    pub(crate) fn sid(&self) -> Result<String, String> {
        let text = self.text();
        let open: Option<Value> = text.strip_prefix('0').and_then(|open| serde_json::from_str(open).ok());
        let sid = open.as_ref().and_then(|open| open.get("sid")?.as_str());
        match sid {
            Some(sid) if self.status == StatusCode::OK => Ok(sid.to_owned()),
            _ => Err(format!("the handshake was answered with {}", self.summary())),
        }
    }

    /// Status, and how the body begins, for messages.
    pub(crate) fn summary(&self) -> String {
        let text = self.text();
        let shown: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
        format!("{} {}", self.status.as_u16(), crate::printer::clean(&shown))
            .trim_end()
            .to_owned()
    }
}

/// [`request`], for at most `patience`; else why there is no answer.
pub(crate) async fn ask(target: &Target, path: &str, body: Option<&str>, patience: Duration) -> Result<Reply, String> {
    match timeout(patience, request(target, path, body)).await {
        Ok(reply) => reply.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", span(patience))),
    }
}

/// Asks on a connection of its own: GET without a body, otherwise POST.
async fn request(target: &Target, path: &str, body: Option<&str>) -> io::Result<Reply> {
    let (base, authority) = (&target.base, &target.authority);
    let request = Request::builder()
        .uri(format!("{base}{path}"))
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close");
    let request = match body {
        None => request,
        Some(_) => request
            .method("POST")
            .header(header::CONTENT_TYPE, "text/plain;charset=UTF-8"),
    };
    let body = Full::new(Bytes::from(body.unwrap_or_default().to_owned()));
    let request = request.body(body).map_err(io::Error::other)?;
    let stream = TokioIo::new(target.connect().await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    // It ends with the answer, or when the sender is dropped; what goes wrong with it the request says.
    drop(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    Ok(Reply { status, body })
}
