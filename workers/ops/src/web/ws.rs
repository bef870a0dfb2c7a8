//! A WebSocket, as far as a look at it needs one: short text messages.

use super::{Link, Target};
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use std::io;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Longest message (bytes).
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What became of the wish for a WebSocket.
pub(crate) enum Opened {
    Yes(Box<Socket>),
    /// What was answered instead.
    No(StatusCode),
}

/// An open WebSocket.
pub(crate) struct Socket(WebSocketStream<Link>);

impl Socket {
    /// Asks for a WebSocket.
    pub(crate) async fn open(target: &Target, path: &str) -> io::Result<Opened> {
        let link = target.connect().await?;
        // TLS is below already.
        let url = format!("ws://{}{}{path}", target.authority, target.base);
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
        match client_async_with_config(url, link, Some(config)).await {
            Ok((socket, _)) => Ok(Opened::Yes(Box::new(Self(socket)))),
            Err(Error::Http(answer)) => Ok(Opened::No(answer.status())),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// The next text message. Pings are answered on the way.
    ///
    /// # Errors
    /// When the connection is closed, with the code if one was given.
    pub(crate) async fn next(&mut self) -> io::Result<String> {
        loop {
            let code = match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => frame.map(|frame| u16::from(frame.code).to_string()),
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => None,
            };
            let reason = format!("the connection was closed (code {})", code.as_deref().unwrap_or("none"));
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
    }

    /// Sends a text message.
    pub(crate) async fn say(&mut self, text: &str) -> io::Result<()> {
        self.0.send(Message::text(text)).await.map_err(io::Error::other)
    }
}
