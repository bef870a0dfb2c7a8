//! What can be known about Redis, and from where: what it says of itself (`INFO`, `CONFIG GET`, `HELLO`, each of which
//! may be gone), its configuration file, and what it lets the workers' user do.

use super::root::Root;
use crate::Redis;
use std::collections::BTreeMap;
use std::net::IpAddr;
use store::{Endpoint, Greeting, Info, Inspector, Latency, Rights, StoreError};

/// How often each command is measured.
const LATENCY_ROUNDS: usize = 50;
/// Settings that checks look at.
const SETTINGS: [&str; 10] = [
    "appendfsync",
    "appendonly",
    "bind",
    "client-output-buffer-limit",
    "maxclients",
    "maxmemory",
    "maxmemory-policy",
    "port",
    "protected-mode",
    "save",
];
/// What a setting is when the configuration file says nothing.
const DEFAULTS: [(&str, &str); 8] = [
    ("appendfsync", "everysec"),
    ("appendonly", "no"),
    ("client-output-buffer-limit", "pubsub 32mb 8mb 60"),
    ("maxclients", "10000"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("port", "6379"),
    ("protected-mode", "yes"),
];
/// Where packages put the configuration.
const FILES: [&str; 3] = ["/etc/redis/redis.conf", "/etc/valkey/valkey.conf", "/etc/redis.conf"];

/// Everything that could be asked.
pub(super) struct Evidence {
    /// Why Redis does not answer at all.
    pub(super) down: Option<StoreError>,
    /// Why it takes no writes, though it answers.
    pub(super) unwritable: Option<StoreError>,
    pub(super) info: Result<Info, String>,
    pub(super) greeting: Result<Greeting, String>,
    pub(super) rights: Result<Rights, String>,
    /// Whether it accepts every client.
    pub(super) open: Result<bool, String>,
    pub(super) latency: Result<Latency, String>,
    config: Result<BTreeMap<String, String>, String>,
    file: Result<ConfigFile, String>,
}

/// A configuration file of Redis.
struct ConfigFile {
    path: String,
    settings: BTreeMap<String, String>,
}

/// A value, and where it was seen.
pub(super) struct Seen {
    pub(super) value: String,
    pub(super) from: String,
}

impl Evidence {
    pub(super) async fn gather(redis: &Redis, root: &Root) -> Self {
        match ask(redis, root).await {
            Ok(evidence) => evidence,
            Err(error) => {
                let why = "Redis does not answer".to_owned();
                Self {
                    down: Some(error),
                    unwritable: None,
                    info: Err(why.clone()),
                    greeting: Err(why.clone()),
                    rights: Err(why.clone()),
                    open: Err(why.clone()),
                    latency: Err(why.clone()),
                    config: Err(why),
                    file: ConfigFile::find(redis, None, root),
                }
            }
        }
    }

    /// A setting of Redis: as it is, or as the file says that it was when Redis was started.
    ///
    /// # Errors
    /// Why neither can be seen.
    pub(super) fn setting(&self, name: &str) -> Result<Seen, String> {
        let config = match &self.config {
            Ok(config) => match config.get(name) {
                Some(value) => {
                    return Ok(Seen {
                        value: value.clone(),
                        from: format!("CONFIG GET {name}"),
                    });
                }
                None => format!("CONFIG GET {name}: this Redis does not know it"),
            },
            Err(error) => error.clone(),
        };
        match &self.file {
            Ok(file) => {
                let default = DEFAULTS
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| *value);
                match file.settings.get(name).map(String::as_str).or(default) {
                    Some(value) => Ok(Seen {
                        value: value.to_owned(),
                        from: file.path.clone(),
                    }),
                    None => Err(format!("{config}; {} says nothing", file.path)),
                }
            }
            Err(error) => Err(both(&config, error)),
        }
    }

    /// The version of Redis, and which command told it.
    ///
    /// # Errors
    /// Why none did.
    pub(super) fn version(&self) -> Result<(&str, &'static str), String> {
        let said = self.info("redis_version").map(|version| (version, "INFO"));
        said.or_else(|why| match &self.greeting {
            Ok(greeting) => Ok((&greeting.version, "HELLO")),
            Err(error) => Err(both(&why, error)),
        })
    }

    /// A field of `INFO`.
    pub(super) fn info(&self, name: &str) -> Result<&str, String> {
        match &self.info {
            Ok(info) => info.text(name).ok_or_else(|| format!("INFO has no {name}")),
            Err(error) => Err(error.clone()),
        }
    }
}

