//! What the operator sees when the fleet serves.

use crate::config::Config;
use crate::control::protocol::Status;
use crate::sys::log;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use tracing::info;

/// Shows it: a few lines on a terminal, otherwise one log line.
pub(super) fn show(
    config: &Config,
    status: &Status,
    addresses: &[SocketAddr],
    admin: Option<SocketAddr>,
    socket: &Path,
) {
    let version = boot::VERSION;
    let urls: Vec<String> = addresses
        .iter()
        .map(|address| url(*address, &config.settings.engine.path))
        .collect();
    let admin = admin.map_or_else(|| "none".to_owned(), |address| url(address, "/metrics"));
    let pids: Vec<String> = status
        .workers
        .iter()
        .filter_map(|worker| worker.pid)
        .map(|pid| pid.to_string())
        .collect();
    let redis = match &config.settings.redis {
        Some(redis) if config.managed_redis => format!("managed, {redis}"),
        Some(redis) => redis.to_string(),
        None => "none: one worker, sessions in its memory".to_owned(),
    };
    if config.settings.logging.json || !io::stderr().is_terminal() {
        let (urls, pids) = (urls.join(" "), pids.join(" "));
        info!(version, urls, workers = status.workers.len(), pids, redis, admin, socket = %socket.display(), "serving");
        return;
    }
    let text = lines(version, &urls, &pids, &redis, &admin, socket);
    log::print(&text);
}

fn lines(version: &str, urls: &[String], pids: &[String], redis: &str, admin: &str, socket: &Path) -> String {
    let mut text = String::new();
    let rows = [
        ("", format!("anyworker {version}")),
        ("listening", urls.join("  ")),
        ("workers", format!("{} (pids {})", pids.len(), pids.join(" "))),
        ("redis", redis.to_owned()),
        ("metrics", admin.to_owned()),
        ("control", format!("{} (anyworker status)", socket.display())),
    ];
    for (name, value) in rows {
        if writeln!(text, "  {name:<10}{value}").is_err() {
            break;
        }
    }
    text
}

/// Where a client on this host connects.
fn url(address: SocketAddr, path: &str) -> String {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    format!("http://{}{path}", SocketAddr::new(host, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_can_be_clicked() {
        assert_eq!(
            url("0.0.0.0:8000".parse().unwrap(), "/socket.io/"),
            "http://127.0.0.1:8000/socket.io/"
        );
        assert_eq!(url("[::]:80".parse().unwrap(), "/s/"), "http://[::1]:80/s/");
    }
}
