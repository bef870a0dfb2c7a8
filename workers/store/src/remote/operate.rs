//! What an operator asks of one session, and does to it.

use super::inspect::Inspector;
use super::link::ConnectionClass;
use super::reply::{self, Reply};
use crate::error::StoreError;
use redis::{Cmd, Value};
use session::{Entry, EntryKind, Record, Sid, Target};
use std::time::Duration;

/// A session, with what Redis knows besides its record.
#[derive(Clone, Debug)]
pub struct Detail {
    /// Its record.
    pub record: Record,
    /// It ended uncleanly and can be resumed until it expires: no connection serves it.
    pub lost: bool,
    /// How long it is kept without a sign of life; `None` if it has no expiry.
    pub expires_in: Option<Duration>,
    /// For a session that polls.
    pub poll: Option<Polling>,
}

/// A polling session between two requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polling {
    /// The client has the log up to here, for sure.
    pub cursor: String,
    /// Upper end of the latest answer.
    pub sent: String,
    /// Packets that wait for it alone.
    pub mail: u64,
    /// Where its poll waits: a worker's incarnation.
    pub parked_at: Option<String>,
}

impl Inspector {
    /// One session, by its whole id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn detail(&self, sid: &Sid) -> Result<Option<Detail>, StoreError> {
        for (key, lost) in [(self.keys.session(sid), false), (self.keys.lost(sid), true)] {
            if let Some((record, expires_in)) = self.record(&key).await? {
                let poll = if lost { None } else { self.polling(sid).await? };
                return Ok(Some(Detail {
                    record,
                    lost,
                    expires_in,
                    poll,
                }));
            }
        }
        Ok(None)
    }

    async fn record(&self, key: &str) -> Result<Option<(Record, Option<Duration>)>, StoreError> {
        let op = "session";
        let value = self.run(op, redis::cmd("GET").arg(key)).await?;
        let Some(record) = reply::record(op, value)? else {
            return Ok(None);
        };
        let left = self.run(op, redis::cmd("PTTL").arg(key)).await?;
        let left = reply::number(op, left).ok().map(Duration::from_millis);
        Ok(Some((record, left)))
    }

    async fn polling(&self, sid: &Sid) -> Result<Option<Polling>, StoreError> {
        let op = "session";
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.poll(sid)).arg(&["cur", "sent", "get"]);
        let mut fields = Reply::new(op, self.run(op, &cmd).await?)?;
        let mut text = || fields.value().ok().and_then(|value| reply::text(op, value).ok());
        let (Some(cursor), sent, lease) = (text(), text(), text()) else {
            return Ok(None);
        };
        let mail = self.run(op, redis::cmd("LLEN").arg(self.keys.mail(sid))).await?;
        let parked_at = lease.and_then(|lease| lease.split(' ').next().map(str::to_owned));
        Ok(Some(Polling {
            cursor,
            sent: sent.unwrap_or_default(),
            mail: reply::number(op, mail)?,
            parked_at: parked_at.filter(|name| !name.is_empty()),
        }))
    }

    /// Whether the session lives.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lives(&self, sid: &Sid) -> Result<bool, StoreError> {
        let op = "session";
        let found = self.run(op, redis::cmd("EXISTS").arg(self.keys.session(sid))).await?;
        Ok(reply::number(op, found)? > 0)
    }

    /// Orders, through the log, that a session's client is disconnected from its namespaces and its
    /// connection closed. False if there is no log yet: an operator begins none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn dismiss(&self, record: &Record) -> Result<bool, StoreError> {
        let op = "dismiss";
        let epoch = self
            .run(op, redis::cmd("HGET").arg(self.keys.log_meta()).arg("epoch"))
            .await?;
        if epoch == Value::Nil {
            return Ok(false);
        }
        let orders = record.namespaces.iter().map(|(nsp, joined)| Entry {
            kind: EntryKind::Disconnect,
            target: Target {
                nsp: nsp.to_owned(),
                rooms: vec![joined.sid.as_str().to_owned()],
                except: Vec::new(),
            },
            text: "true".into(),
            attachments: Vec::new(),
        });
        let mut entries: Vec<Vec<u8>> = orders.map(|order| order.encode()).collect();
        if entries.is_empty() {
            entries.push(eviction(record).encode());
        }
        self.link
            .script(ConnectionClass::Log, &self.scripts.append, &self.append(&entries))
            .await?;
        Ok(true)
    }

    /// A batch for the log, by a writer that writes only this one.
    fn append(&self, entries: &[Vec<u8>]) -> Cmd {
        /// No bound: workers trim the log, since they know its bounds.
        const NEVER: u64 = 1 << 52;
        let lengths: Vec<String> = entries.iter().map(|entry| entry.len().to_string()).collect();
        let me = format!("operator-{:08x}", fastrand::u32(..));
        let keys = &self.keys;
        let mut cmd = self
            .scripts
            .append
            .call(&[keys.log_meta(), keys.log(), keys.log_sizes()]);
        cmd.arg(1)
            .arg(0)
            .arg(0)
            .arg(NEVER)
            .arg(format!("{NEVER} 0"))
            .arg(keys.log_channel())
            .arg(me)
            .arg(entries.len())
            .arg(lengths.join(","))
            .arg(entries.concat())
            .arg(keys.dedupe_prefix())
            .arg(1);
        cmd
    }

    /// Ends a session by taking its keys away, also what it could be resumed from. Its poll is woken;
    /// a WebSocket notices with its next heartbeat.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(&self, sid: &Sid) -> Result<(), StoreError> {
        let (keys, script) = (&self.keys, &self.scripts.end);
        let mut cmd = script.call(&[
            keys.session(sid),
            keys.poll(sid),
            keys.mail(sid),
            keys.lost(sid),
            keys.moved(sid),
        ]);
        cmd.arg(keys.wake_prefix()).arg("").arg("").arg(1).arg(sid.as_str());
        self.link.script(ConnectionClass::Requests, script, &cmd).await?;
        self.run("end", redis::cmd("DEL").arg(keys.lost(sid))).await?;
        Ok(())
    }
}

/// Closes the connection of a session that is in no namespace, as if it had gone on elsewhere.
fn eviction(record: &Record) -> Entry {
    Entry {
        kind: EntryKind::Takeover,
        target: Target::default(),
        text: format!("{} {}", record.sid, record.epoch.saturating_add(1)).into(),
        attachments: Vec::new(),
    }
}
