//! What a generation is made of: a checked configuration and a binary.

use crate::config::{self, Config, Sources};
use crate::fleet::Policy;
use crate::sys::spawn::Binary;
use crate::sys::user::{self, Identity};
use std::path::Path;

/// A generation that can be spawned from.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) config: Config,
    pub(crate) binary: Binary,
    /// The user that its workers become.
    pub(crate) identity: Option<Identity>,
}

impl Spec {
    /// Reads everything again, with the binary that is on disk now; or returns every fault, one per line.
    pub(crate) fn load(sources: &Sources, binary: &Path) -> Result<Self, Vec<String>> {
        let config = config::load(sources).map_err(|faults| faults.lines().collect::<Vec<_>>())?;
        let identity = user::resolve(config.workers.user.as_deref()).map_err(|error| vec![error.to_string()])?;
        let binary = Binary::open(binary).map_err(|error| {
            vec![format!(
                "binary: {}: {error}; install it again, or restart",
                binary.display()
            )]
        })?;
        Ok(Self {
            config,
            binary,
            identity,
        })
    }

    /// What it says about the fleet.
    pub(crate) fn policy(&self) -> Policy {
        let workers = &self.config.workers;
        Policy {
            workers: workers.count,
            grace: workers.grace,
            boot_timeout: workers.boot_timeout,
            soak: self.config.soak,
            notice: workers.pre_drain,
            max_age: workers.max_age,
            max_rss_bytes: workers.max_rss_bytes,
        }
    }

    /// What a reload cannot change, with what to do instead.
    pub(crate) fn unreloadable(&self, next: &Self) -> Vec<String> {
        let mut faults = self.lost_files(next);
        let mut compare = |key: &str, now: String, then: String| {
            if now != then {
                faults.push(format!("{key}: a change from {now} to {then} needs a restart"));
            }
        };
        let (old, new) = (&self.config, &next.config);
        compare(
            "listen.address",
            format!("{:?}", old.listen),
            format!("{:?}", new.listen),
        );
        compare(
            "runtime.directory",
            old.runtime_directory.display().to_string(),
            new.runtime_directory.display().to_string(),
        );
        compare(
            "redis.managed",
            old.managed_redis.to_string(),
            new.managed_redis.to_string(),
        );
        if old.managed_redis {
            compare(
                "redis.directory",
                old.redis_directory.display().to_string(),
                new.redis_directory.display().to_string(),
            );
            compare(
                "workers.user",
                name(self.identity.as_ref()),
                name(next.identity.as_ref()),
            );
        }
        faults
    }

    /// Files that the configuration in force came from and the next one does not: what they set would become the
    /// defaults, unnoticed.
    fn lost_files(&self, next: &Self) -> Vec<String> {
        let lost = self
            .config
            .files
            .iter()
            .filter(|file| !next.config.files.contains(file));
        lost.map(|file| {
            format!(
                "{}: the configuration in force came from it, and it is gone or another one is read instead; put it back, \
                 or restart",
                file.display()
            )
        })
        .collect()
    }
}

fn name(identity: Option<&Identity>) -> String {
    identity.map_or_else(
        || "the supervisor's own user".to_owned(),
        |identity| format!("uid {}", identity.uid),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RESTART;

    #[test]
    fn what_cannot_be_reloaded_is_documented() {
        let directory = tempfile::tempdir().unwrap();
        let spec = |text: &str, identity| {
            let file = directory.path().join("supervisor.toml");
            std::fs::write(&file, text).unwrap();
            let sources = Sources {
                file: Some(file),
                ..Sources::default()
            };
            Spec {
                config: config::load(&sources).unwrap(),
                binary: Binary::open(Path::new("/proc/self/exe")).unwrap(),
                identity,
            }
        };
        let identity = Some(Identity {
            uid: nix::unistd::Uid::from_raw(1),
            gid: nix::unistd::Gid::from_raw(1),
            groups: Vec::new(),
        });
        let old = spec("listen.address = ':1'\nruntime.directory = '/a'", None);
        let new = "listen.address = ':2'\nruntime.directory = '/b'\nredis.url = 'redis://h'\nlogging.level = 'warn'";
        let faults = old.unreloadable(&spec(new, identity));
        let named: Vec<&str> = faults
            .iter()
            .filter_map(|fault| Some(fault.split_once(':')?.0))
            .collect();
        assert_eq!(named, RESTART.map(|(key, _)| key));
        assert!(old.unreloadable(&old).is_empty());
        // `.env`, or the usual file, is not read because it is gone.
        let mut later = spec("listen.address = ':1'\nruntime.directory = '/a'", None);
        later.config.files.clear();
        let faults = old.unreloadable(&later);
        assert!(
            faults.len() == old.config.files.len() && faults[0].contains("it is gone"),
            "{faults:?}"
        );
        assert!(later.unreloadable(&old).is_empty());
    }
}
