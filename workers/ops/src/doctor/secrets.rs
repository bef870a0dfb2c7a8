//! Passwords, and what the configuration gives away.

use super::findings::Findings;
use super::root::Root;
use crate::fleet::Fleet;
use crate::{Context, StatusError};
use std::collections::BTreeSet;

/// Passwords of guides and examples: everybody knows them.
const KNOWN: [&str; 14] = [
    "YourVeryStrong!Redis@Password#2024",
    "admin",
    "changeme",
    "change_me",
    "default",
    "foobared",
    "hunter2",
    "password",
    "redis",
    "secret",
    "your_password",
    "your_redis_password",
    "your_secure_redis_password",
    "yourpassword",
];
/// Words that real secrets do not contain.
const TELLTALES: [&str; 6] = ["changeme", "example", "passw0rd", "password", "qwerty", "your_"];
/// Fewest characters that cannot be tried out.
const LENGTH_MIN: usize = 16;
/// Fewest different characters of a random one of that length.
const DIFFERENT_MIN: usize = 7;
const RANDOM: &str = "take what `openssl rand -hex 32` prints";

pub(super) fn examine(context: &Context, fleet: Result<&Fleet, &StatusError>, root: &Root, findings: &mut Findings) {
    let redis = context
        .redis
        .as_ref()
        .and_then(|redis| redis.options.password.as_deref());
    match redis {
        Some(password) => secret(
            "secrets.redis_password",
            "the password of redis.url",
            password,
            findings,
        ),
        None => findings.pass("secrets.redis_password", "redis.url holds none"),
    }
    match &context.emit_secret {
        Some(emit) => secret("secrets.emit_secret", "emit.secret", emit, findings),
        None => findings.pass("secrets.emit_secret", "none: there is no POST /api/emit"),
    }
    config(context, findings);
    user(context, fleet, root, findings);
}

fn secret(check: &'static str, what: &str, text: &str, findings: &mut Findings) {
    match weakness(text) {
        Weakness::None => findings.pass(check, format!("{what} has {} characters", text.chars().count())),
        Weakness::Known => findings.fail(check, format!("{what} stands in guides and examples"), RANDOM),
        Weakness::Guessable(why) => findings.warn(check, format!("{what} {why}"), RANDOM),
    }
}

enum Weakness {
    None,
    Known,
    Guessable(String),
}

fn weakness(text: &str) -> Weakness {
    let lower = text.to_lowercase();
    if KNOWN.iter().any(|known| known.to_lowercase() == lower) {
        return Weakness::Known;
    }
    let length = text.chars().count();
    if length < LENGTH_MIN {
        return Weakness::Guessable(format!(
            "has {length} characters: fewer than {LENGTH_MIN} can be tried out"
        ));
    }
    let different: BTreeSet<char> = text.chars().collect();
    if different.len() < DIFFERENT_MIN {
        return Weakness::Guessable(format!("has only {} different characters", different.len()));
    }
    match TELLTALES.iter().find(|word| lower.contains(**word)) {
        Some(word) => Weakness::Guessable(format!("contains {word:?}")),
        None => Weakness::None,
    }
}

/// What the configuration knows about itself, but for what is looked at more closely elsewhere.
fn config(context: &Context, findings: &mut Findings) {
    for security in &context.security {
        let (check, breaks) = match security.name.as_str() {
            "config_not_world_readable" => ("config.not_world_readable", true),
            "credentials_safe" => ("config.credentials_safe", true),
            "origins_restricted" => ("config.origins_restricted", false),
            "redis_private" => ("config.redis_private", true),
            "runtime_directory_private" => ("config.runtime_directory_private", true),
            _ => continue,
        };
        let (evidence, remedy) = security.reason.split_once("; ").unwrap_or((&security.reason, ""));
        if security.passed {
            findings.pass(check, "so is the configuration (`anyworker check`)");
        } else if breaks {
            findings.fail(check, evidence, remedy);
        } else {
            findings.warn(check, evidence, remedy);
        }
    }
}

/// The user that the workers run as.
fn user(context: &Context, fleet: Result<&Fleet, &StatusError>, root: &Root, findings: &mut Findings) {
    const CHECK: &str = "config.not_root";
    let remedy = "set workers.user, or start anyworker as another user";
    let fleet = match fleet {
        Ok(fleet) => fleet,
        Err(error) => return findings.unseen(CHECK, error.to_string()),
    };
    let Some(pid) = fleet.workers.iter().find_map(|worker| worker.pid) else {
        return findings.unseen(CHECK, "no worker runs");
    };
    let path = format!("/proc/{pid}/status");
    let uid = root.read(&path).map(|text| {
        let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"));
        ids.and_then(|ids| ids.split_whitespace().nth(1)?.parse::<u32>().ok())
    });
    let named = context
        .security
        .iter()
        .any(|security| security.name == "not_root" && !security.passed);
    match uid {
        Ok(Some(0)) => {
            let why = if named {
                ""
            } else {
                "; workers.user is another: a restart is due"
            };
            findings.warn(CHECK, format!("worker {pid} runs as root ({path}){why}"), remedy);
        }
        Ok(Some(uid)) => findings.pass(CHECK, format!("worker {pid} runs as user {uid} ({path})")),
        Ok(None) => findings.unseen(CHECK, format!("{path} does not tell whose it is")),
        Err(why) => findings.unseen(CHECK, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_guessed_is_found() {
        assert!(matches!(
            weakness("YourVeryStrong!Redis@Password#2024"),
            Weakness::Known
        ));
        assert!(matches!(weakness("Foobared"), Weakness::Known));
        assert!(matches!(weakness("k3!x"), Weakness::Guessable(_)));
        assert!(matches!(weakness("aaaaaaaaaaaaaaaaaaaaaaaa"), Weakness::Guessable(_)));
        assert!(matches!(weakness("my-password-of-2024-x"), Weakness::Guessable(_)));
        assert!(matches!(weakness("b1946ac92492d2347c6235b4d2611184"), Weakness::None));
    }
}
