//! The socket under an HTTP connection, so that another worker can go on with it: it brings along
//! what was read elsewhere, and says whether the client has yet to take something.

use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module.
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Read before anything from the socket.
    unread: Bytes,
    stuck: Arc<AtomicBool>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, unread: Bytes) -> Self {
        Self {
            tcp,
            unread,
            stuck: Arc::default(),
        }
    }

    /// Whether the latest write has not gone through; hyper, which owns the socket, does not say. It asks for no more than
    /// `Send` of a connection that may become a WebSocket, hence no `Rc`.
    pub(crate) fn stuck(&self) -> Arc<AtomicBool> {
        self.stuck.clone()
    }

    /// The socket, and what its reader, which had `read` in hand, has not understood.
    pub(crate) fn into_parts(self, read: Bytes) -> (TcpStream, Bytes) {
        let unread = match (read.is_empty(), self.unread.is_empty()) {
            (true, _) => self.unread,
            (_, true) => read,
            _ => [read, self.unread].into_iter().flatten().collect::<BytesMut>().freeze(),
        };
        (self.tcp, unread)
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.stuck.store(written.is_pending(), Relaxed);
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(self.unread.get(..count).unwrap_or_default());
        self.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
