//! Notes about the lives of sessions: written by workers, read by operators.

use super::inspect::Inspector;
use super::keys::Keys;
use super::link::{ConnectionClass, Link};
use super::reply::{self, Reply};
use super::script::Script;
use super::{Remote, Shared, millis};
use crate::error::StoreError;
use crate::notes::{Batch, NoteBounds, Notes};
use redis::Value;

/// Batches read at a time: they are up to 32 KiB each.
const BATCHES_MAX: usize = 16;
/// Never more items than that, however small they are.
const ITEMS_MAX: u64 = 100_000;
/// What an item takes besides its notes, about.
const ITEM_BYTES: usize = 128;
/// Who writes the notes of operators' commands.
const OPERATOR: &str = "operator";

/// Adds a batch, and takes away what has become too much.
async fn write(
    link: &Link,
    keys: &Keys,
    script: &Script,
    worker: &str,
    notes: &Notes,
    bounds: NoteBounds,
) -> Result<(), StoreError> {
    let op = "trace";
    let mut cmd = redis::cmd("XADD");
    cmd.arg(keys.trace()).arg("MAXLEN").arg("~").arg(ITEMS_MAX).arg("*");
    cmd.arg("w").arg(worker).arg("b").arg(notes.number);
    cmd.arg("t").arg(notes.began_ms).arg("g").arg(notes.lost);
    cmd.arg("n").arg(&notes.text);
    let id = reply::text(op, link.run(ConnectionClass::Bulk, op, &cmd).await?)?;
    let mut cmd = script.call(&[keys.trace(), keys.trace_sizes()]);
    cmd.arg(id)
        .arg(notes.text.len() + ITEM_BYTES)
        .arg(bounds.bytes_max)
        .arg(millis(bounds.age_max));
    link.script(ConnectionClass::Bulk, script, &cmd).await?;
    Ok(())
}

impl Remote {
    pub(crate) async fn trace(&self, notes: &Notes, bounds: NoteBounds) -> Result<(), StoreError> {
        let Shared {
            keys,
            link,
            scripts,
            options,
            ..
        } = &*self.shared;
        write(link, keys, &scripts.trace, &options.me, notes, bounds).await
    }
}

impl Inspector {
    /// The next batches of notes after the one with this id (empty: from the oldest); none: that was all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn notes(&self, after: &str) -> Result<Vec<Batch>, StoreError> {
        let op = "trace";
        let from = if after.is_empty() {
            "-".to_owned()
        } else {
            next_id(after)
        };
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(self.keys.trace())
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(BATCHES_MAX);
        batches(op, self.run(op, &cmd).await?)
    }

    /// Writes notes of an operator's command, such as a kick.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trace(&self, notes: &Notes, bounds: NoteBounds) -> Result<(), StoreError> {
        // Of each command another one: its batches are counted from 1.
        let me = format!("{OPERATOR}-{:08x}", fastrand::u32(..));
        write(&self.link, &self.keys, &self.scripts.trace, &me, notes, bounds).await
    }
}

/// The id after this one. `(` for exclusive bounds is not known to Redis 6.0.
fn next_id(id: &str) -> String {
    let next = id
        .split_once('-')
        .and_then(|(ms, seq)| Some(format!("{ms}-{}", seq.parse::<u64>().ok()?.saturating_add(1))));
    next.unwrap_or_else(|| id.to_owned())
}

/// The items of the stream.
pub(super) fn batches(op: &'static str, value: Value) -> Result<Vec<Batch>, StoreError> {
    let mut list = Reply::new(op, value)?;
    let mut found = Vec::new();
    while !list.is_empty() {
        let mut item = Reply::new(op, list.value()?)?;
        let id = item.text()?;
        let mut fields = Reply::new(op, item.value()?)?;
        let mut batch = Batch { id, ..Batch::default() };
        while !fields.is_empty() {
            let (name, value) = (fields.text()?, fields.value()?);
            match name.as_str() {
                "w" => batch.worker = reply::text(op, value)?,
                "b" => batch.notes.number = reply::number(op, value)?,
                "t" => batch.notes.began_ms = reply::number(op, value)?,
                "g" => batch.notes.lost = reply::number(op, value)?,
                "n" => batch.notes.text = reply::text(op, value)?,
                _ => {}
            }
        }
        found.push(batch);
    }
    Ok(found)
}
