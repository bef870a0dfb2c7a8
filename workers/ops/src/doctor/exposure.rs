//! Who can reach Redis, and what they could do there.

use super::evidence::{Evidence, both, is_local};
use super::findings::Findings;
use super::root::Root;
use crate::Redis;
use crate::fleet::Fleet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use store::{Endpoint, Rights, Speaks, StoreError, redis_major};

/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Permission bits of group and others.
const FOR_OTHERS: u32 = 0o077;

/// Whether others than this machine's processes can reach it.
enum Reach {
    /// No TCP port at all.
    Socket,
    Loopback(String),
    Network(String),
    /// It runs on another machine.
    Remote,
    Unknown(String),
}

/// Words of a Redis that answers, and serves later: it loads its data, runs a script, or waits for its master.
const PASSING: [&str; 6] = [
    "LOADING",
    "loading the dataset",
    "BUSY",
    "busy running a script",
    "MASTERDOWN",
    "MASTER is down",
];
/// Words of a Redis without room for one more client.
const CROWDED: [&str; 2] = ["max number of clients", "max concurrent connections"];

/// What helps against an answer to PING that is none.
fn way_in(redis: &Redis, is_running: bool, error: &StoreError) -> String {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if matches!(error, StoreError::Unauthorized { .. }) || says(&["NOPERM"]) {
        "it is there, and wants another user or password: set them in redis.url (or REDIS_URL)".to_owned()
    } else if let StoreError::NotRedis { speaks, .. } = error {
        match speaks {
            Speaks::Other => "set redis.url (or REDIS_URL) to where Redis listens. `ss -ltnp` shows who listens where",
            Speaks::Plain | Speaks::Tls => "correct redis.url (or REDIS_URL)",
        }
        .to_owned()
    } else if says(&["Permission denied", "permission denied"]) {
        "this user may not ask it: run this command as root (sudo), or as the user of anyworker (sudo -u USER)"
            .to_owned()
    } else if says(&PASSING) {
        "it is there and answers, and serves again by itself: wait, and see its log for how long it takes".to_owned()
    } else if says(&CROWDED) {
        "it is there, and has as many clients as it may have: raise maxclients, or end clients that are not needed \
         (`CLIENT LIST`)"
            .to_owned()
    } else if redis.managed && is_running {
        "the supervisor runs and starts it again by itself; if it does not come back, see redis.log in redis.directory: \
         docs/operate.md, \"Redis does not start\""
            .to_owned()
    } else if redis.managed {
        "start the fleet (`anyworker run`); if it runs as another user, ask as that user (sudo -u USER) or as root. Or see \
         redis.log in redis.directory: docs/operate.md, \"Redis does not start\""
            .to_owned()
    } else {
        format!(
            "is it there? `redis-cli -u {} ping`, `systemctl status redis-server`",
            redis.url
        )
    }
}

pub(super) fn examine(redis: &Redis, fleet: Option<&Fleet>, evidence: &Evidence, root: &Root, findings: &mut Findings) {
    if let Some(error) = &evidence.down {
        let mut seen = format!("{}: {error}", redis.url);
        if let Some(managed) = fleet.and_then(|fleet| fleet.supervisor.redis.as_ref()) {
            seen += &format!("; {}", managed.told());
        }
        findings.fail("redis.reachable", seen, way_in(redis, fleet.is_some(), error));
    } else {
        findings.pass("redis.reachable", format!("{} answers", redis.url));
    }
    let reach = reach(redis, evidence, root);
    bind(&reach, evidence, findings);
    protected_mode(&reach, evidence, findings);
    password(&reach, redis, evidence, findings);
    match &evidence.rights {
        Ok(rights) => commands(&reach, redis, rights, findings),
        Err(error) => {
            findings.unseen("redis.dangerous_commands", format!("not tried: {error}"));
            findings.unseen("redis.permissions", format!("not tried: {error}"));
        }
    }
}

