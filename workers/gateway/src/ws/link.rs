//! The TCP connection under a WebSocket, so that another worker can go on with it: it knows what was
//! read and is not a message yet, and can be told to read no more and to keep what is written.

use super::unfinished::Unfinished;
use bytes::{Buf, Bytes};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module.
pub(crate) struct Link {
    tcp: TcpStream,
    unfinished: Unfinished,
    flow: Flow,
    /// What this connection brought along. Rare, hence apart.
    luggage: Option<Box<Luggage>>,
}

/// What lies between a connection and its socket, in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Luggage {
    /// Read before anything from the socket.
    pub(crate) unread: Bytes,
    /// Written before anything else.
    pub(crate) unsent: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Nothing is read.
    Held,
    /// Nothing is read, and what is written is kept.
    Frozen,
}

impl Link {
    pub(crate) fn new(tcp: TcpStream, luggage: Luggage) -> Self {
        Self {
            tcp,
            unfinished: Unfinished::default(),
            flow: Flow::Open,
            luggage: (luggage != Luggage::default()).then(|| Box::new(luggage)),
        }
    }

    /// Reads no more; whoever opens it again has to wake the reader.
    pub(crate) fn hold(&mut self) {
        self.flow = Flow::Held;
    }

    /// Keeps what is written from now on.
    pub(crate) fn freeze(&mut self) {
        self.flow = Flow::Frozen;
    }

    /// Reads and writes again; what was kept goes first.
    pub(crate) fn open(&mut self) {
        self.flow = Flow::Open;
    }

    /// What another one needs to go on from here; nothing if too much of a message is here.
    pub(crate) fn luggage(&self) -> Option<Luggage> {
        let begun = self.unfinished.bytes()?;
        let own = self.luggage.as_deref();
        let unread = own.map_or(&[][..], |luggage| &luggage.unread);
        Some(Luggage {
            unread: [begun, unread].concat().into(),
            unsent: own.map(|luggage| luggage.unsent.clone()).unwrap_or_default(),
        })
    }

    /// Writes what was kept.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(luggage) = &mut self.luggage else {
            return Poll::Ready(Ok(()));
        };
        while !luggage.unsent.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, &luggage.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(luggage.unsent.drain(..count)),
            }
        }
        if luggage.unread.is_empty() {
            self.luggage = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.flow != Flow::Open {
            return Poll::Pending;
        }
        let this = &mut *self;
        let before = buf.filled().len();
        match &mut this.luggage {
            Some(luggage) if !luggage.unread.is_empty() => {
                let count = luggage.unread.len().min(buf.remaining());
                buf.put_slice(luggage.unread.get(..count).unwrap_or_default());
                luggage.unread.advance(count);
            }
            _ => ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?,
        }
        this.unfinished.feed(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.flow == Flow::Frozen {
            let luggage = self.luggage.get_or_insert_default();
            luggage.unsent.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flow == Flow::Frozen {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