/// Two reasons; one, if they are the same.
pub(super) fn both(one: &str, other: &str) -> String {
    if one == other {
        one.to_owned()
    } else {
        format!("{one}; {other}")
    }
}

async fn ask(redis: &Redis, root: &Root) -> Result<Evidence, StoreError> {
    fn words<T>(answer: Result<T, StoreError>) -> Result<T, String> {
        answer.map_err(|error| error.to_string())
    }
    let inspector: Inspector = redis.inspector()?;
    // A Redis that cannot write to its disk refuses even that, and answers all else.
    let refused = match inspector.ping().await {
        Ok(_) => None,
        Err(error @ StoreError::Unwritable { .. }) => Some(error),
        Err(error) => return Err(error),
    };
    let latency = inspector.latency(LATENCY_ROUNDS).await;
    let info = words(inspector.info().await);
    let named = info
        .as_ref()
        .ok()
        .map(|info| info.text("config_file").unwrap_or_default());
    Ok(Evidence {
        down: None,
        unwritable: refused.or_else(|| latency.as_ref().ok()?.unwritable.clone()),
        file: ConfigFile::find(redis, named, root),
        greeting: words(inspector.greeting().await),
        rights: words(inspector.rights(&redis.ingest).await),
        open: words(inspector.is_open().await),
        latency: words(latency),
        config: words(inspector.settings(&SETTINGS).await),
        info,
    })
}

/// Whether Redis runs on this machine.
pub(super) fn is_local(redis: &Redis) -> bool {
    match &redis.options.endpoint {
        Endpoint::Unix { .. } => true,
        Endpoint::Tcp { host, .. } | Endpoint::Tls { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

impl ConfigFile {
    /// The file that Redis names, or the usual one, if it is about this Redis.
    fn find(redis: &Redis, named: Option<&str>, root: &Root) -> Result<Self, String> {
        if redis.managed {
            return Err("the managed Redis has no configuration file".to_owned());
        }
        if !is_local(redis) {
            return Err("Redis runs on another machine".to_owned());
        }
        match named {
            Some("") => Err("this Redis has no configuration file".to_owned()),
            Some(path) => Self::read(path, root),
            None => {
                let mut why = "no configuration file at the usual places".to_owned();
                for path in FILES.into_iter().filter(|path| root.has(path)) {
                    match Self::read(path, root) {
                        Ok(file) if file.is_of(redis) => return Ok(file),
                        Ok(file) => why = format!("{} is about another Redis", file.path),
                        Err(error) => why = error,
                    }
                }
                Err(why)
            }
        }
    }

    fn read(path: &str, root: &Root) -> Result<Self, String> {
        Ok(Self {
            path: path.to_owned(),
            settings: parse(&root.read(path)?),
        })
    }

    /// Whether the Redis that listens there has been configured by this file.
    fn is_of(&self, redis: &Redis) -> bool {
        let value = |name: &str| self.settings.get(name).map(String::as_str);
        match &redis.options.endpoint {
            Endpoint::Unix { path } => value("unixsocket") == path.to_str(),
            Endpoint::Tcp { port, .. } => value("port").unwrap_or("6379") == port.to_string(),
            Endpoint::Tls { port, .. } => value("tls-port") == Some(port.to_string().as_str()),
        }
    }
}

/// Settings by name; of those that are there several times the latest, but of the output buffers that of pub/sub.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let name = name.to_ascii_lowercase();
        // Redis takes what follows a `#` inside a line for a value; so do its users' comments end up in `bind`.
        let value = value.trim().trim_matches('"').trim_matches('\'');
        if name != "client-output-buffer-limit" || value.starts_with("pubsub") {
            settings.insert(name, value.to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_redis_is_read() {
        let text = "# comment\nBIND 127.0.0.1 ::1\nmaxmemory 256mb\nmaxmemory 512mb\nrequirepass \"a b\"\n\
                    client-output-buffer-limit pubsub 1mb 1mb 10\nclient-output-buffer-limit normal 0 0 0\nsave";
        let settings = parse(text);
        let value = |name: &str| settings.get(name).map(String::as_str);
        assert_eq!(value("bind"), Some("127.0.0.1 ::1"));
        assert_eq!(value("maxmemory"), Some("512mb"));
        assert_eq!(value("requirepass"), Some("a b"));
        assert_eq!(value("client-output-buffer-limit"), Some("pubsub 1mb 1mb 10"));
        assert_eq!(value("save"), None);
    }
}
