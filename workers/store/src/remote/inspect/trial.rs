//! Trying out what workers do, without being one.

use super::super::link::ConnectionClass;
use super::super::reply::{self, Reply};
use super::super::{millis, random_name};
use super::Inspector;
use crate::error::StoreError;
use session::{Record, Sid};
use std::time::Duration;
use tokio::time::Instant;

/// Expiry of the keys that health checks write, in case they are not deleted.
const TRIAL_TTL: Duration = Duration::from_secs(10);

/// How long the same took several times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

impl Spread {
    /// None of nothing.
    fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |percent: usize| {
            let nth = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(nth).copied().unwrap_or_default()
        };
        let spread = Self {
            p50: at(50),
            p99: at(99),
        };
        (!times.is_empty()).then_some(spread)
    }
}

/// How long Redis takes to answer, as seen from here.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// `PING`; none if Redis refuses even that because it cannot write to its disk.
    pub ping: Option<Spread>,
    /// `GET`.
    pub get: Spread,
    /// `SET`; none if Redis takes no writes.
    pub set: Option<Spread>,
    /// Why one is missing.
    pub unwritable: Option<StoreError>,
}

/// What became of a session's record that was written under a session's key, read back and deleted, in one step.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What was read is what was written.
    pub same: bool,
    /// Its lifetime right after it was written.
    pub ttl: Option<Duration>,
    /// It is gone.
    pub cleaned: bool,
}

/// Which workers served the latest requests of a polling session.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// The incarnation that answered the latest GET.
    pub get: Option<String>,
    /// The one that finished the latest POST.
    pub post: Option<String>,
}

impl Inspector {
    /// Measures `rounds` times each, one after the other.
    ///
    /// # Errors
    /// [`StoreError`]; but what a Redis refuses that takes no writes is left out.
    pub async fn latency(&self, rounds: usize) -> Result<Latency, StoreError> {
        let key = self.keys.trial(&random_name());
        let mut unwritable = None;
        // The first commands make the connection; what is refused costs it, and is not asked again.
        let pings = took(self.ping(), &mut unwritable).await?.is_some();
        let sets = took(self.put(&key, "x"), &mut unwritable).await?.is_some();
        self.read(&key).await?;
        let (mut ping, mut get, mut set) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            if pings {
                ping.extend(took(self.ping(), &mut unwritable).await?);
            }
            if sets {
                set.extend(took(self.put(&key, "x"), &mut unwritable).await?);
            }
            get.extend(took(self.read(&key), &mut unwritable).await?);
        }
        if sets {
            took(self.remove(&key), &mut unwritable).await?;
        }
        Ok(Latency {
            ping: Spread::of(ping),
            get: Spread::of(get).unwrap_or_default(),
            set: Spread::of(set),
            unwritable,
        })
    }

    /// Sets a key of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_set(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.put(&self.keys.trial(name), value).await
    }

    /// Gets what [`Self::try_set`] set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_get(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.read(&self.keys.trial(name)).await
    }

    /// Deletes what [`Self::try_set`] set; whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_delete(&self, name: &str) -> Result<bool, StoreError> {
        self.remove(&self.keys.trial(name)).await
    }

    /// Writes a record under a session's key with a lifetime, reads both and deletes it, in one step: no other client can
    /// count it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_session(&self, record: &Record, ttl: Duration) -> Result<Trial, StoreError> {
        let script = &self.scripts.trial;
        let json = record.to_json();
        let mut cmd = script.call(&[self.keys.session(&record.sid)]);
        cmd.arg(&json).arg(millis(ttl));
        let value = self.link.script(ConnectionClass::Requests, script, &cmd).await?;
        let mut answer = Reply::new(script.op, value)?;
        Ok(Trial {
            same: answer.text()? == json,
            ttl: super::millis_of(answer.value()?),
            cleaned: answer.number()? == 1 && answer.number()? == 0,
        })
    }

    /// Reads a session's record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self, sid: &Sid) -> Result<Option<Record>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.keys.session(sid));
        reply::record("load", self.run("load", &cmd).await?)
    }

    /// Which workers served the latest requests of a polling session; none, if it is no polling session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn served(&self, sid: &Sid) -> Result<Served, StoreError> {
        let op = "served";
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.poll(sid)).arg("ar").arg("done");
        let mut answer = Reply::new(op, self.run(op, &cmd).await?)?;
        let mut holder = || {
            let lease = reply::optional_text(op, answer.value()?)?;
            Ok(lease.and_then(|lease| lease.split(' ').next().map(str::to_owned)))
        };
        Ok(Served {
            get: holder()?,
            post: holder()?,
        })
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(key).arg(value).arg("PX").arg(millis(TRIAL_TTL));
        self.run("set", &cmd).await?;
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<Option<String>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(key);
        reply::optional_text("get", self.run("get", &cmd).await?)
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(key);
        Ok(reply::number("del", self.run("del", &cmd).await?)? == 1)
    }
}

/// How long an answer took; none if Redis takes no writes, and that in `unwritable`.
async fn took<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
    unwritable: &mut Option<StoreError>,
) -> Result<Option<Duration>, StoreError> {
    let start = Instant::now();
    match answer.await {
        Ok(_) => Ok(Some(start.elapsed())),
        Err(error @ StoreError::Unwritable { .. }) => {
            *unwritable = Some(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect()).unwrap();
        assert_eq!(spread.p50, Duration::from_millis(50));
        assert_eq!(spread.p99, Duration::from_millis(99));
        assert!(Spread::of(Vec::new()).is_none());
        let one = Spread::of(vec![Duration::from_millis(7)]).unwrap();
        assert_eq!(one.p99, Duration::from_millis(7));
    }
}
