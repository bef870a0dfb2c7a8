//! The TCP connection under a WebSocket. Frames for the client are put here, and leave in as few writes as they fit in.
//! So that another worker can go on with it, it knows what was read and is not a message yet, and can be told to read no
//! more and to keep what is written.

use super::unfinished::Unfinished;
use crate::budget::{Share, Standing};
use crate::sockets::Buffers;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// While this much is unsent (bytes), what the library writes by itself has to wait: a client that sends pings and reads no
/// pong.
const REPLIES_BYTES_MAX: usize = 32 * 1024;
/// A buffer that grew beyond this is given back when all of it is sent (bytes).
const KEPT_BYTES: usize = 8 * 1024;

/// See the module.
pub(crate) struct Link {
    tcp: TcpStream,
    unfinished: Unfinished,
    flow: Flow,
    /// Put here and not written yet.
    unsent: BytesMut,
    /// What was read before this connection came here. Rare, hence apart.
    unread: Option<Box<Bytes>>,
    /// See [`Link::end_waits`].
    end_waits: bool,
    /// Attachments that wait for the rest of their packet (bytes).
    gathered: usize,
    /// Longest message that is read (bytes).
    allowed: usize,
    /// What it has of the worker's budget.
    share: Share,
}

/// Why nothing more is read from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The worker's budget is used up (`limits.buffers_bytes_max`), and this connection was chosen to give back its part.
    #[error("too much is buffered")]
    OverBudget,
    /// The message is longer than allowed before the first namespace is joined (`socket.connect_bytes_max`).
    #[error("message too large")]
    TooLarge,
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
    /// A link whose client has not joined a namespace, with messages of at most `allowed` bytes.
    pub(crate) fn new(tcp: TcpStream, Buffers { unread, unsent }: Buffers, share: Share, allowed: usize) -> Self {
        let link = Self {
            tcp,
            unfinished: Unfinished::default(),
            flow: Flow::Open,
            unsent: unsent.as_slice().into(),
            unread: (!unread.is_empty()).then(|| Box::new(unread)),
            end_waits: false,
            gathered: 0,
            allowed,
            share,
        };
        link.count();
        link
    }

    /// Its client has joined a namespace: the WebSocket's own limits are enough.
    pub(super) fn settle(&mut self) {
        self.allowed = usize::MAX;
        self.share.stand(Standing::Settled);
    }

    /// Notes how much of a packet waits for its attachments (bytes).
    pub(super) fn gathered(&mut self, bytes: usize) {
        if self.gathered != bytes {
            self.gathered = bytes;
            self.count();
        }
    }

    /// Ready if the worker needs back what this connection holds.
    pub(super) fn poll_evicted(&self, cx: &Context<'_>) -> Poll<()> {
        self.share.watch(cx)
    }

    /// Whether the library keeps the buffer of a large message, and nothing is in it.
    pub(super) fn has_large_buffer(&self) -> bool {
        self.unfinished.has_large_buffer()
    }

    /// The library begins with a small buffer again.
    pub(super) fn buffer_is_new(&mut self) {
        self.unfinished.buffer_is_new();
        self.count();
    }

    /// Its socket once more.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Keeps nothing of what is still read.
    pub(super) fn discard(&mut self) {
        self.unfinished.discard();
        self.count();
    }

    /// Tells the budget what is in memory here.
    fn count(&self) {
        let unread = self.unread.as_ref().map_or(0, |unread| unread.len());
        let held = self.unfinished.held() + self.unsent.len() + self.gathered + unread;
        self.share.set(held);
    }

    /// Reads no more; code that opens it again has to wake the reader.
    pub(crate) fn hold(&mut self) {
        self.flow = Flow::Held;
    }

    /// Whether the end of what the client sends is kept back for now, since answers to what it has sent are still to come:
    /// it may have closed that direction only. Nothing wakes the reader for it: the caller reads again when
    /// they have come.
    pub(super) fn end_waits(&mut self, waits: bool) {
        self.end_waits = waits;
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
    pub(crate) fn buffers(&self) -> Option<Buffers> {
        let begun = self.unfinished.bytes()?;
        let unread = self.unread.as_deref().map_or(&[][..], |unread| unread);
        Some(Buffers {
            unread: [begun, unread].concat().into(),
            unsent: self.unsent.to_vec(),
        })
    }

    /// Whether a whole close frame has come: nothing follows it.
    pub(super) const fn is_closed_by_peer(&self) -> bool {
        self.unfinished.is_closed()
    }

    /// Bytes that are not written yet.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Puts a message behind what is unsent, as one frame (RFC 6455, 5.2); false if that would come to more than `max` bytes.
    pub(super) fn put(&mut self, kind: Data, payload: &[u8], max: usize) -> bool {
        let header = FrameHeader {
            opcode: OpCode::Data(kind),
            ..FrameHeader::default()
        };
        let length = payload.len() as u64;
        let bytes = header.len(length) + payload.len();
        if self.unsent.len() + bytes > max {
            return false;
        }
        self.unsent.reserve(bytes);
        // There is room.
        header.format(length, &mut (&mut self.unsent).writer()).ok();
        self.unsent.extend_from_slice(payload);
        self.count();
        true
    }

    /// Writes what the socket takes at once; whether that was all. If not, the task has to [`Self::poll_send`].
    pub(super) fn try_send(&mut self) -> io::Result<bool> {
        while self.is_due() {
            match self.tcp.try_write(&self.unsent) {
                Ok(count) => self.sent(count)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes all.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_due() {
            let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent))?;
            self.sent(count)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is something to write now.
    fn is_due(&self) -> bool {
        !self.unsent.is_empty() && self.flow != Flow::Frozen
    }

    fn sent(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        if count < self.unsent.len() {
            self.unsent.advance(count);
        } else if self.unsent.capacity() > KEPT_BYTES {
            self.unsent = BytesMut::new();
        } else {
            self.unsent.clear();
        }
        self.count();
        Ok(())
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
        if this.share.watch(cx).is_ready() {
            return Poll::Ready(Err(io::Error::other(Refused::OverBudget)));
        }
        if this.unfinished.expected() > this.allowed {
            return Poll::Ready(Err(io::Error::other(Refused::TooLarge)));
        }
        let before = buf.filled().len();
        match &mut this.unread {
            Some(unread) => {
                let count = unread.len().min(buf.remaining());
                buf.put_slice(&unread.split_to(count));
                if unread.is_empty() {
                    this.unread = None;
                }
            }
            None => {
                ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
                if this.end_waits && buf.filled().len() == before && buf.remaining() > 0 {
                    return Poll::Pending;
                }
            }
        }
        this.unfinished.feed(buf.filled().get(before..).unwrap_or_default());
        this.count();
        Poll::Ready(Ok(()))
    }
}

/// For what the library writes by itself: answers to pings, and closing.
impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= REPLIES_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        self.unsent.extend_from_slice(bytes);
        self.count();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use futures_util::StreamExt as _;
    use std::future::poll_fn;
    use tokio::net::TcpListener;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// Around the lengths at which the header of a frame grows, and more than a socket takes at once.
    const LENGTHS: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 8 << 20];

    async fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (link(server, Buffers::default()), client)
    }

    fn link(tcp: TcpStream, buffers: Buffers) -> Link {
        let share = Budget::new(usize::MAX).share(Standing::Settled);
        Link::new(tcp, buffers, share, usize::MAX)
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_put() {
        let (mut link, client) = pair().await;
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let texts: Vec<String> = LENGTHS.iter().map(|length| "x".repeat(*length)).collect();
        for text in &texts {
            assert!(link.put(Data::Text, text.as_bytes(), usize::MAX));
            assert!(link.put(Data::Binary, text.as_bytes(), usize::MAX));
        }
        assert!(!link.try_send().unwrap(), "the socket took all at once");
        let read = async {
            for text in &texts {
                assert_eq!(client.next().await.unwrap().unwrap(), Message::text(text.as_str()));
                let binary = Message::binary(text.clone().into_bytes());
                assert_eq!(client.next().await.unwrap().unwrap(), binary);
            }
        };
        let (sent, ()) = tokio::join!(poll_fn(|cx| link.poll_send(cx)), read);
        sent.unwrap();
        assert_eq!((link.unsent(), link.unsent.capacity()), (0, 0), "the memory is kept");
    }

    #[tokio::test]
    async fn what_finds_no_room_leaves_nothing_behind() {
        let (mut link, _client) = pair().await;
        assert!(link.put(Data::Text, &[b'x'; 100], 150));
        assert_eq!(link.unsent(), 102);
        assert!(!link.put(Data::Text, &[b'x'; 47], 150), "the header counts");
        assert!(link.put(Data::Text, &[b'x'; 46], 150));
        assert_eq!(link.unsent(), 150);
    }

    #[tokio::test]
    async fn a_frozen_one_keeps_what_is_put_for_the_next() {
        let (mut link, client) = pair().await;
        link.freeze();
        assert!(link.put(Data::Text, b"kept", usize::MAX));
        assert!(link.try_send().unwrap());
        let buffers = link.buffers().unwrap();
        assert_eq!(buffers.unsent, b"\x81\x04kept");
        let mut next = self::link(link.tcp, buffers);
        poll_fn(|cx| next.poll_send(cx)).await.unwrap();
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("kept"));
    }
}