fn reach(redis: &Redis, evidence: &Evidence, root: &Root) -> Reach {
    if !is_local(redis) {
        return Reach::Remote;
    }
    let port = match &redis.options.endpoint {
        Endpoint::Tcp { port, .. } | Endpoint::Tls { port, .. } => Ok(*port),
        Endpoint::Unix { .. } => {
            let said = evidence.info("tcp_port").map(str::to_owned);
            let port = said.or_else(|_| evidence.setting("port").map(|seen| seen.value));
            match port.and_then(|port| port.parse().map_err(|_| format!("port {port:?}"))) {
                Ok(0) => return Reach::Socket,
                other => other,
            }
        }
    };
    let port: u16 = match port {
        Ok(port) => port,
        Err(error) => return Reach::Unknown(error),
    };
    match listeners(root, port) {
        Ok(addresses) if addresses.is_empty() => {
            Reach::Unknown(format!("/proc/net/tcp shows no listener of port {port}"))
        }
        Ok(addresses) => {
            let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let shown = format!("port {port} is open on {} (/proc/net/tcp)", shown.join(", "));
            if addresses.iter().all(IpAddr::is_loopback) {
                Reach::Loopback(shown)
            } else {
                Reach::Network(shown)
            }
        }
        Err(error) => Reach::Unknown(error),
    }
}

/// Whether other users may look into the directory of the managed Redis: the append-only file has what clients say.
pub(super) fn directory(redis: &Redis, findings: &mut Findings) {
    const CHECK: &str = "redis.directory_private";
    let Some(directory) = &redis.directory else { return };
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Ok(found) if found.permissions().mode() & FOR_OTHERS == 0 => {
            findings.pass(CHECK, format!("{shown} is its owner's alone"));
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o7777;
            findings.fail(
                CHECK,
                format!("{shown} has mode {mode:04o}: other users may read what clients say"),
                format!("chmod 700 {shown}"),
            );
        }
        Err(error) => findings.unseen(CHECK, format!("{shown}: {error}")),
    }
}

/// Addresses on which a port is listened to.
fn listeners(root: &Root, port: u16) -> Result<BTreeSet<IpAddr>, String> {
    let mut found = parse_listeners(&root.read("/proc/net/tcp")?, port);
    // Without IPv6 there is no such file.
    found.extend(
        root.read("/proc/net/tcp6")
            .iter()
            .flat_map(|text| parse_listeners(text, port)),
    );
    Ok(found)
}

