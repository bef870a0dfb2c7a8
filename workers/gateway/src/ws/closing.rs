//! The closing handshake of a WebSocket (RFC 6455, 5.5.1 and 7.1): each side sends one close frame, then the server
//! closes the TCP connection.

use super::{Connection, Link, over};
use crate::sockets::{Buffers, Socket as _};
use futures_util::Sink as _;
use rustix::net::Shutdown;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tracing::debug;

/// The whole handshake takes no longer; then the connection is cut. Enough for what is unsent and for a round trip
/// around the world, and short against the time that a drain has for all of them.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Closes a WebSocket: answers the client's close frame, or sends `frame` and waits for the client's, then ends the
/// stream. What the client sends meanwhile is read and forgotten: unread bytes would turn the end of the connection into
/// a reset, which can destroy the close frame on its way.
pub(crate) async fn close(ws: &RefCell<WebSocketStream<Link>>, frame: Option<CloseFrame>) {
    // One that was asked to move reads nothing.
    ws.borrow_mut().get_mut().open();
    ws.borrow_mut().get_mut().discard();
    let closing = async {
        // What the library has to say comes first: pongs, or its answer to the client's close frame. That one carries the
        // client's code, or 1002 if the code is not to be sent.
        flush(ws).await;
        let queued = Pin::new(&mut *ws.borrow_mut()).start_send(Message::Close(frame));
        match queued {
            Ok(()) => flush(ws).await,
            Err(error) => debug!(%error, "close frame not sent"),
        }
        poll_fn(|cx| poll_discard(&mut ws.borrow_mut(), cx)).await;
        poll_fn(|cx| Pin::new(ws.borrow_mut().get_mut()).poll_shutdown(cx))
            .await
            .ok();
    };
    if timeout(CLOSE_MAX, closing).await.is_err() {
        debug!("client did not answer the close");
    }
}

impl Connection {
    /// Frees what was read, what was gathered of a packet, and what is unsent: the connection gets a new WebSocket over the same socket, only to be closed.
    /// After a part of a frame no close frame can follow.
    pub(super) async fn free_buffers(&self) {
        self.record.borrow_mut().partial = None;
        let can_say_why = self.ws.borrow().get_ref().unsent() == 0;
        match self.descriptor().and_then(|fd| TcpStream::from_std(fd.into())) {
            Ok(tcp) => {
                let fresh = over(tcp, Buffers::default(), &self.worker).await;
                drop(self.ws.replace(fresh));
            }
            // It is freed with the connection.
            Err(error) => debug!(%error, "kernel buffers not freed at once"),
        }
        if !can_say_why {
            // An error means that it is closed already.
            rustix::net::shutdown(self.ws.borrow().get_ref(), Shutdown::Both).ok();
        }
    }
}

/// Writes all that the library and the link keep. The library stops short of the link once both sides have closed.
async fn flush(ws: &RefCell<WebSocketStream<Link>>) {
    // A connection that takes nothing any more ends all the same.
    poll_fn(|cx| Pin::new(&mut *ws.borrow_mut()).poll_flush(cx)).await.ok();
    poll_fn(|cx| ws.borrow_mut().get_mut().poll_send(cx)).await.ok();
}

/// Reads and forgets until the client has closed.
fn poll_discard(ws: &mut WebSocketStream<Link>, cx: &mut Context<'_>) -> Poll<()> {
    let mut bytes = [0; 4096];
    let link = ws.get_mut();
    while !link.is_closed_by_peer() {
        let mut buf = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *link).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(())
}
