//! What the user of the workers may do in Redis. Nothing is done to find out: a command that is queued in a
//! transaction is checked by Redis (is it there, is it allowed, with this key and channel), and `DISCARD` forgets it.

use super::super::keys::Keys;
use super::Inspector;
use crate::error::StoreError;
use crate::ingest::IngestNames;
use crate::options::RedisOptions;
use redis::Cmd;

/// Commands that can ruin everything, in a form that means no harm even if it were carried out.
const DANGEROUS: [&[&str]; 4] = [&["FLUSHALL"], &["FLUSHDB"], &["CONFIG", "REWRITE"], &["DEBUG", "JMAP"]];

/// What was found out.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Dangerous commands that the workers' user may use.
    pub dangerous: Vec<&'static str>,
    /// What workers need and this user may not use.
    pub missing: Vec<Missing>,
}

/// A command that workers need and their user may not use.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its name.
    pub command: &'static str,
    /// Redis' words.
    pub reason: String,
}

impl Missing {
    fn of(command: &'static str, name: &str, reason: impl std::fmt::Display) -> Self {
        let reason = format!("{name}: {reason}");
        Self { command, reason }
    }
}

impl Inspector {
    /// What the workers' user may do; `ingest` is what they read of others.
    ///
    /// # Errors
    /// When transactions are not allowed either, or there is no Redis.
    pub async fn rights(&self, ingest: &IngestNames) -> Result<Rights, StoreError> {
        let mut rights = Rights::default();
        for words in DANGEROUS {
            let (name, mut cmd) = (words.first().copied().unwrap_or_default(), Cmd::new());
            cmd.arg(words);
            if self.refusal(&cmd).await?.is_none() {
                rights.dangerous.push(name);
            }
        }
        for (command, cmd) in needed(&self.keys) {
            if let Some(reason) = self.refusal(&cmd).await? {
                rights.missing.push(Missing { command, reason });
            }
        }
        for stream in ingest.streams() {
            let mut cmd = redis::cmd("XREAD");
            cmd.arg("STREAMS").arg(&stream).arg("0");
            if let Some(reason) = self.refusal(&cmd).await? {
                rights.missing.push(Missing::of("XREAD", &stream, reason));
            }
        }
        for channel in [vec![self.keys.log_channel()], ingest.channels()].concat() {
            let heard = self.link.subscribe(std::slice::from_ref(&channel)).await;
            if let Some(reason) = denied(heard)? {
                rights.missing.push(Missing::of("SUBSCRIBE", &channel, reason));
            }
        }
        for pattern in ingest.patterns() {
            let heard = self.link.subscribe_to(&[], std::slice::from_ref(&pattern)).await;
            if let Some(reason) = denied(heard)? {
                rights.missing.push(Missing::of("PSUBSCRIBE", &pattern, reason));
            }
        }
        Ok(rights)
    }

