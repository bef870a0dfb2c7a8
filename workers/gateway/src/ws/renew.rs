//! The WebSocket library keeps the buffer of the largest message for as long as its client is connected: 500 clients that
//! have sent 900 KB each would cost 450 MB. After a large message the connection gets a new WebSocket over the same link.

use super::{Connection, Link, Stage, over};
use crate::sockets::Buffers;
use futures_util::{FutureExt as _, Sink as _};
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tracing::debug;

impl Connection {
    /// Frees the library's buffer, if it is large and nothing is in it: every message that has come was taken, and all that
    /// the library has to write is in the link. True if it did: the library has to be polled again.
    pub(super) fn free_read_buffer(&self, cx: &mut Context<'_>) -> bool {
        let mut ws = self.ws.borrow_mut();
        if !ws.get_ref().has_large_buffer() || self.stage.get() != Stage::Here {
            return false;
        }
        // Twice, as in `Connection::freeze`.
        let is_flushed = (0..2).all(|_| matches!(Pin::new(&mut *ws).poll_flush(cx), Poll::Ready(Ok(()))));
        if !is_flushed {
            return false;
        }
        match self.over_same_socket(ws.get_ref()) {
            Ok(Some(mut fresh)) => {
                // The link itself moves; the second descriptor of its socket goes with the former WebSocket.
                mem::swap(fresh.get_mut(), ws.get_mut());
                mem::swap(&mut fresh, &mut *ws);
                ws.get_mut().buffer_is_new();
                true
            }
            Ok(None) => false,
            Err(error) => {
                // It counts against the budget.
                debug!(%error, "a large buffer is not freed");
                false
            }
        }
    }

    fn over_same_socket(&self, link: &Link) -> io::Result<Option<WebSocketStream<Link>>> {
        let tcp = TcpStream::from_std(link.descriptor()?.into())?;
        Ok(over(tcp, Buffers::default(), &self.worker).now_or_never())
    }
}
