//! A small HTTP/1.1 and WebSocket client, for looking at a fleet as its clients do: a fresh connection for each
//! request, nothing hidden, everything bounded.

mod http;
mod tls;
mod ws;

pub(crate) use http::{Reply, ask};
pub(crate) use ws::{Opened, Socket};

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;

/// Where a fleet is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the `Host` header says.
    authority: String,
    /// What comes before every path; without a slash at its end.
    base: String,
}

impl Target {
    /// A listener of this machine. An address that means all of them is asked on the loopback.
    pub(crate) fn local(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        Self {
            tls: false,
            host: ip.to_string(),
            port: address.port(),
            authority: SocketAddr::new(ip, address.port()).to_string(),
            base: String::new(),
        }
    }

    /// The place that a URL names.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (tls, rest) = if let Some(rest) = url.strip_prefix("https://").or(url.strip_prefix("wss://")) {
            (true, rest)
        } else if let Some(rest) = url.strip_prefix("http://").or(url.strip_prefix("ws://")) {
            (false, rest)
        } else {
            return Err(format!("{url:?} begins with neither https:// nor http://"));
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None => Ok(if tls { 443 } else { 80 }),
            Some(port) => port.parse(),
        };
        if host.is_empty() || authority.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control()) {
            return Err(format!("{url:?} names no host"));
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: port.map_err(|error| format!("{url:?}: port: {error}"))?,
            authority: authority.to_owned(),
            base: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Whether only this machine can hear what is said.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Connects, and sends nothing: with TLS, the other side has proved its identity.
    pub(crate) async fn greet(&self) -> io::Result<()> {
        self.connect().await.map(drop)
    }

    async fn connect(&self) -> io::Result<Link> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = if self.tls {
            Box::new(tls::wrap(stream, &self.host).await?)
        } else {
            Box::new(stream)
        };
        Ok(BufReader::new(stream))
    }
}

/// A connection.
type Link = BufReader<Box<dyn Stream>>;

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://chat.example.org/app/?x=1").unwrap();
        assert_eq!((target.tls, target.port), (true, 443));
        assert_eq!(
            (target.host.as_str(), target.base.as_str()),
            ("chat.example.org", "/app")
        );
        let target = Target::parse("http://[::1]:8000").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 8000));
        assert!(target.is_loopback());
        for bad in [
            "chat.example.org",
            "ftp://x",
            "https://",
            "http://h:x",
            "http://a@b",
            "http://a b/",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_of_all_interfaces_is_asked_on_the_loopback() {
        let target = Target::local("0.0.0.0:8000".parse().unwrap());
        assert_eq!(target.authority, "127.0.0.1:8000");
        assert_eq!(Target::local("[::]:1".parse().unwrap()).authority, "[::1]:1");
    }
}
