//! Channels and streams that others write to, and the lease of the worker that reads them.

use super::link::ConnectionClass;
use super::reply::{self, Reply};
use super::{Shared, millis};
use crate::error::StoreError;
use crate::ingest::{IngestNames, Item, LeaderLease};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use redis::Value;
use redis::aio::{MultiplexedConnection, PubSubStream};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a leader may be silent before it is replaced; one that is dead or steps down is replaced at once.
const LEASE: Duration = Duration::from_millis(1200);
/// Messages and items taken at a time.
const BATCH_MAX: usize = 256;
/// How long a read of the streams waits for something.
const BLOCK: Duration = Duration::from_millis(1000);
/// The position before the first item.
const BEGINNING: &str = "0-0";

/// The ingest of one worker, see [`IngestNames`].
#[derive(Debug)]
pub struct Ingest {
    shared: Rc<Shared>,
    names: IngestNames,
    lease_until: Cell<Option<Instant>>,
}

impl Ingest {
    pub(super) fn new(shared: &Rc<Shared>, names: IngestNames) -> Self {
        Self {
            shared: Rc::clone(shared),
            names,
            lease_until: Cell::new(None),
        }
    }

    /// Between two calls of [`Ingest::renew_lease`] by the leader.
    pub const RENEW: Duration = Duration::from_millis(400);

    /// Whether the lease has not run out, by our own clock: a worker that was stopped for a while finds out
    /// before it takes anything.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.lease_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// Takes the lease if it is free, or renews it: the leader calls this every [`Ingest::RENEW`].
    ///
    /// # Errors
    /// [`StoreError`]; then the lease is lost when it runs out.
    pub async fn renew_lease(&self) -> Result<LeaderLease, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.lead);
        let asked = Instant::now();
        let mut cmd = script.call(&[keys.ingest_leader()]);
        cmd.arg(&self.shared.options.me)
            .arg(millis(LEASE))
            .arg(keys.dead_prefix());
        let value = self.shared.link.script(ConnectionClass::Bulk, script, &cmd).await?;
        let left = Duration::from_millis(reply::number(script.op, value)?);
        self.lease_until.set(left.is_zero().then_some(asked + LEASE));
        Ok(if left.is_zero() {
            LeaderLease::Ours
        } else {
            LeaderLease::Anothers(left.min(LEASE))
        })
    }

    /// Waits until the lease may be free: the leader stepped down, or this worker declared a worker dead.
    pub async fn lease_free(&self) {
        self.shared.lease_free.notified().await;
    }

    /// Gives the lease up, for the next leader to take it at once.
    pub async fn step_down(&self) {
        if self.lease_until.take().is_none() {
            return;
        }
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.resign);
        let mut cmd = script.call(&[keys.ingest_leader()]);
        cmd.arg(&self.shared.options.me).arg(keys.log_channel());
        // If it fails the lease runs out.
        drop(self.shared.link.script(ConnectionClass::Bulk, script, &cmd).await);
    }

    /// Subscribes to the channels; `None` if all of them are off.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channels(&self) -> Result<Option<Channels>, StoreError> {
        let (channels, patterns) = (self.names.channels(), self.names.patterns());
        if channels.is_empty() && patterns.is_empty() {
            return Ok(None);
        }
        let stream = self.shared.link.subscribe_to(&channels, &patterns).await?;
        Ok(Some(Channels { stream }))
    }

    /// Opens the streams where they were left; `None` if all of them are off.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn streams(&self) -> Result<Option<Streams>, StoreError> {
        let IngestNames {
            own_stream,
            node_stream,
            ..
        } = &self.names;
        if own_stream.is_none() && node_stream.is_none() {
            return Ok(None);
        }
        let mut streams = Vec::new();
        if let Some(name) = own_stream {
            streams.push((name.clone(), BEGINNING.to_owned()));
        }
        if let Some(name) = node_stream {
            let position = self.position(name).await?;
            streams.push((name.clone(), position));
        }
        Ok(Some(Streams {
            shared: Rc::clone(&self.shared),
            own: own_stream.clone(),
            connection: self.shared.link.connection_of_its_own().await?,
            streams,
        }))
    }

    /// Where a stream was left; the first time it is read from its end.
    async fn position(&self, stream: &str) -> Result<String, StoreError> {
        let op = "ingest";
        let (link, key) = (&self.shared.link, self.shared.keys.ingest_position());
        let mut get = redis::cmd("HGET");
        get.arg(&key).arg(stream);
        let known = link.run(ConnectionClass::Bulk, op, &get).await?;
        if known != Value::Nil {
            return reply::text(op, known);
        }
        let mut last = redis::cmd("XREVRANGE");
        last.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
        let mut items = Reply::new(op, link.run(ConnectionClass::Bulk, op, &last).await?)?;
        let end = if items.is_empty() {
            BEGINNING.to_owned()
        } else {
            Reply::new(op, items.value()?)?.text()?
        };
        let mut set = redis::cmd("HSETNX");
        set.arg(&key).arg(stream).arg(&end);
        link.run(ConnectionClass::Bulk, op, &set).await?;
        Ok(end)
    }
}

