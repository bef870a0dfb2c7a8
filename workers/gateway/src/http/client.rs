//! What proxies tell of a client and its requests.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Set by proxies: each appends the address that its request came from.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Set by proxies: how the client came to them.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Set by proxies that are configured to (docs/proxy): an id of the request, the same if they repeat it. `X-Request-Id` will not
/// do: some set it, once for many requests, to follow a user.
const REQUEST_ID: &str = "x-anyworker-request";

/// The id that a trusted proxy gave a request.
pub(crate) fn request_id<'a>(proxies: &[IpNet], peer: IpAddr, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let id = headers.get(REQUEST_ID)?.as_bytes();
    (!id.is_empty() && is_trusted(proxies, peer.to_canonical())).then_some(id)
}

/// The client's address: that of the connection, unless a trusted proxy sits at its other end. Then it is the rightmost
/// one in `X-Forwarded-For` that is no trusted proxy's: what stands left of it is the client's own word.
pub(crate) fn address(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut nearest = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    while is_trusted(proxies, nearest) {
        let Some(hop) = hops.next().and_then(parse) else { break };
        nearest = hop;
    }
    nearest
}

/// Whether a trusted proxy said that the client came by TLS. Some call that `wss`; of several proxies the first speaks of
/// the client.
pub(crate) fn by_tls(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> bool {
    let said = headers.get(FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    let first = said.and_then(|said| said.split(',').next()).unwrap_or_default().trim();
    ["https", "wss"].iter().any(|scheme| first.eq_ignore_ascii_case(scheme)) && is_trusted(proxies, peer.to_canonical())
}

fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// An address as proxies write it; some append the port.
fn parse(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop
        .strip_prefix('[')
        .and_then(|hop| hop.strip_suffix(']'))
        .unwrap_or(hop);
    let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
    let address: IpAddr = bare.parse().or_else(|_| with_port()).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn tls_ends_at_trusted_proxies() {
        let proxies: Vec<IpNet> = ["10.0.0.0/8".parse().unwrap()].into();
        for (peer, said, expect) in [
            ("10.0.0.1", Some("https"), true),
            ("::ffff:10.0.0.1", Some("HTTPS"), true),
            ("10.0.0.1", Some("wss"), true),
            ("10.0.0.1", Some("https, http"), true),
            ("10.0.0.1", Some("http, https"), false),
            ("10.0.0.1", Some("http"), false),
            ("10.0.0.1", None, false),
            ("192.0.2.1", Some("https"), false),
        ] {
            let headers = said.map(|said| (FORWARDED_PROTO.parse().unwrap(), HeaderValue::from_static(said)));
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(
                by_tls(&proxies, peer.parse().unwrap(), &headers),
                expect,
                "{peer} {said:?}"
            );
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).into();
        let check = |peer: &str, lines: &[&'static str], expect: &str| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let found = address(&proxies, peer.parse().unwrap(), &headers);
            assert_eq!(found.to_string(), expect, "{peer} {lines:?}");
        };
        check("192.0.2.1", &[], "192.0.2.1");
        check("192.0.2.1", &["198.51.100.9"], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.9"], "198.51.100.9");
        check("::ffff:10.0.0.1", &["::ffff:198.51.100.9"], "198.51.100.9");
        // What a client says of itself stands to the left.
        check("10.0.0.1", &["127.0.0.1, 198.51.100.9, 10.2.3.4"], "198.51.100.9");
        check("10.0.0.1", &["127.0.0.1", "198.51.100.9,fd00::1"], "198.51.100.9");
        check("10.0.0.1", &["10.9.9.9,10.8.8.8"], "10.9.9.9");
        check("10.0.0.1", &["198.51.100.9:4711"], "198.51.100.9");
        check("fd00::1", &["[2001:db8::7]:443, [fd00::2]"], "2001:db8::7");
        check("10.0.0.1", &["198.51.100.9, unknown, 10.2.3.4"], "10.2.3.4");
        check("10.0.0.1", &["198.51.100.9, "], "10.0.0.1");
    }
}
