//! Sources of events from outside: channels and streams in Redis. One worker of all hosts holds
//! the leader lease and reads them, so that nothing is taken twice.

use std::time::Duration;

/// Names of the sources; a source without a name is off.
#[derive(Clone, Debug, Default)]
pub struct IngestNames {
    /// Channel of python-socketio's managers.
    pub python_channel: Option<String>,
    /// First part of the channels of Node's emitter.
    pub node_prefix: Option<String>,
    /// Stream of Node's streams emitter; others may read it too.
    pub node_stream: Option<String>,
    /// Our own stream; what was taken from it is deleted.
    pub own_stream: Option<String>,
}

impl IngestNames {
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

/// Which worker holds the leader lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderLease {
    /// This worker.
    Ours,
    /// Another one holds it, and for how long if it does not extend it.
    Anothers(Duration),
}

/// A pattern that means just this text.
pub(crate) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
