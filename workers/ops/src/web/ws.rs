//! A WebSocket, as far as a look at it needs one: short text messages.

use super::http::{Reply, head};
use super::{Link, Target};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest message (bytes).
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;

/// What became of the wish for a WebSocket.
pub(crate) enum Opened {
    Yes(Socket),
    /// What was answered instead.
    No(Reply),
}

/// An open WebSocket.
pub(crate) struct Socket(Link);

/// What comes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Other,
}

impl Socket {
    /// Asks for a WebSocket.
    pub(crate) async fn open(target: &Target, path: &str) -> io::Result<Opened> {
        let mut link = target.connect().await?;
        let (base, authority) = (&target.base, &target.authority);
        // The key is there to keep caches out; any one will do.
        let request = format!(
            "GET {base}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YW55d29ya2VyIGRvY3Rvcg==\r\n\r\n"
        );
        link.write_all(request.as_bytes()).await?;
        link.flush().await?;
        let reply = head(&mut link).await?;
        Ok(if reply.status == 101 {
            Opened::Yes(Self(link))
        } else {
            Opened::No(reply)
        })
    }

    /// The next text message.
    ///
    /// # Errors
    /// When the connection is closed, with the code if one was given.
    pub(crate) async fn next(&mut self) -> io::Result<String> {
        loop {
            match self.frame().await? {
                Frame::Text(text) => return Ok(text),
                Frame::Ping(payload) => self.send(0xA, &payload).await?,
                Frame::Other => {}
            }
        }
    }

    /// Sends a text message of at most 125 bytes.
    pub(crate) async fn say(&mut self, text: &str) -> io::Result<()> {
        self.send(0x1, text.as_bytes()).await
    }

    async fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).await?;
        let [first, second] = head;
        let length = match second & 0x7f {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            short => u64::from(short),
        };
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("a message that is too long"));
        }
        let mut payload = Vec::new();
        (&mut self.0).take(length).read_to_end(&mut payload).await?;
        match first & 0x0f {
            0x1 => Ok(Frame::Text(String::from_utf8_lossy(&payload).into_owned())),
            0x8 => {
                let code = match payload.as_slice() {
                    [high, low, ..] => u16::from_be_bytes([*high, *low]).to_string(),
                    _ => "none".to_owned(),
                };
                let reason = format!("the connection was closed (code {code})");
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason))
            }
            0x9 => Ok(Frame::Ping(payload)),
            _ => Ok(Frame::Other),
        }
    }

    /// A frame with a mask of zeros, which changes nothing.
    async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let length = u8::try_from(payload.len())
            .ok()
            .filter(|length| *length < 126)
            .ok_or_else(|| io::Error::other("a message that is too long"))?;
        let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }
}
