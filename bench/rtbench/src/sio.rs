//! A minimal Socket.IO v5 client over WebSocket.
//!
//! Its handshake is that of the official client in a browser. Servers send offsets for connection state recovery to
//! clients that know them, and some (anyworker: docs/design/client-detection.md) tell that by the handshake: the order
//! of the query and an `Origin`. It offers no permessage-deflate, because it cannot inflate.

use crate::target::{Outcome, Target, io_kind};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::http::{HeaderValue, header::ORIGIN};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Of a packet or an error, in the name of an error (characters).
const SHOWN: usize = 60;
/// How long a server may take to answer a close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Of the buffer for reading (bytes): a run holds thousands of connections.
const READ_BUFFER: usize = 8192;

async fn websocket(target: &Target, query: &str) -> Outcome<Socket> {
    let tcp = target.tcp().await?;
    let url = format!("ws://{}{}?EIO=4&transport=websocket{query}", target.addr, target.path);
    let mut request = url.into_client_request().map_err(|error| kind("request", error))?;
    let origin = HeaderValue::from_str(&format!("http://{}", target.addr)).map_err(|error| error.to_string())?;
    request.headers_mut().insert(ORIGIN, origin);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0);
    let (stream, _) = timeout(target.timeout, client_async_with_config(request, tcp, Some(config)))
        .await
        .map_err(|_| "handshake: timeout".to_owned())?
        .map_err(|error| kind("handshake", error))?;
    Ok(Socket {
        stream,
        is_dirty: false,
        early: VecDeque::new(),
    })
}

/// Opens a WebSocket session and connects namespace `/`.
pub(crate) async fn connect(target: &Target, auth: Option<&Value>) -> Outcome<Connection> {
    let mut socket = websocket(target, "").await?;
    let (sid, pid) = timeout(target.timeout, socket.join_namespace(auth))
        .await
        .map_err(|_| "CONNECT: timeout".to_owned())??;
    Ok(Connection { socket, sid, pid })
}

/// The upgrade of a polling session over a fresh connection, up to the answered probe.
pub(crate) async fn probe(target: &Target, sid: &str) -> Outcome<Socket> {
    let mut socket = websocket(target, &format!("&sid={sid}")).await?;
    socket.send("2probe".to_owned()).await?;
    let answer = timeout(target.timeout, socket.receive())
        .await
        .map_err(|_| "probe: timeout".to_owned())??;
    if answer.as_str() != "3probe" {
        return Err(format!("probe: unexpected '{}'", beginning(&answer)));
    }
    Ok(socket)
}

/// A session that is connected to namespace `/`.
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) sid: String,
    /// The recovery id, if the server gave one.
    pub(crate) pid: Option<String>,
}

impl Connection {
    /// Emits an event and waits for its ack. Whatever else arrives meanwhile is dropped.
    pub(crate) async fn call(&mut self, target: &Target, event: &str, arguments: &str) -> Outcome<()> {
        self.socket.send(format!("420[\"{event}\",{arguments}]")).await?;
        timeout(target.timeout, self.socket.ack(0))
            .await
            .map_err(|_| format!("{event}: ack timeout"))?
    }
}

/// A WebSocket that speaks Engine.IO packets and answers heartbeats.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Something was fed and not flushed.
    is_dirty: bool,
    /// Events that came before the CONNECT answer. The official server sends there what a recovered session missed,
    /// and the official client keeps it.
    early: VecDeque<Utf8Bytes>,
}

impl Socket {
    async fn join_namespace(&mut self, auth: Option<&Value>) -> Outcome<(String, Option<String>)> {
        let open = self.receive().await?;
        if !open.starts_with("0{") {
            return Err(format!("handshake: unexpected packet '{}'", beginning(&open)));
        }
        let auth = auth.map(Value::to_string).unwrap_or_default();
        self.send(format!("40{auth}")).await?;
        let mut early = VecDeque::new();
        loop {
            let text = self.receive().await?;
            if let Some(body) = text.strip_prefix("40") {
                self.early = early;
                let answer: Value = serde_json::from_str(body).unwrap_or_default();
                let field = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
                return Ok((field("sid").unwrap_or_default(), field("pid")));
            }
            if text.starts_with("44") {
                return Err(format!("connect_error: {}", beginning(&text)));
            }
            early.push_back(text);
        }
    }

