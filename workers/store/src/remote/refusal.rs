//! What an error reply of Redis means. All callers ask here: the start of a worker, its requests, operator commands.

use crate::error::{StoreError, Unwritable};

/// What an error reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It serves no client now, and will again by itself.
    Away,
    /// It wants another user or password, or any at all.
    Login,
    /// It has reached its `maxmemory`.
    Memory,
    /// Only a person can help: a missing right, a database that is not there, a command that it does not know.
    Other,
    /// The script is to be loaded first.
    UnknownScript,
    /// It answers, and takes no writes.
    Unwritable(Unwritable),
}

/// Codes (the first word of a reply) of what passes: `src/server.c` and `src/cluster.c` of Redis, `shared.*err`.
const AWAY: [&str; 7] = [
    "BUSY",
    "CLUSTERDOWN",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "TRYAGAIN",
    "UNBLOCKED",
];
/// Texts of the same behind the code `ERR`. Redis: `acceptCommonHandler` in `src/networking.c`, which has a second text for a
/// cluster; Upstash: "Troubleshooting".
const CROWDED: [&str; 2] = ["max number of clients", "max concurrent connections"];
/// Texts behind the code `ERR` by which a Redis says that the login is wrong (`authCommand` in `src/acl.c`).
const LOGIN: [&str; 3] = [
    "invalid password",
    "without any password configured",
    "Client sent AUTH, but no password is set",
];

impl Refusal {
    /// Of the code of a reply and its whole text. Redis 6 wraps the error of a command in a script: then its code stands in
    /// the text, behind a minus sign.
    pub(super) fn of(code: Option<&str>, text: &str) -> Self {
        let says = |word: &str| code == Some(word) || text.contains(&format!("-{word} "));
        let tells = |texts: &[&str]| texts.iter().any(|part| text.contains(part));
        if code == Some("NOSCRIPT") {
            Self::UnknownScript
        } else if says("MISCONF") {
            Self::Unwritable(Unwritable::Disk)
        } else if says("READONLY") {
            Self::Unwritable(Unwritable::Replica)
        } else if says("NOREPLICAS") {
            Self::Unwritable(Unwritable::Replicas)
        } else if says("OOM") || text.contains("OOM command not allowed") {
            Self::Memory
        } else if says("NOAUTH") || says("WRONGPASS") || tells(&LOGIN) {
            Self::Login
        } else if AWAY.into_iter().any(says) || tells(&CROWDED) {
            Self::Away
        } else {
            Self::Other
        }
    }

    /// The same for a caller of the store.
    pub(super) fn error(self, op: &'static str, reason: String) -> StoreError {
        match self {
            Self::Away => StoreError::Unavailable { op, reason },
            Self::Login => StoreError::Unauthorized { op, reason },
            Self::Memory => StoreError::OutOfMemory { op },
            Self::Other | Self::UnknownScript => StoreError::Refused { op, reason },
            Self::Unwritable(by) => StoreError::Unwritable { op, by, reason },
        }
    }

    /// The connection is of no more use: Redis closes it, or the name may lead elsewhere after a failover.
    pub(super) const fn ends_connection(self) -> bool {
        matches!(self, Self::Away | Self::Unwritable(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cure;

    /// Replies as Redis writes them: code and text.
    fn of(reply: &str) -> Refusal {
        let code = reply.split(' ').next();
        Refusal::of(code, reply)
    }

    #[test]
    fn what_passes_is_waited_for() {
        for (reply, refusal) in [
            ("LOADING Redis is loading the dataset in memory", Refusal::Away),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                Refusal::Away,
            ),
            ("ERR max number of clients reached", Refusal::Away),
            ("ERR max number of clients + cluster connections reached", Refusal::Away),
            ("ERR max concurrent connections exceeded", Refusal::Away),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                Refusal::Away,
            ),
            ("CLUSTERDOWN The cluster is down", Refusal::Away),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Refusal::Away),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Refusal::Unwritable(Unwritable::Replicas),
            ),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                Refusal::Away,
            ),
            (
                "MISCONF Errors writing to the AOF file: No space left on device",
                Refusal::Unwritable(Unwritable::Disk),
            ),
            (
                "READONLY You can't write against a read only replica.",
                Refusal::Unwritable(Unwritable::Replica),
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Refusal::Memory,
            ),
            // A script of Redis 6.
            (
                "ERR Error running script (call to f_1): @user_script:7: @user_script: 7: -LOADING Redis is loading",
                Refusal::Away,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:7: @user_script: 7: -MISCONF Redis is configured to",
                Refusal::Unwritable(Unwritable::Disk),
            ),
            (
                "ERR Error running script (call to f_1): @user_script:7: @user_script: 7: -READONLY You can't write",
                Refusal::Unwritable(Unwritable::Replica),
            ),
            (
                "ERR Error running script (call to f_1): @user_script:7: @user_script: 7: -OOM command not allowed when",
                Refusal::Memory,
            ),
        ] {
            assert_eq!(of(reply), refusal, "{reply}");
            assert_eq!(of(reply).error("op", reply.to_owned()).cure(), Cure::Time, "{reply}");
        }
    }

    #[test]
    fn what_only_a_person_changes_is_not_waited_for() {
        for (reply, refusal) in [
            ("NOAUTH Authentication required.", Refusal::Login),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Refusal::Login,
            ),
            ("ERR invalid password", Refusal::Login),
            (
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
                Refusal::Login,
            ),
            (
                "NOPERM User bob has no permissions to run the 'eval' command",
                Refusal::Other,
            ),
            ("ERR DB index is out of range", Refusal::Other),
            ("ERR SELECT is not allowed in cluster mode", Refusal::Other),
            ("MOVED 3999 127.0.0.1:6381", Refusal::Other),
            ("CROSSSLOT Keys in request don't hash to the same slot", Refusal::Other),
            (
                "DENIED Redis is running in protected mode because protected mode is enabled",
                Refusal::Other,
            ),
            (
                "ERR unknown command 'EVALSHA', with args beginning with: ",
                Refusal::Other,
            ),
        ] {
            assert_eq!(of(reply), refusal, "{reply}");
            assert_eq!(of(reply).error("op", reply.to_owned()).cure(), Cure::Person, "{reply}");
        }
        assert_eq!(of("NOSCRIPT No matching script."), Refusal::UnknownScript);
        // Words of the list inside other words, or inside a text, are no codes.
        for reply in [
            "ERR LOADING",
            "BUSYKEY Target key name already exists.",
            "ERR A-BUSYBODY ",
        ] {
            assert_eq!(of(reply), Refusal::Other, "{reply}");
        }
    }
}