/// Messages as they come; what comes while no worker listens is lost, as pub/sub has it.
pub struct Channels {
    stream: PubSubStream,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channels")
    }
}

impl Channels {
    /// Waits for messages, and takes what is there: channel and payload. `None` if the connection broke.
    pub async fn next(&mut self) -> Option<Vec<(String, Bytes)>> {
        let mut messages = Vec::new();
        let mut next = self.stream.next().await;
        while let Some(message) = next {
            let payload = Bytes::copy_from_slice(message.get_payload_bytes());
            messages.push((message.get_channel_name().to_owned(), payload));
            if messages.len() == BATCH_MAX {
                break;
            }
            next = self.stream.next().now_or_never().flatten();
        }
        (!messages.is_empty()).then_some(messages)
    }
}

/// Items of the streams, in order; they stay until they are done.
#[derive(Debug)]
pub struct Streams {
    shared: Rc<Shared>,
    /// Our own stream.
    own: Option<String>,
    /// A read that waits would delay all other commands.
    connection: MultiplexedConnection,
    /// Name and position of each.
    streams: Vec<(String, String)>,
}

impl Streams {
    /// Waits for items. Without [`Streams::done`] the same come again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Vec<Item>, StoreError> {
        let op = "ingest";
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT")
            .arg(BATCH_MAX)
            .arg("BLOCK")
            .arg(millis(BLOCK))
            .arg("STREAMS");
        for (name, _) in &self.streams {
            cmd.arg(name);
        }
        for (_, position) in &self.streams {
            cmd.arg(position);
        }
        let patience = BLOCK + self.shared.link.response_timeout();
        let value = match timeout(patience, cmd.query_async::<Value>(&mut self.connection)).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => return Err(self.shared.link.error(op, &error)),
            Err(_) => return Err(StoreError::Timeout { op, after: patience }),
        };
        let mut items = Vec::new();
        if value == Value::Nil {
            return Ok(items);
        }
        let mut streams = Reply::new(op, value)?;
        while !streams.is_empty() {
            let mut stream = Reply::new(op, streams.value()?)?;
            let name = stream.text()?;
            let mut list = Reply::new(op, stream.value()?)?;
            while !list.is_empty() {
                let mut item = Reply::new(op, list.value()?)?;
                let id = item.text()?;
                items.push(Item {
                    stream: name.clone(),
                    id,
                    fields: fields(op, item.value()?)?,
                });
            }
        }
        Ok(items)
    }

    /// These are taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn done(&mut self, items: &[Item]) -> Result<(), StoreError> {
        let op = "ingest";
        let (link, position) = (&self.shared.link, self.shared.keys.ingest_position());
        for (name, at) in &mut self.streams {
            let mut ids = items.iter().filter(|item| item.stream == *name).map(|item| &item.id);
            if self.own.as_ref() == Some(name) {
                let mut cmd = redis::cmd("XDEL");
                cmd.arg(name.as_str());
                let taken: Vec<&String> = ids.collect();
                if !taken.is_empty() {
                    link.run(ConnectionClass::Bulk, op, cmd.arg(taken)).await?;
                }
            } else if let Some(last) = ids.next_back() {
                let mut cmd = redis::cmd("HSET");
                cmd.arg(&position).arg(name.as_str()).arg(last);
                link.run(ConnectionClass::Bulk, op, &cmd).await?;
                at.clone_from(last);
            }
        }
        Ok(())
    }
}

/// Names and values of an item. What is no UTF-8 in them becomes U+FFFD: an event is not lost for it.
fn fields(op: &'static str, value: Value) -> Result<Vec<(String, String)>, StoreError> {
    let mut list = Reply::new(op, value)?;
    let mut fields = Vec::new();
    while !list.is_empty() {
        fields.push((reply::lossy(op, list.value()?)?, reply::lossy(op, list.value()?)?));
    }
    Ok(fields)
}
