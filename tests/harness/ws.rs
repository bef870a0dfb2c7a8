//! A WebSocket client: frames in, frames out, the refusal where there is one.

use super::wait::PATIENCE;
use super::{Reply, Server, soon, within};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// What a server sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Binary(Vec<u8>),
    /// A close frame, with its code.
    Close(Option<u16>),
    /// The connection ended without a close frame.
    Gone,
    Text(String),
}

/// What the official client offers on Node, by which the server knows that it understands offsets.
const OFFER: (&str, &str) = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");

/// An open WebSocket.
#[derive(Debug)]
pub struct Wire {
    socket: WebSocketStream<TcpStream>,
    /// The answer to the upgrade.
    pub response: Response,
    /// How long a frame may take.
    pub patience: Duration,
}

impl Wire {
    /// A session of the Socket.IO endpoint over WebSocket, up to its open packet.
    pub async fn open(server: &Server) -> Self {
        Self::open_at(server.addr, "/socket.io/?EIO=4&transport=websocket").await
    }

    /// A session of the Engine.IO echo endpoint over WebSocket, up to its open packet.
    pub async fn open_echo(server: &Server) -> Self {
        Self::open_at(server.addr, "/engine.io/?EIO=4&transport=websocket").await
    }

    async fn open_at(addr: SocketAddr, target: &str) -> Self {
        let mut wire = Self::dial(addr, target, &[]).await.expect("a WebSocket");
        let open = wire.text().await;
        assert!(open.starts_with("0{"), "{open}");
        wire
    }