    /// Whether Redis accepts clients without a password.
    ///
    /// # Errors
    /// When there is no Redis.
    pub async fn is_open(&self) -> Result<bool, StoreError> {
        let anonymous = RedisOptions {
            username: None,
            password: None,
            // Changing the database needs the right to.
            db: 0,
            ..self.redis.clone()
        };
        match Self::new(anonymous, "")?.ping().await {
            Ok(_) | Err(StoreError::Unwritable { .. }) => Ok(true),
            Err(StoreError::Refused { .. } | StoreError::Unauthorized { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Why Redis would not run a command, in its words; it is not run.
    async fn refusal(&self, cmd: &Cmd) -> Result<Option<String>, StoreError> {
        let mut trial = redis::pipe();
        trial
            .cmd("MULTI")
            .add_command(cmd.clone())
            .cmd("DISCARD")
            .ignore_errors();
        let mut answers = self.link.pipeline("rights", &trial).await?.into_iter();
        match (answers.next(), answers.next()) {
            (Some(Ok(_)), Some(Ok(_))) => Ok(None),
            (Some(Ok(_)), Some(Err(StoreError::Refused { reason, .. }))) => Ok(Some(reason)),
            // Rights come first: what Redis cannot do just now is allowed.
            (Some(Ok(_)), Some(Err(_))) => Ok(None),
            (Some(Err(error)), _) => Err(error),
            (None, _) | (_, None) => Err(StoreError::Corrupt {
                what: "rights",
                reason: "the answer is too short".to_owned(),
            }),
        }
    }
}

/// Why Redis would not let the user subscribe, in its words. Only a refusal tells of rights: a Redis that is full, loads
/// its data or is gone has not looked at them.
fn denied<T>(heard: Result<T, StoreError>) -> Result<Option<String>, StoreError> {
    match heard {
        Ok(_) => Ok(None),
        Err(StoreError::Refused { reason, .. }) => Ok(Some(reason)),
        Err(error) => Err(error),
    }
}

/// What workers use, with keys and channels as they use them.
fn needed(keys: &Keys) -> Vec<(&'static str, Cmd)> {
    let sid = session::Sid::from_random([0; 15]);
    let (session, poll, mail, log) = (keys.session(&sid), keys.poll(&sid), keys.mail(&sid), keys.log());
    let cmd = |name: &'static str, arguments: &[&str]| {
        let mut cmd = redis::cmd(name);
        cmd.arg(arguments);
        (name, cmd)
    };
    vec![
        cmd("PING", &[]),
        cmd("TIME", &[]),
        cmd("SCRIPT", &["LOAD", "return 1"]),
        cmd("EVALSHA", &["0000000000000000000000000000000000000000", "1", &session]),
        cmd("SCAN", &["0"]),
        cmd("GET", &[&session]),
        cmd("MGET", &[&session]),
        cmd("SET", &[&session, "x"]),
        cmd("DEL", &[&session]),
        cmd("EXISTS", &[&session]),
        cmd("PTTL", &[&session]),
        cmd("PEXPIRE", &[&session, "1"]),
        cmd("RENAME", &[&poll, &keys.moved(&sid)]),
        cmd("HSET", &[&poll, "x", "x"]),
        cmd("HSETNX", &[&poll, "x", "x"]),
        cmd("HGET", &[&poll, "x"]),
        cmd("HMGET", &[&poll, "x"]),
        cmd("HGETALL", &[&poll]),
        cmd("HINCRBY", &[&poll, "x", "1"]),
        cmd("HDEL", &[&poll, "x"]),
        cmd("RPUSH", &[&mail, "x"]),
        cmd("LPOP", &[&mail]),
        cmd("LTRIM", &[&mail, "0", "1"]),
        cmd("LLEN", &[&mail]),
        cmd("LINDEX", &[&mail, "0"]),
        cmd("LRANGE", &[&mail, "0", "1"]),
        cmd("XADD", &[&log, "*", "x", "x"]),
        cmd("XLEN", &[&log]),
        cmd("XREAD", &["STREAMS", &log, "0"]),
        cmd("XRANGE", &[&log, "-", "+"]),
        cmd("XREVRANGE", &[&log, "+", "-"]),
        cmd("XTRIM", &[&log, "MAXLEN", "1"]),
        cmd("XDEL", &[&log, "0-1"]),
        cmd("PUBLISH", &[&keys.log_channel(), "x"]),
        cmd("PUBLISH", &[&keys.wake("x"), "x"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn only_a_refusal_is_a_missing_right() {
        let reason = "max number of clients reached".to_owned();
        let away = StoreError::Unavailable {
            op: "subscribe",
            reason,
        };
        assert!(matches!(
            denied(Err::<(), _>(away)),
            Err(StoreError::Unavailable { .. })
        ));
        let after = std::time::Duration::from_secs(1);
        let late = StoreError::Timeout { op: "subscribe", after };
        assert!(matches!(denied(Err::<(), _>(late)), Err(StoreError::Timeout { .. })));
        let reason = "NOPERM no permissions".to_owned();
        let refused = StoreError::Refused {
            op: "subscribe",
            reason: reason.clone(),
        };
        assert_eq!(denied(Err::<(), _>(refused)).unwrap(), Some(reason));
        assert_eq!(denied(Ok(())).unwrap(), None);
    }

    #[test]
    fn what_scripts_call_is_needed() {
        let needed: BTreeSet<&str> = needed(&Keys::new("x", 0)).into_iter().map(|(name, _)| name).collect();
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
        let mut called = BTreeSet::new();
        for entry in std::fs::read_dir(scripts).unwrap() {
            let path = entry.unwrap().path();
            // Those of the application link are run only where there is one.
            if path.file_name().unwrap().to_string_lossy().starts_with("app_") {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let calls = text.split("call('").skip(1);
            called.extend(calls.map(|call| call.split('\'').next().unwrap().to_owned()));
        }
        assert!(called.len() > 20, "{called:?}");
        for name in &called {
            assert!(needed.contains(name.as_str()), "{name} is called and not needed");
        }
    }
}
