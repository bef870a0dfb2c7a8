//! The socket under an HTTP connection, so that another worker can continue with it: it brings along
//! what was read elsewhere, says whether the client has yet to take something, and ends a wait that is too long.

use boot::Http;
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a connection is at, for its socket and for the task that answers its requests. hyper, which owns the socket, asks for no
/// less than `Send` of a connection that may become a WebSocket, hence no `Rc` and no `Cell`.
pub(crate) struct Progress {
    /// Requests so far; one that came before the connection moved here counts.
    requests: AtomicU64,
    /// One is being answered.
    busy: AtomicBool,
    /// The latest write has not gone through.
    stuck: AtomicBool,
    /// Nothing more comes from the client, which was seen while it was being answered.
    ended: AtomicBool,
    /// Wakes what waits for that.
    heard: Notify,
}

impl Progress {
    pub(crate) fn new(asked: bool) -> Self {
        Self {
            requests: AtomicU64::new(asked.into()),
            busy: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            heard: Notify::new(),
        }
    }

    /// A request has come.
    pub(crate) fn begin(&self) {
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
        self.busy.store(true, Relaxed);
    }

    /// Waits until nothing more comes from the client. It may have closed its direction only and wait for the answer, or be
    /// gone: that cannot be told apart. hyper has given out all of the body that has come by then.
    pub(crate) async fn ended(&self) {
        while !self.ended.load(Relaxed) {
            self.heard.notified().await;
        }
    }

    /// Its answer is known.
    pub(crate) fn end(&self) {
        self.busy.store(false, Relaxed);
    }

    /// Whether there was a request.
    pub(crate) fn asked(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    /// Whether what was answered has been written, and no request is complete.
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy.load(Relaxed) && !self.stuck.load(Relaxed)
    }
}

/// See the module.
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Read before anything from the socket.
    unread: Bytes,
    progress: Arc<Progress>,
    /// The head of a request is complete by then.
    head: Duration,
    /// Between two requests.
    keepalive: Duration,
    /// Requests that had come when the wait for the next one began.
    seen: u64,
    /// Something of the next one has come.
    begun: bool,
    /// When the wait is over.
    due: Option<Instant>,
    /// Set when there is something to wait for, and seldom changed: it may go off too early.
    timer: Option<Pin<Box<Sleep>>>,
    /// Wakes the reader from which the end is kept.
    reader: Option<Waker>,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream, unread: Bytes, progress: Arc<Progress>, http: &Http) -> Self {
        Self {
            tcp,
            begun: !unread.is_empty(),
            unread,
            seen: progress.requests.load(Relaxed),
            progress,
            head: http.header_timeout,
            keepalive: http.keepalive_timeout,
            due: None,
            timer: None,
            reader: None,
        }
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

    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        self.progress.stuck.store(written.is_pending(), Relaxed);
        if written.is_ready()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        written
    }

    /// Keeps the end of what the client sends from hyper, which would drop a request that is being answered: the client
    /// may have closed that direction only, and a POST that has come whole is done to its end. A task that reads a body,
    /// or lets a client wait, hears of it by [`Progress::ended`].
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.progress.is_idle() {
            return Poll::Ready(());
        }
        self.progress.ended.store(true, Relaxed);
        self.progress.heard.notify_one();
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing can be read: ready if the client has had the time that it has for its next request.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let requests = self.progress.requests.load(Relaxed);
        if self.seen != requests {
            self.seen = requests;
            self.begun = false;
            self.due = None;
        }
        // A client that does not take its answer is the kernel's affair (`bound_stalls`).
        if !self.progress.is_idle() {
            self.due = None;
            return Poll::Pending;
        }
        let patience = if self.begun || requests == 0 {
            self.head
        } else {
            self.keepalive
        };
        let due = *self.due.get_or_insert_with(|| Instant::now() + patience);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() < due {
            timer.as_mut().reset(due);
            return timer.as_mut().poll(cx);
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.get(..count).unwrap_or_default());
            self.unread.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Err(_))) || (read.is_ready() && buf.filled().len() == before) {
            ready!(self.poll_end(cx));
            return read;
        }
        if read.is_ready() {
            // While one is being answered it is that one's body.
            if !self.begun && !self.progress.busy.load(Relaxed) {
                self.begun = true;
                self.due = None;
            }
            return read;
        }
        ready!(self.poll_patience(cx));
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "no request in time")))
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

    /// Nothing: a task that is done with a connection drops it at once, and that says so to the client.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