    /// A WebSocket, or the answer that refused it.
    pub async fn dial(addr: SocketAddr, target: &str, headers: &[(&'static str, &str)]) -> Result<Self, Reply> {
        let stream = soon("connect", TcpStream::connect(addr)).await.expect("connect");
        Self::dial_on(stream, addr, target, headers).await
    }

    /// A WebSocket, if a server accepts it.
    pub async fn try_dial(addr: SocketAddr, target: &str) -> Option<Self> {
        let stream = soon("connect", TcpStream::connect(addr)).await.ok()?;
        let request = format!("ws://{addr}{target}").into_client_request().expect("a request");
        let opened = soon("upgrade", tokio_tungstenite::client_async(request, stream)).await;
        let (socket, response) = opened.ok()?;
        Some(Self {
            socket,
            response,
            patience: PATIENCE,
        })
    }

    /// The same over a connection that the caller made.
    pub async fn dial_on(
        stream: TcpStream,
        addr: SocketAddr,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Reply> {
        let mut request = format!("ws://{addr}{target}").into_client_request().expect("a request");
        for (name, value) in [OFFER].iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        match soon("upgrade", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, response)) => Ok(Self {
                socket,
                response,
                patience: PATIENCE,
            }),
            Err(Error::Http(refusal)) => {
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers = refusal.headers().iter();
                Err(Reply {
                    status: refusal.status().as_u16(),
                    headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
                    body: refusal.into_body().unwrap_or_default(),
                })
            }
            Err(fault) => panic!("upgrade: {fault}"),
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.try_send(text).await.expect("send");
    }

    /// For a socket that may be closed already.
    pub async fn try_send(&mut self, text: &str) -> Result<(), Error> {
        soon("send", self.socket.send(Message::text(text))).await
    }

    pub async fn send_binary(&mut self, bytes: &[u8]) {
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        soon("send", self.socket.send(message)).await.expect("send");
    }

    /// One text message, in several frames with a ping between them.
    pub async fn send_pieces(&mut self, first: &str, more: &[&str]) {
        let opcode = |first: bool| OpCode::Data(if first { Data::Text } else { Data::Continue });
        let mut pieces = vec![first];
        pieces.extend(more);
        for (number, piece) in pieces.iter().enumerate() {
            let last = number + 1 == pieces.len();
            let frame = RawFrame::message(piece.as_bytes().to_vec(), opcode(number == 0), last);
            soon("send", self.socket.send(Message::Frame(frame)))
                .await
                .expect("send");
            soon("send", self.socket.send(Message::Ping(Bytes::new())))
                .await
                .expect("send");
        }
    }

    /// Bytes that need not be a frame.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        soon("send", self.socket.get_mut().write_all(bytes))
            .await
            .expect("send");
    }

    /// Nothing more is sent, without a close frame; what comes is still read.
    pub async fn finish_sending(&mut self) {
        soon("shutdown", self.socket.get_mut().shutdown())
            .await
            .expect("shutdown");
    }

    /// The next frame; pings of the WebSocket protocol itself do not count.
    pub async fn next(&mut self) -> Frame {
        loop {
            match within(self.patience, "a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Frame::Text(text.to_string()),
                Some(Ok(Message::Binary(bytes))) => return Frame::Binary(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => return Frame::Close(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => (),
                Some(Err(_)) | None => return Frame::Gone,
            }
        }
    }

    /// The next frame, which is text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Frame::Text(text) => text,
            other @ (Frame::Binary(_) | Frame::Close(_) | Frame::Gone) => panic!("text expected, not {other:?}"),
        }
    }

    /// The next text that is not a heartbeat, which is answered.
    pub async fn data(&mut self) -> String {
        loop {
            let text = self.text().await;
            if text != "2" {
                return text;
            }
            self.send("3").await;
        }
    }

    /// Joins `/` and returns the answer without its `40`.
    pub async fn connect(&mut self) -> serde_json::Value {
        self.send("40").await;
        let answer = self.data().await;
        let body = answer.strip_prefix("40").unwrap_or_else(|| panic!("CONNECT: {answer}"));
        serde_json::from_str(body).expect("an answer to CONNECT")
    }

    /// Emits `42<id>[...]` and returns the arguments of its ack; nothing else may come meanwhile.
    pub async fn call(&mut self, id: u64, event: &serde_json::Value) -> serde_json::Value {
        self.send(&format!("42{id}{event}")).await;
        let ack = self.data().await;
        let body = ack
            .strip_prefix(&format!("43{id}"))
            .unwrap_or_else(|| panic!("ack {id}: {ack}"));
        serde_json::from_str(body).expect("an ack")
    }

    /// Everything that still comes, up to the end.
    pub async fn drain(&mut self) -> Frame {
        loop {
            match self.next().await {
                Frame::Text(_) | Frame::Binary(_) => (),
                end @ (Frame::Close(_) | Frame::Gone) => return end,
            }
        }
    }

    /// Sends nothing more, for ever; receiving goes on.
    pub async fn shut(&mut self) {
        // It may be closed already.
        drop(soon("shutdown", self.socket.get_mut().shutdown()).await);
    }

    /// Answers the next heartbeat; false at the end.
    pub async fn next_is_alive(&mut self) -> bool {
        match self.next().await {
            Frame::Text(text) if text == "2" => self.try_send("3").await.is_ok(),
            Frame::Close(_) | Frame::Gone => false,
            other @ (Frame::Text(_) | Frame::Binary(_)) => panic!("nothing expected, not {other:?}"),
        }
    }

    /// The end of the connection, after whatever heartbeats are still under way: the close code,
    /// if there was a close frame with one. Data is an error.
    pub async fn end(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Frame::Close(code) => return code,
                Frame::Gone => return None,
                Frame::Text(text) if text == "2" => (),
                other @ (Frame::Text(_) | Frame::Binary(_)) => panic!("the end expected, not {other:?}"),
            }
        }
    }
}

/// The head of a masked text frame (RFC 6455, 5.2) with a payload of `length` bytes, and as much of it as there is. The mask is zero.
pub fn text_frame(length: usize, payload: &str) -> Vec<u8> {
    let head = [0x81, 0x80 | 127].into_iter();
    let mask = [0; 4];
    head.chain((length as u64).to_be_bytes())
        .chain(mask)
        .chain(payload.bytes())
        .collect()
}
