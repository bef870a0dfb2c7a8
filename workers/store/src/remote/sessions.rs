//! Sessions: records, their lifetime, resume, the sessions of dead workers.

use super::ends::End;
use super::link::ConnectionClass;
use super::reply::{self, Reply};
use super::{Remote, millis};
use crate::answer::{Amended, RequestId, Restored, Saved, Touched};
use crate::error::StoreError;
use crate::limits::POST_LEASE;
use redis::Value;
use rustc_hash::FxHashSet;
use session::{Offset, Pid, Record, Sid, Transport};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::time::Duration;

/// How long a dead worker is remembered; longer than any lease.
const DEAD_REMEMBERED: Duration = Duration::from_secs(600);
/// Keys looked at per step of a scan.
const SCAN_KEYS: usize = 256;

impl Remote {
    pub(crate) async fn create(
        &self,
        record: &Record,
        asked: &[RequestId],
        head: Offset,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let (keys, link) = (&self.shared.keys, &self.shared.link);
        let sid = &record.sid;
        match record.transport {
            Transport::Polling => {
                let script = &self.shared.scripts.create;
                let ids = asked.iter().filter_map(|request| request.given());
                let ids: Vec<String> = ids.map(|id| format!("{id:x}")).collect();
                let mut cmd = script.call(&[keys.session(sid), keys.poll(sid), keys.mail(sid), keys.moved(sid)]);
                cmd.arg(record.to_json())
                    .arg(millis(ttl))
                    .arg(head.to_string())
                    .arg(millis(self.shared.options.ping_interval))
                    .arg(millis(ttl.min(self.shared.options.liveness())))
                    .arg(ids.join(" "));
                link.script(ConnectionClass::Requests, script, &cmd).await?;
            }
            Transport::Websocket => {
                let mut cmd = redis::cmd("SET");
                cmd.arg(keys.session(sid))
                    .arg(record.to_json())
                    .arg("PX")
                    .arg(millis(ttl));
                link.run(ConnectionClass::Requests, "create", &cmd).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn load(&self, sid: &Sid) -> Result<Option<Record>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.shared.keys.session(sid));
        let value = self.shared.link.run(ConnectionClass::Requests, "load", &cmd).await?;
        reply::record("load", value)
    }

    pub(crate) async fn save(&self, record: &Record, expected_epoch: u64, ttl: Duration) -> Result<Saved, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.save);
        let mut cmd = script.call(&[keys.session(&record.sid), keys.poll(&record.sid)]);
        cmd.arg(expected_epoch)
            .arg(record.to_json())
            .arg(millis(ttl))
            .arg(keys.wake_prefix())
            .arg(record.sid.as_str())
            .arg(&self.shared.options.me);
        let value = self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
        saved(script.op, value)
    }

    pub(crate) async fn amend(&self, before: &Record, after: &Record) -> Result<Amended, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.amend);
        let mut cmd = script.call(&[keys.session(&before.sid), keys.poll(&before.sid)]);
        cmd.arg(before.to_json())
            .arg(after.to_json())
            .arg(keys.dead_prefix())
            .arg(millis(POST_LEASE));
        let value = self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
        Ok(match reply::text(script.op, value)?.as_str() {
            "done" => Amended::Done,
            "gone" => Amended::Gone,
            _ => Amended::Again,
        })
    }

    pub(crate) async fn restore(&self, record: &Record, ttl: Duration) -> Result<Restored, StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.shared.keys.session(&record.sid))
            .arg(record.to_json())
            .arg("NX")
            .arg("PX")
            .arg(millis(ttl));
        let value = self.shared.link.run(ConnectionClass::Requests, "restore", &cmd).await?;
        Ok(if value == Value::Nil {
            Restored::Present
        } else {
            Restored::Done
        })
    }

    pub(crate) async fn touch(&self, sid: &Sid, ttl: Duration) -> Result<Touched, StoreError> {
        let mut cmd = redis::cmd("PEXPIRE");
        cmd.arg(self.shared.keys.session(sid)).arg(millis(ttl));
        let value = self.shared.link.run(ConnectionClass::Requests, "touch", &cmd).await?;
        Ok(match reply::number("touch", value)? {
            0 => Touched::Gone,
            _ => Touched::Alive,
        })
    }

    pub(crate) async fn resolve(&self, pid: &Pid) -> Result<Option<Record>, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.resolve);
        let mut cmd = script.call(&[keys.pid(pid)]);
        cmd.arg(pid.session().as_str())
            .arg(keys.session_prefix())
            .arg(keys.lost_prefix());
        let value = self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
        reply::record(script.op, value)
    }

    pub(crate) async fn takeover(
        &self,
        pid: &Pid,
        old: Option<&Record>,
        old_sid: &Sid,
        expected_epoch: u64,
        new_sid: &Sid,
        ttl: Duration,
    ) -> Result<Saved, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.takeover);
        let mut cmd = script.call(&[
            keys.session(old_sid),
            keys.lost(old_sid),
            keys.pid(pid),
            keys.poll(old_sid),
            keys.mail(old_sid),
        ]);
        cmd.arg(expected_epoch)
            .arg(old.map(Record::to_json).unwrap_or_default())
            .arg(new_sid.as_str())
            .arg(millis(ttl))
            .arg(keys.wake_prefix())
            .arg(old_sid.as_str());
        let value = self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
        saved(script.op, value)
    }

    pub(crate) async fn point(&self, pid: &Pid, sid: &Sid, ttl: Duration) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.shared.keys.pid(pid))
            .arg(sid.as_str())
            .arg("PX")
            .arg(millis(ttl));
        self.shared.link.run(ConnectionClass::Requests, "point", &cmd).await?;
        Ok(())
    }

    pub(crate) async fn mark_dead(&self, incarnation: &str) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.shared.keys.dead(incarnation))
            .arg(1)
            .arg("PX")
            .arg(millis(DEAD_REMEMBERED));
        self.shared
            .link
            .run(ConnectionClass::Requests, "mark_dead", &cmd)
            .await?;
        self.shared.lease_free.notify_one();
        Ok(())
    }

    pub(crate) async fn sweep_dead(&self, incarnation: &str, window: Option<Duration>) -> Result<Vec<Sid>, StoreError> {
        let mut ended = Vec::new();
        let mut cursor = 0;
        loop {
            let (next, found) = self.scan(cursor).await?;
            if !found.is_empty() {
                ended.extend(self.sweep_some(&found, incarnation, window).await?);
            }
            if next == 0 {
                return Ok(ended);
            }
            cursor = next;
        }
    }

    /// Ends those of the sessions whose WebSocket the dead worker held.
    async fn sweep_some(&self, found: &[String], dead: &str, window: Option<Duration>) -> Result<Vec<Sid>, StoreError> {
        let mut cmd = redis::cmd("MGET");
        cmd.arg(found);
        let mut records = Reply::new(
            "sweep",
            self.shared.link.run(ConnectionClass::Bulk, "sweep", &cmd).await?,
        )?;
        let mut held = Vec::new();
        while !records.is_empty() {
            // One unreadable record must not keep the others from being ended.
            if let Ok(Some(record)) = records.record()
                && record.worker == dead
                && record.transport == Transport::Websocket
            {
                held.push(End {
                    sid: record.sid.clone(),
                    expected_epoch: Some(record.epoch),
                    keep: window.map(|_| record.to_json()).unwrap_or_default(),
                    window: window.unwrap_or_default(),
                });
            }
        }
        self.shared.end_all(ConnectionClass::Bulk, &held).await?;
        Ok(held.into_iter().map(|end| end.sid).collect())
    }

    pub(crate) async fn count_sessions(&self) -> Result<u64, StoreError> {
        // A scan may show a key twice; a hash of each will do for telling.
        let hasher = BuildHasherDefault::<rustc_hash::FxHasher>::default();
        let mut seen = FxHashSet::default();
        let mut cursor = 0;
        loop {
            let (next, found) = self.scan(cursor).await?;
            seen.extend(found.iter().map(|key| hasher.hash_one(key)));
            if next == 0 {
                return Ok(u64::try_from(seen.len()).unwrap_or(u64::MAX));
            }
            cursor = next;
        }
    }

    /// One step over the session keys: the next cursor (0 at the end) and keys.
    async fn scan(&self, cursor: u64) -> Result<(u64, Vec<String>), StoreError> {
        let op = "scan";
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(cursor)
            .arg("MATCH")
            .arg(self.shared.keys.session_pattern())
            .arg("COUNT")
            .arg(SCAN_KEYS);
        let mut answer = Reply::new(op, self.shared.link.run(ConnectionClass::Bulk, op, &cmd).await?)?;
        let next = answer.number()?;
        let mut list = Reply::new(op, answer.value()?)?;
        let mut found = Vec::new();
        while !list.is_empty() {
            let key = list.text()?;
            if self.shared.keys.sid_of(&key).is_some() {
                found.push(key);
            }
        }
        Ok((next, found))
    }
}

fn saved(op: &'static str, value: Value) -> Result<Saved, StoreError> {
    let mut answer = Reply::new(op, value)?;
    match answer.text()?.as_str() {
        "done" => Ok(Saved::Done),
        "fenced" => Ok(Saved::Fenced {
            current: answer.number()?,
        }),
        _ => Ok(Saved::Gone),
    }
}
