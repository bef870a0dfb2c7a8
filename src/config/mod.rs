//! The configuration: defaults < `supervisor.toml` < `.env` < environment < flags.
//!
//! Each layer is read into one map of known keys ([`keys`]), then everything is checked once and
//! becomes a [`Config`] that cannot be wrong, or all [`Faults`] at once. The file is the one named
//! by `--config`, else `./supervisor.toml`, else `/etc/anyworker/supervisor.toml`, else none. The
//! `.env` is the one of the working directory, else the one beside the file. A key is set by the
//! environment as `ANYWORKER_<SECTION>__<KEY>`; the guide's `REDIS_URL`, `REDIS_DB` and
//! `REDIS_ENABLED` work too, and the former beats the latter where both stand in one place.
//!
//! Only [`files`] touches the file system; the rest is pure.

mod cross;
mod document;
mod dotenv;
mod endpoint;
mod faults;
mod files;
mod keys;
mod layers;
mod parse;
mod print;
mod redis_url;
mod resolve;
mod sections;
mod security;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use document::page;
pub(crate) use faults::Faults;
pub(crate) use files::{load, text_of};
#[cfg(test)]
pub(crate) use keys::RESTART;
pub(crate) use resolve::redis_bytes_min;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// `--config`: the file, which must exist then.
    pub(crate) file: Option<PathBuf>,
    /// The environment of the process.
    pub(crate) env: BTreeMap<String, String>,
    /// The flags.
    pub(crate) overrides: Overrides,
}

impl Sources {
    /// The flags that lead another process to the same configuration.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        if let Some(file) = &self.file {
            flag("--config", file.into());
        }
        for address in &self.overrides.listen {
            flag("--listen", address.into());
        }
        if let Some(workers) = self.overrides.workers {
            flag("--workers", workers.to_string().into());
        }
        if let Some(url) = &self.overrides.redis {
            flag("--redis", url.into());
        }
        arguments
    }
}

/// Flags that set keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// `--listen`, any number of times: `[listen] address`.
    pub(crate) listen: Vec<String>,
    /// `--redis`: `[redis] url`.
    pub(crate) redis: Option<String>,
    /// `--workers`: `[workers] count`.
    pub(crate) workers: Option<u16>,
}

/// A configuration that can work.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Addresses to listen on, each once; not empty.
    pub(crate) listen: Vec<SocketAddr>,
    /// `[listen] wait_ms`: how long a start waits for addresses that the host does not have yet.
    #[serde(default)]
    pub(crate) listen_wait: Duration,
    /// `[workers]`.
    pub(crate) workers: Workers,
    /// `[reload] soak_ms`: how long the first new worker of a reload must stay ready beside the old one.
    pub(crate) soak: Duration,
    /// Directory of the control socket and of that of the managed Redis; absolute. May not exist yet.
    pub(crate) runtime_directory: PathBuf,
    /// Directory of the files of the managed Redis; absolute. May not exist yet.
    pub(crate) redis_directory: PathBuf,
    /// `[redis] memory_bytes_max`: more the managed Redis does not take; 0 in what a build before this wrote.
    #[serde(default)]
    pub(crate) redis_bytes_max: u64,
    /// Whether the supervisor starts a Redis of its own, on the unix socket in `settings.redis`.
    pub(crate) managed_redis: bool,
    /// `[admin]`.
    #[serde(default)]
    pub(crate) admin: Admin,
    /// The settings that workers receive.
    pub(crate) settings: boot::Settings,
    /// The configuration file and the `.env` that were read.
    #[serde(default)]
    pub(crate) files: Vec<PathBuf>,
    /// What the operator should know although nothing is wrong; to be logged at start.
    pub(crate) notices: Vec<String>,
    /// See [`Config::masked_toml`].
    masked_toml: String,
}

/// `[admin] address`: where metrics and health are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admin {
    /// None: nowhere.
    pub(crate) address: Option<SocketAddr>,
    /// It was set explicitly: if it is taken, that is a fault.
    pub(crate) chosen: bool,
}

/// `[workers]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workers {
    /// `count`: workers to run; 1 without Redis.
    pub(crate) count: u16,
    /// `user`: the user that workers become when started as root.
    pub(crate) user: Option<String>,
    /// `grace_ms`: time that a draining worker has.
    pub(crate) grace: Duration,
    /// `pre_drain_ms`: the part of it in which a fleet that stops only says so.
    pub(crate) pre_drain: Duration,
    /// `max_age_ms`: age at which a worker is replaced; zero: never.
    pub(crate) max_age: Duration,
    /// `max_rss_bytes`: resident memory at which a worker is replaced; 0: never.
    pub(crate) max_rss_bytes: u64,
    /// `boot_timeout_ms`: time from spawn to ready.
    pub(crate) boot_timeout: Duration,
}

impl Config {
    /// The effective configuration as TOML, secrets masked, each value with its source; for
    /// `anyworker check`.
    pub(crate) fn masked_toml(&self) -> &str {
        &self.masked_toml
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked_toml)
    }
}