fn parse_listeners(text: &str, port: u16) -> BTreeSet<IpAddr> {
    let rows = text.lines().skip(1).filter_map(|row| {
        let mut fields = row.split_whitespace().skip(1);
        let (address, hex_port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        let listens = state == LISTEN && u16::from_str_radix(hex_port, 16) == Ok(port);
        listens.then(|| parse_address(address)).flatten()
    });
    rows.collect()
}

/// Words of 32 bits in the byte order of the machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let words = (0..hex.len()).step_by(8).map(|from| {
        let word = u32::from_str_radix(hex.get(from..from + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

fn bind(reach: &Reach, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.bind";
    match reach {
        Reach::Socket => findings.pass(CHECK, "no TCP port: a unix socket only"),
        Reach::Loopback(shown) => findings.pass(CHECK, shown),
        Reach::Network(shown) => {
            let remedy = "in redis.conf: bind 127.0.0.1 ::1\n\
                          or, if others need it: a firewall, TLS (tls-port, redis.url = \"rediss://…\") and a password";
            findings.warn(CHECK, format!("{shown}: other machines reach it"), remedy);
        }
        Reach::Remote => findings.unseen(CHECK, "Redis runs on another machine: run this there too"),
        Reach::Unknown(why) => match evidence.setting("bind") {
            Ok(seen) => findings.unseen(CHECK, format!("{why}; {} says {:?}", seen.from, seen.value)),
            Err(error) => findings.unseen(CHECK, both(why, &error)),
        },
    }
}

fn protected_mode(reach: &Reach, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.protected_mode";
    if matches!(reach, Reach::Socket) {
        return findings.pass(CHECK, "not needed: no TCP port");
    }
    match evidence.setting("protected-mode") {
        Ok(seen) if seen.value == "no" => {
            let remedy = "redis-cli CONFIG SET protected-mode yes; in redis.conf: protected-mode yes";
            let evidence = format!("protected-mode is no ({})", seen.from);
            findings.warn(CHECK, evidence, remedy);
        }
        Ok(seen) => findings.pass(CHECK, format!("protected-mode is {} ({})", seen.value, seen.from)),
        Err(why) => findings.unseen(CHECK, why),
    }
}

fn password(reach: &Reach, redis: &Redis, evidence: &Evidence, findings: &mut Findings) {
    const CHECK: &str = "redis.password";
    let remedy = "in redis.conf: requirepass, with what `openssl rand -hex 32` prints\n\
                  then redis.url = \"redis://:PASSWORD@HOST:PORT\" in supervisor.toml, and `anyworker reload --wait`";
    match (&evidence.open, reach) {
        (Ok(false), _) => findings.pass(CHECK, "a connection without a password is refused"),
        (Ok(true), Reach::Socket) => findings.pass(CHECK, "none needed: the unix socket's owner alone gets in"),
        (Ok(true), Reach::Loopback(_)) => {
            findings.pass(
                CHECK,
                "none needed, and no other machine reaches it; every user of this one does",
            );
        }
        (Ok(true), Reach::Network(_) | Reach::Unknown(_)) if is_guarded(redis, evidence) => {
            findings.pass(
                CHECK,
                "none needed: protected-mode refuses other machines; every user of this one gets in",
            );
        }
        (Ok(true), Reach::Network(_) | Reach::Remote | Reach::Unknown(_)) => {
            let evidence = format!("{} accepts every client without a password", redis.url);
            findings.fail(CHECK, evidence, remedy);
        }
        (Err(why), _) => findings.unseen(CHECK, why),
    }
}

/// Whether Redis itself, on this machine, refuses clients from another one without a password. Before 7.0 it did so only if
/// its configuration had no `bind`.
fn is_guarded(redis: &Redis, evidence: &Evidence) -> bool {
    let major = evidence.version().ok().and_then(|(version, _)| redis_major(version));
    let is_on = evidence.setting("protected-mode").is_ok_and(|seen| seen.value == "yes");
    is_local(redis) && is_on && major.is_some_and(|major| major >= 7)
}

fn commands(reach: &Reach, redis: &Redis, rights: &Rights, findings: &mut Findings) {
    const CHECK: &str = "redis.dangerous_commands";
    let user = format!(
        "give the workers a user of their own (Redis 6.2 or newer), and redis.url its name and password:\n\
         ACL SETUSER anyworker on >PASSWORD {} +@all -@dangerous +info",
        names(redis)
    );
    if rights.dangerous.is_empty() {
        findings.pass(
            CHECK,
            "FLUSHALL, FLUSHDB, CONFIG and DEBUG are refused to the workers' user",
        );
    } else if redis.managed || matches!(reach, Reach::Socket) {
        findings.pass(CHECK, "allowed, and only the owner of the unix socket can connect");
    } else {
        let remedy = format!("{user}\nor in redis.conf: rename-command FLUSHALL \"\", and so on");
        let evidence = format!("anyone who has redis.url may use {}", rights.dangerous.join(", "));
        findings.warn(CHECK, evidence, remedy);
    }
    const NEEDED: &str = "redis.permissions";
    if rights.missing.is_empty() {
        findings.pass(NEEDED, "all that workers need is allowed");
        return;
    }
    let missing: Vec<String> = rights
        .missing
        .iter()
        .map(|missing| format!("{} ({})", missing.command, missing.reason.trim()))
        .collect();
    findings.fail(
        NEEDED,
        format!("workers need and may not use {}", missing.join(", ")),
        user,
    );
}

/// Keys and channels of the workers, as an ACL has them.
fn names(redis: &Redis) -> String {
    let (prefix, ingest) = (&redis.prefix, &redis.ingest);
    let mut rules = vec![format!("~{prefix}:*")];
    rules.extend(ingest.streams().iter().map(|stream| format!("~{stream}")));
    rules.extend(["resetchannels".to_owned(), format!("&{prefix}:*")]);
    let channels = [ingest.channels(), ingest.patterns()].concat();
    rules.extend(channels.iter().map(|channel| format!("&{channel}")));
    rules.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found() {
        let v4 = "  sl  local_address rem_address   st tx_queue\n\
                  \x20  0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000\n\
                  \x20  1: 00000000:18EB 00000000:0000 0A 00000000:00000000 00:00000000\n\
                  \x20  2: 0100007F:18EB 0100007F:D431 01 00000000:00000000 00:00000000\n";
        let found: Vec<String> = parse_listeners(v4, 6379).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["0.0.0.0", "127.0.0.1"]);
        assert!(parse_listeners(v4, 6380).is_empty());
        let v6 = "head\n 0: 00000000000000000000000001000000:18EB 00000000000000000000000000000000:0000 0A x\n";
        assert_eq!(
            parse_listeners(v6, 6379),
            BTreeSet::from([IpAddr::from(Ipv6Addr::LOCALHOST)])
        );
    }
}
