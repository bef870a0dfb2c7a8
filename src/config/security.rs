//! What `security_validated` of `/api/ready` means: each of these checks passed.
//!
//! | check | passes when |
//! |---|---|
//! | `not_root` | workers do not run as root: `workers.user` is another, or root did not start us |
//! | `origins_restricted` | `http.origins` is not `"*"` |
//! | `credentials_safe` | `http.credentials` is off, or every origin is `https://` or this machine |
//! | `redis_private` | Redis is reached by unix socket, on this machine, or by TLS |
//! | `redis_password` | Redis needs a password, or only this machine reaches it |
//! | `config_not_world_readable` | no file with the Redis password is readable by every user |
//! | `runtime_directory_private` | others cannot write there (where the control socket and Redis are) |

use super::Workers;
use super::resolve::Facts;
use super::values::Source;
use boot::{Origins, RedisEndpoint, Settings};
use std::path::Path;

/// One check.
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) passed: bool,
    /// Why it did not, or would not, pass, and the remedy.
    reason: String,
}

impl Finding {
    /// For the log, if the check did not pass.
    pub(super) fn notice(&self) -> Option<String> {
        (!self.passed).then(|| format!("security: {} is false: {}", self.name, self.reason))
    }
}

/// Places where others might look.
pub(super) struct Exposed<'a> {
    pub(super) runtime_directory: &'a Path,
    /// Configuration files that every user may read.
    pub(super) public_files: &'a [&'a Path],
    /// Where the Redis URL came from.
    pub(super) redis_source: Source,
}

/// Runs every check that applies.
pub(super) fn findings(
    settings: &Settings,
    managed_redis: bool,
    workers: &Workers,
    facts: &Facts<'_>,
    exposed: &Exposed<'_>,
) -> Vec<Finding> {
    let user_is_root = workers
        .user
        .as_deref()
        .is_none_or(|name| (facts.uid_of)(name).is_none_or(|uid| uid == 0));
    let directory = exposed.runtime_directory;
    let mut findings = vec![
        Finding {
            name: "not_root",
            passed: facts.euid != 0 || !user_is_root,
            reason: "workers run as root; set workers.user, or start as another user".to_owned(),
        },
        Finding {
            name: "origins_restricted",
            passed: settings.http.origins != Origins::Any,
            reason: "http.origins is \"*\"; list the origins".to_owned(),
        },
        Finding {
            name: "credentials_safe",
            passed: !settings.http.credentials || origins_trusted(&settings.http.origins),
            reason: "http.credentials with an http:// origin; use https://".to_owned(),
        },
        Finding {
            name: "runtime_directory_private",
            passed: (facts.is_private)(directory),
            reason: format!("another user owns {}, or may write there", directory.display()),
        },
    ];
    let Some(redis) = &settings.redis else { return findings };
    let (local, tls) = match &redis.endpoint {
        RedisEndpoint::Tcp { host, .. } => (is_loopback(host), false),
        RedisEndpoint::Tls { host, .. } => (is_loopback(host), true),
        RedisEndpoint::Unix { .. } => (true, false),
    };
    let public = match &exposed.redis_source {
        Source::File(path) | Source::DotEnv { path, .. } => exposed.public_files.contains(&path.as_path()),
        Source::Default | Source::Env(_) | Source::Flag(_) => false,
    };
    findings.extend([
        Finding {
            name: "redis_private",
            passed: local || tls,
            reason: "Redis is reached over the network without TLS; use rediss://".to_owned(),
        },
        Finding {
            name: "redis_password",
            passed: managed_redis || local || redis.password.is_some(),
            reason: "Redis is reached over the network without a password".to_owned(),
        },
        Finding {
            name: "config_not_world_readable",
            passed: !(public && redis.password.is_some()),
            reason: format!(
                "{} holds the Redis password and anybody may read it; chmod o-r",
                exposed.redis_source
            ),
        },
    ]);
    findings
}

fn origins_trusted(origins: &Origins) -> bool {
    match origins {
        Origins::Any => false,
        Origins::Only(origins) => origins.iter().all(|origin| {
            let plain = origin.strip_prefix("http://");
            plain.is_none_or(|rest| is_loopback(host_of(rest)))
        }),
        Origins::SameOrigin => true,
    }
}

/// `localhost:80` → `localhost`, `[::1]:80` → `::1`.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
