//! The doors through which others bring events: channels and streams in Redis. Of all workers of all hosts
//! one leads and reads them, so that nothing is taken twice.

use crate::error::StoreError;
use crate::remote::{RemoteChannels, RemoteDoors, RemoteStreams, literal};
use bytes::Bytes;
use std::time::Duration;

/// Names of the doors; without a name a door is shut.
#[derive(Clone, Debug, Default)]
pub struct DoorNames {
    /// Channel of python-socketio's managers.
    pub python_channel: Option<String>,
    /// First part of the channels of Node's emitter.
    pub node_prefix: Option<String>,
    /// Stream of Node's streams emitter; others may read it too.
    pub node_stream: Option<String>,
    /// Our own stream; what was taken from it is deleted.
    pub own_stream: Option<String>,
}

impl DoorNames {
    /// Channels that are heard.
    #[must_use]
    pub fn channels(&self) -> Vec<String> {
        self.python_channel.iter().cloned().collect()
    }

    /// Patterns of channels that are heard. An ACL must have them letter for letter.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        let prefix = self.node_prefix.as_deref().map(literal);
        let both = prefix.map(|prefix| [format!("{prefix}#/*#*"), format!("{prefix}-request#/*#")]);
        both.into_iter().flatten().collect()
    }

    /// Streams that are read.
    #[must_use]
    pub fn streams(&self) -> Vec<String> {
        self.own_stream.iter().chain(&self.node_stream).cloned().collect()
    }
}

/// An item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name of the stream.
    pub stream: String,
    /// Its id there.
    pub id: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

impl Item {
    /// Bytes of its values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|(_, value)| value.len()).sum()
    }

    /// A field's value.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(value)
    }
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// This worker.
    Ours,
    /// Another one, and so long if it does not prolong it.
    Anothers(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Doors(pub(crate) RemoteDoors);

impl Doors {
    /// Takes the lead if nobody has it, or prolongs it: the leader calls this every [`Doors::RENEW`].
    ///
    /// # Errors
    /// [`StoreError`]; then the lead is lost when it runs out.
    pub async fn lead(&self) -> Result<Lead, StoreError> {
        self.0.lead().await
    }

    /// Waits until the leader may be gone: it resigned, or this worker buried a worker.
    pub async fn lead_free(&self) {
        self.0.lead_free().await;
    }

    /// Between two calls of [`Doors::lead`] by the leader.
    pub const RENEW: Duration = Duration::from_millis(400);

    /// Whether the lead has not run out, by our own clock: a worker that was stopped for a while finds out
    /// before it takes anything.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.0.leads()
    }

    /// Gives the lead up, for the next one to take it at once.
    pub async fn resign(&self) {
        self.0.resign().await;
    }

    /// Subscribes to the channels; `None` if all of them are shut.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn channels(&self) -> Result<Option<Channels>, StoreError> {
        Ok(self.0.channels().await?.map(Channels))
    }

    /// Opens the streams where they were left; `None` if all of them are shut.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn streams(&self) -> Result<Option<Streams>, StoreError> {
        Ok(self.0.streams().await?.map(Streams))
    }
}

/// Messages as they come; what comes while nobody listens is lost, as pub/sub has it.
pub struct Channels(RemoteChannels);

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channels")
    }
}

impl Channels {
    /// Waits for messages, and takes what is there: channel and payload. `None` if the connection broke.
    pub async fn next(&mut self) -> Option<Vec<(String, Bytes)>> {
        self.0.next().await
    }
}

/// Items of the streams, in order; they stay until they are done.
#[derive(Debug)]
pub struct Streams(RemoteStreams);

impl Streams {
    /// Waits for items. Without [`Streams::done`] the same come again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Vec<Item>, StoreError> {
        self.0.next().await
    }

    /// These are taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn done(&mut self, items: &[Item]) -> Result<(), StoreError> {
        self.0.done(items).await
    }
}