    pub(crate) async fn send(&mut self, packet: String) -> Outcome<()> {
        let sent = self.stream.send(Message::text(packet)).await;
        sent.map_err(|error| kind("send", error))
    }

    /// Gives a packet to the socket without waiting. What did not fit leaves with the next flush: `receive` flushes
    /// before it waits. Each packet is a write of its own, as those of a client are.
    pub(crate) async fn feed(&mut self, packet: String) -> Outcome<()> {
        self.is_dirty = true;
        let fed = self.stream.feed(Message::text(packet)).await;
        fed.map_err(|error| kind("send", error))
    }

    /// The next packet; heartbeats are answered. Safe to cancel.
    pub(crate) async fn receive(&mut self) -> Outcome<Utf8Bytes> {
        if let Some(text) = self.early.pop_front() {
            return Ok(text);
        }
        loop {
            let message = if self.is_dirty {
                // Take what has arrived before flushing.
                let Some(arrived) = self.stream.next().now_or_never() else {
                    self.stream.flush().await.map_err(|error| kind("send", error))?;
                    self.is_dirty = false;
                    continue;
                };
                arrived
            } else {
                self.stream.next().await
            };
            if let Some(text) = self.handle(message).await? {
                return Ok(text);
            }
        }
    }

    /// Waits for the ack with this id.
    pub(crate) async fn ack(&mut self, id: u64) -> Outcome<()> {
        while !matches!(parse(&self.receive().await?), Packet::Ack(got, _) if got == id) {}
        Ok(())
    }

    async fn handle(&mut self, message: Option<Result<Message, Error>>) -> Outcome<Option<Utf8Bytes>> {
        let text = match message {
            None => return Err("closed".to_owned()),
            Some(Err(error)) => return Err(kind("recv", error)),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or("no code".to_owned(), |frame| u16::from(frame.code).to_string());
                return Err(format!("closed by server ({code})"));
            }
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => return Ok(None),
        };
        match text.as_str() {
            "2" => self.send("3".to_owned()).await.map(|()| None),
            "1" => Err("closed by server (engine close)".to_owned()),
            packet if packet.starts_with("41") => Err("closed by server (disconnect packet)".to_owned()),
            _ => Ok(Some(text)),
        }
    }

    pub(crate) async fn close(mut self) {
        self.stream.send(Message::text("41")).await.ok();
        timeout(CLOSE_PATIENCE, async {
            self.stream.close(None).await.ok();
            while let Some(Ok(_)) = self.stream.next().await {}
        })
        .await
        .ok();
    }
}

pub(crate) enum Packet<'a> {
    /// The JSON array of an event.
    Event(&'a str),
    /// The id of an ack and the JSON array of its arguments.
    Ack(u64, &'a str),
    Other,
}

pub(crate) fn parse(text: &str) -> Packet<'_> {
    let split = |prefix: &str| {
        let rest = text.strip_prefix(prefix)?;
        rest.split_at_checked(rest.find('[')?)
    };
    if let Some((_, array)) = split("42") {
        return Packet::Event(array);
    }
    match split("43") {
        Some((id, array)) => id.parse().map_or(Packet::Other, |id| Packet::Ack(id, array)),
        None => Packet::Other,
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn kind(stage: &str, error: Error) -> String {
    match &error {
        Error::Io(error) => return io_kind(stage, error),
        Error::ConnectionClosed | Error::AlreadyClosed => return "closed".to_owned(),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return format!("{stage}: reset without close"),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => return format!("{stage}: closed during handshake"),
        Error::Http(response) => return format!("{stage}: http {}", response.status().as_u16()),
        Error::Protocol(_)
        | Error::Tls(_)
        | Error::Capacity(_)
        | Error::WriteBufferFull(_)
        | Error::Utf8(_)
        | Error::AttackAttempt
        | Error::Url(_)
        | Error::HttpFormat(_) => {}
    }
    format!("{stage}: {}", beginning(&error.to_string()))
}
