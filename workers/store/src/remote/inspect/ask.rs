//! What Redis says about itself. Each of these may be forbidden or renamed away; then the error says so.

use super::super::reply::{self, Reply};
use super::Inspector;
use crate::error::StoreError;
use std::collections::BTreeMap;

/// What `INFO` answers: names and values of all its sections.
#[derive(Clone, Debug, Default)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// Reads an answer.
    pub(in crate::remote) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let fields = lines.filter_map(|line| line.split_once(':'));
        Self(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    /// The value of a field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a field that is a whole number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

/// What `HELLO` answers: which server is there. Available even where `INFO` is not.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// `redis` or `valkey`.
    pub server: String,
    /// Such as `7.0.15`.
    pub version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: String,
    /// `master` or `replica`.
    pub role: String,
}

impl Inspector {
    /// `INFO`.
    ///
    /// # Errors
    /// When it is renamed, forbidden, or there is no Redis.
    pub async fn info(&self) -> Result<Info, StoreError> {
        let value = self.run("info", &redis::cmd("INFO")).await?;
        Ok(Info::parse(&reply::text("info", value)?))
    }

    /// `CONFIG GET`: the values of some settings by name; those that this Redis does not know are missing.
    ///
    /// # Errors
    /// When it is renamed, forbidden, or there is no Redis.
    pub async fn settings(&self, names: &[&str]) -> Result<BTreeMap<String, String>, StoreError> {
        let op = "config";
        let mut settings = BTreeMap::new();
        // Redis before 7.0 takes one name at a time.
        for name in names {
            let mut cmd = redis::cmd("CONFIG");
            cmd.arg("GET").arg(name);
            let mut answer = Reply::new(op, self.run(op, &cmd).await?)?;
            while !answer.is_empty() {
                settings.insert(answer.text()?, answer.text()?);
            }
        }
        Ok(settings)
    }

    /// `HELLO`.
    ///
    /// # Errors
    /// When it is renamed, forbidden, or there is no Redis.
    pub async fn greeting(&self) -> Result<Greeting, StoreError> {
        let op = "hello";
        let mut cmd = redis::cmd("HELLO");
        cmd.arg(2);
        let mut answer = Reply::new(op, self.run(op, &cmd).await?)?;
        let mut greeting = Greeting::unknown();
        while !answer.is_empty() {
            let (name, value) = (answer.text()?, answer.value()?);
            let field = match name.as_str() {
                "server" => &mut greeting.server,
                "version" => &mut greeting.version,
                "mode" => &mut greeting.mode,
                "role" => &mut greeting.role,
                _ => continue,
            };
            *field = reply::text(op, value)?;
        }
        Ok(greeting)
    }

    /// How many workers, of all machines, are subscribed to the log.
    ///
    /// # Errors
    /// When `PUBSUB` is renamed or forbidden, or there is no Redis.
    pub async fn tailers(&self) -> Result<u64, StoreError> {
        let op = "pubsub";
        let mut cmd = redis::cmd("PUBSUB");
        cmd.arg("NUMSUB").arg(self.keys.log_channel());
        let mut answer = Reply::new(op, self.run(op, &cmd).await?)?;
        let _channel = answer.text()?;
        answer.number()
    }
}

impl Greeting {
    fn unknown() -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            server: unknown(),
            version: unknown(),
            mode: unknown(),
            role: unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_info_are_found() {
        let info = Info::parse("# Server\r\nredis_version:7.0.15\r\n\r\n# Stats\r\nevicted_keys:3\r\n");
        assert_eq!(info.text("redis_version"), Some("7.0.15"));
        assert_eq!(info.number("evicted_keys"), Some(3));
        assert_eq!(info.number("redis_version"), None);
        assert_eq!(info.text("# Server"), None);
    }
}
