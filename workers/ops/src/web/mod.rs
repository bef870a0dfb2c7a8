//! HTTP/1.1 and WebSocket for looking at a fleet as its clients do: a fresh connection for each request, everything
//! bounded.

mod http;
mod tls;
mod ws;

pub(crate) use http::{Reply, ask};
pub(crate) use ws::{Opened, Socket};

use ::http::Uri;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
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
        let no_host = || format!("{url:?} names no host");
        let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            Some(_) | None => return Err(format!("{url:?} begins with neither https:// nor http://")),
        };
        let authority = uri.authority().filter(|it| !it.host().is_empty()).ok_or_else(no_host)?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host).ok_or_else(no_host)? {
            "" => Ok(if tls { 443 } else { 80 }),
            port => port.trim_start_matches(':').parse(),
        };
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.map_err(|error| format!("{url:?}: port: {error}"))?,
            authority: authority.to_string(),
            base: uri.path().trim_end_matches('/').to_owned(),
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
        Ok(if self.tls {
            Box::new(tls::wrap(stream, &self.host).await?)
        } else {
            Box::new(stream)
        })
    }
}

/// A connection.
type Link = Box<dyn Stream>;

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

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
            "http://:80/",
            "http://h:99999",
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
