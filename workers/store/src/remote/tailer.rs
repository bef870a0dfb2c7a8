//! The tailer: subscribed on a connection of its own for speed, and reading the stream wherever the
//! dense numbers show a gap.

use super::Shared;
use super::canary::{self, jittered};
use super::inbox::Inbox;
use super::push::{self, Push};
use super::version;
use crate::error::StoreError;
use crate::tail::{ResetReason, TailEvent};
use bytes::Bytes;
use futures_util::StreamExt as _;
use redis::aio::PubSubStream;
use session::{Offset, Sid};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

/// First pause before the next attempt to connect, and the longest.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// So many canary intervals without a canary, and the connection is given up.
const STALLED_INTERVALS: u32 = 3;

/// The end that the worker takes events from.
#[derive(Debug)]
pub(crate) struct RemoteTail {
    inbox: Rc<Inbox>,
    position: Offset,
    heard: Rc<Cell<Instant>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for RemoteTail {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl RemoteTail {
    /// Checks the version of Redis, subscribes, proves that it can write and hears what is written, and stands at the head.
    pub(super) async fn open(shared: &Rc<Shared>) -> Result<Self, StoreError> {
        let inbox = Rc::new(Inbox::default());
        version::check(shared).await?;
        let mut stream = subscribe(shared).await?;
        canary::prove(shared, &mut stream).await?;
        let position = shared.head().await?;
        shared.link.set_healthy(true);
        let heard = Rc::new(Cell::new(Instant::now()));
        let tailer = Tailer {
            shared: Rc::clone(shared),
            inbox: Rc::clone(&inbox),
            heard: Rc::clone(&heard),
            position,
            skipped: false,
        };
        let canaries = canary::keep_sending(Rc::clone(shared));
        let tasks = [
            tokio::task::spawn_local(tailer.run(stream)),
            tokio::task::spawn_local(canaries),
        ];
        Ok(Self {
            inbox,
            position,
            heard,
            tasks,
        })
    }

    pub(crate) fn heard(&self) -> std::time::Instant {
        self.heard.get().into_std()
    }

    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    pub(crate) async fn next(&mut self) -> TailEvent {
        let event = self.inbox.next().await;
        match &event {
            TailEvent::Entries(entries) => {
                if let Some((last, _)) = entries.last() {
                    self.position = *last;
                }
            }
            TailEvent::Reset { to, .. } => self.position = *to,
            TailEvent::Canary { .. } | TailEvent::Stalled | TailEvent::Down(_) | TailEvent::Up | TailEvent::Wake(_) => {
            }
        }
        event
    }
}

async fn subscribe(shared: &Shared) -> Result<PubSubStream, StoreError> {
    let channels = [shared.keys.log_channel(), shared.keys.wake(&shared.options.me)];
    shared.link.subscribe(&channels).await
}

/// Why nothing is heard on a connection any more.
enum Silence {
    /// It failed.
    Broken(String),
    /// It is there, and carries nothing.
    Stalled(String),
}

/// The task behind the tail.
struct Tailer {
    shared: Rc<Shared>,
    inbox: Rc<Inbox>,
    /// When something was last pushed, or could be again after an outage.
    heard: Rc<Cell<Instant>>,
    /// Everything up to here is in the inbox.
    position: Offset,
    /// The inbox was full: what came then is in the stream only.
    skipped: bool,
}

impl Tailer {
    async fn run(mut self, first: PubSubStream) {
        let mut stream = first;
        loop {
            let (reason, stalled) = match self.follow(stream).await {
                Silence::Stalled(reason) => (reason, true),
                Silence::Broken(reason) => (reason, false),
            };
            // A connection that carries nothing is not an outage: as long as Redis takes a new one, the worker is to blame.
            if stalled && let Ok(fresh) = self.attempt().await {
                match self.shared.canaries.failure() {
                    None => warn!(%reason, "no log received although redis answers: subscribed again"),
                    Some(error) => {
                        warn!(%error, "log not written although redis answers: subscribed again")
                    }
                }
                self.inbox.push(TailEvent::Stalled);
                stream = fresh;
                continue;
            }
            self.shared.link.set_healthy(false);
            warn!(%reason, "log connection lost");
            self.inbox.push(TailEvent::Down(reason));
            stream = self.reconnect().await;
            self.shared.link.set_healthy(true);
            self.shared.canaries.hurry();
            self.heard.set(Instant::now());
            self.shared.counts.reconnects.one();
            info!(position = %self.position, "log connection restored");
            self.inbox.push(TailEvent::Up);
        }
    }

    /// Subscribed again, and caught up with the stream.
    async fn reconnect(&mut self) -> PubSubStream {
        let mut pause = RECONNECT_MIN;
        loop {
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(RECONNECT_MAX);
            match self.attempt().await {
                Ok(stream) => return stream,
                Err(error) => debug!(%error, "log connection not restored yet"),
            }
        }
    }

    async fn attempt(&mut self) -> Result<PubSubStream, StoreError> {
        let stream = subscribe(&self.shared).await?;
        let head = self.shared.head().await?;
        self.catch_up(head).await?;
        Ok(stream)
    }

    /// Hands on what is pushed until the connection fails; says why it did.
    async fn follow(&mut self, mut stream: PubSubStream) -> Silence {
        let patience = self.shared.options.canary_interval * STALLED_INTERVALS + RECONNECT_MAX;
        let channel = self.shared.keys.log_channel();
        let mut heard = Instant::now();
        loop {
            let message = tokio::select! {
                message = timeout_at(heard + patience, stream.next()) => message,
                () = self.inbox.room(), if self.skipped => {
                    if let Err(error) = self.catch_up(self.shared.known.get()).await {
                        return Silence::Broken(error.to_string());
                    }
                    continue;
                }
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Silence::Broken("the connection was closed".to_owned()),
                Err(_) => return Silence::Stalled(format!("no canary within {patience:?}")),
            };
            if message.get_channel_name() == channel {
                heard = Instant::now();
                self.heard.set(heard);
                let payload = Bytes::copy_from_slice(message.get_payload_bytes());
                if let Err(error) = self.pushed(&payload).await {
                    return Silence::Broken(error.to_string());
                }
            } else if let Some(sid) = sid_of(message.get_payload_bytes()) {
                self.inbox.push(TailEvent::Wake(sid));
            }
        }
    }

    async fn pushed(&mut self, payload: &Bytes) -> Result<(), StoreError> {
        match push::parse(payload) {
            Some(Push::Entries(entries)) => self.batch(entries).await,
            Some(Push::Canary { head, sender, number }) => {
                let behind = if head.epoch() == self.position.epoch() {
                    head.seq().saturating_sub(self.position.seq())
                } else {
                    head.seq()
                };
                let own = sender == self.shared.options.me;
                let took = own.then(|| self.shared.canaries.took(number)).flatten();
                self.inbox.push(TailEvent::Canary { behind, took });
                self.shared.saw(head);
                if head > self.position {
                    self.catch_up(head).await
                } else {
                    Ok(())
                }
            }
            Some(Push::LeaseFree) => {
                self.shared.lease_free.notify_one();
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn batch(&mut self, entries: Vec<(Offset, Bytes)>) -> Result<(), StoreError> {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let (first, last) = (*first, *last);
        self.shared.saw(last);
        if last <= self.position {
            return Ok(());
        }
        if !self.inbox.has_room() {
            self.skipped = true;
            return Ok(());
        }
        if first == self.position.next() {
            self.deliver(entries);
            return Ok(());
        }
        // A gap, a new epoch, or a part that is known: the stream has it all.
        self.shared.counts.gaps.one();
        self.catch_up(last).await
    }

    fn deliver(&mut self, entries: Vec<(Offset, Bytes)>) {
        if let Some((last, _)) = entries.last() {
            self.position = *last;
            self.shared.saw(self.position);
            self.inbox.push(TailEvent::Entries(entries));
        }
    }

    /// Reads the stream from the position to at least `target`, as far as there is room.
    async fn catch_up(&mut self, target: Offset) -> Result<(), StoreError> {
        if target.epoch() != self.position.epoch() {
            self.reset(Offset::new(target.epoch(), 0), ResetReason::RedisLostData);
        }
        while self.position < target && self.inbox.has_room() {
            let chunk = self.shared.chunk(self.position, None).await?;
            match chunk.entries.first() {
                None => {
                    self.reset(target, ResetReason::Trimmed);
                }
                Some((first, _)) => {
                    if *first != self.position.next() {
                        let before = Offset::new(first.epoch(), first.seq().saturating_sub(1));
                        self.reset(before, ResetReason::Trimmed);
                    }
                    self.deliver(chunk.entries);
                }
            }
            if chunk.complete && self.position < target {
                self.reset(target, ResetReason::Trimmed);
            }
        }
        self.skipped = self.position < target;
        Ok(())
    }

    fn reset(&mut self, to: Offset, reason: ResetReason) {
        warn!(from = %self.position, %to, ?reason, "log gap found");
        self.inbox.push(TailEvent::Reset {
            from: self.position,
            to,
            reason,
        });
        self.position = to;
    }
}

fn sid_of(payload: &[u8]) -> Option<Sid> {
    Sid::parse(std::str::from_utf8(payload).ok()?).ok()
}
