//! Settings of the kernel that connections and Redis depend on.

use super::evidence::is_local;
use super::findings::Findings;
use super::root::Root;
use crate::fleet::Fleet;
use crate::{Context, StatusError};

/// What a listener of the fleet asks for; the kernel gives no more than `somaxconn`.
const BACKLOG: u64 = 4_096;
/// Connections from here to one address at a time, with those that are closing (60 s).
const PORTS_MIN: u64 = 10_000;

pub(super) fn examine(context: &Context, fleet: Result<&Fleet, &StatusError>, root: &Root, findings: &mut Findings) {
    somaxconn(root, findings);
    tcp_migrate_req(root, findings);
    ephemeral_ports(root, findings);
    descriptors(context, fleet, root, findings);
    match &context.redis {
        Some(redis) if is_local(redis) => {
            huge_pages(root, findings);
            overcommit(root, findings);
        }
        Some(_) => {
            for check in ["kernel.transparent_hugepage", "kernel.overcommit_memory"] {
                findings.unseen(check, "Redis runs on another machine: run this there too");
            }
        }
        None => {}
    }
}

fn sysctl(name: &str, value: &str) -> String {
    let file = "/etc/sysctl.d/90-anyworker.conf";
    format!("sudo sysctl -w {name}={value} && echo '{name} = {value}' | sudo tee -a {file}")
}

fn somaxconn(root: &Root, findings: &mut Findings) {
    const CHECK: &str = "kernel.somaxconn";
    match root.number("/proc/sys/net/core/somaxconn") {
        Ok(max) if max >= BACKLOG => findings.pass(CHECK, format!("net.core.somaxconn is {max}")),
        Ok(max) => {
            let evidence = format!("net.core.somaxconn is {max}: of clients that all come at once some must try again");
            findings.warn(CHECK, evidence, sysctl("net.core.somaxconn", &BACKLOG.to_string()));
        }
        Err(why) => findings.unseen(CHECK, why),
    }
}

fn tcp_migrate_req(root: &Root, findings: &mut Findings) {
    const CHECK: &str = "kernel.tcp_migrate_req";
    match root.number("/proc/sys/net/ipv4/tcp_migrate_req") {
        Ok(0) => findings.warn(
            CHECK,
            "net.ipv4.tcp_migrate_req is 0: a connection that is being made when a slot is given up (`scale`) is reset",
            sysctl("net.ipv4.tcp_migrate_req", "1"),
        ),
        Ok(value) => findings.pass(CHECK, format!("net.ipv4.tcp_migrate_req is {value}")),
        Err(why) => findings.unseen(CHECK, format!("{why} (Linux 5.14 and newer have it)")),
    }
}

fn ephemeral_ports(root: &Root, findings: &mut Findings) {
    const CHECK: &str = "kernel.ephemeral_ports";
    let text = match root.read("/proc/sys/net/ipv4/ip_local_port_range") {
        Ok(text) => text,
        Err(why) => return findings.unseen(CHECK, why),
    };
    let mut ends = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
        return findings.unseen(CHECK, format!("ip_local_port_range: {:?}", text.trim()));
    };
    let ports = last.saturating_sub(first).saturating_add(1);
    if ports >= PORTS_MIN {
        findings.pass(CHECK, format!("{ports} ports ({first} to {last})"));
    } else {
        let evidence = format!(
            "{ports} ports ({first} to {last}): a proxy on this machine can have no more connections to one address"
        );
        findings.warn(
            CHECK,
            evidence,
            sysctl("net.ipv4.ip_local_port_range", "\"10240 65535\""),
        );
    }
}

/// The limit of the supervisor, which workers inherit; before it runs, our own.
fn descriptors(context: &Context, fleet: Result<&Fleet, &StatusError>, root: &Root, findings: &mut Findings) {
    const CHECK: &str = "kernel.nofile";
    let (whose, path) = match fleet {
        Ok(fleet) => ("the supervisor", format!("/proc/{}/limits", fleet.supervisor.pid)),
        Err(error) if error.is_forbidden => return findings.unseen(CHECK, error.to_string()),
        Err(_) => ("this shell", "/proc/self/limits".to_owned()),
    };
    let limit = match root.read(&path).map(|text| hard_limit(&text)) {
        Ok(Some(limit)) => limit,
        Ok(None) => return findings.unseen(CHECK, format!("{path} does not tell the limit of open files")),
        Err(why) => return findings.unseen(CHECK, why),
    };
    let clients = u64::try_from(context.limits.connections_max).unwrap_or(u64::MAX);
    let need = clients.saturating_add(context.limits.descriptors_reserved);
    if limit >= need {
        findings.pass(
            CHECK,
            format!("{whose} may open {limit} files, a worker needs {need} at most"),
        );
    } else {
        let evidence = format!(
            "{whose} may open {limit} files ({path}), a worker with limits.connections_max = {clients} needs {need}: it takes \
             fewer connections"
        );
        let remedy =
            format!("LimitNOFILE={need} in the unit, `ulimit -Hn {need}` in a shell, or lower limits.connections_max");
        findings.warn(CHECK, evidence, remedy);
    }
}

/// `Max open files  SOFT  HARD  files`
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn huge_pages(root: &Root, findings: &mut Findings) {
    const CHECK: &str = "kernel.transparent_hugepage";
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    match root.read(PATH) {
        Ok(text) if text.contains("[always]") => findings.warn(
            CHECK,
            format!("{PATH} is always: Redis answers late while it forks, and takes more memory"),
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled\n\
             for every boot: transparent_hugepage=madvise on the kernel's command line, or a tmpfiles.d line \
             `w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise`",
        ),
        Ok(text) => findings.pass(CHECK, format!("{} ({PATH})", text.trim())),
        Err(why) => findings.unseen(CHECK, why),
    }
}

fn overcommit(root: &Root, findings: &mut Findings) {
    const CHECK: &str = "kernel.overcommit_memory";
    match root.number("/proc/sys/vm/overcommit_memory") {
        Ok(1) => findings.pass(CHECK, "vm.overcommit_memory is 1"),
        Ok(value) => findings.warn(
            CHECK,
            format!("vm.overcommit_memory is {value}: with little memory left Redis cannot fork to rewrite its file"),
            sysctl("vm.overcommit_memory", "1"),
        ),
        Err(why) => findings.unseen(CHECK, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_counts() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(hard_limit(text), Some(524_288));
        assert_eq!(hard_limit("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(hard_limit("nothing"), None);
    }
}
