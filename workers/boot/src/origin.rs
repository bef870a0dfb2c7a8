//! Origins of web pages and apps (RFC 6454), and the host that a request was sent to, in the one form in which they can be
//! compared.

use std::net::Ipv6Addr;

/// What pages without an origin of their own send: sandboxed frames, local files, redirected requests.
pub const NULL: &str = "null";

/// `scheme://host[:port]` or `null` in small letters and without the usual port of the scheme; nothing if it is no origin.
/// Apps have schemes of their own (`capacitor://localhost`), and local files no host (`file://`).
#[must_use]
pub fn normal(text: &str) -> Option<String> {
    if text.eq_ignore_ascii_case(NULL) {
        return Some(NULL.to_owned());
    }
    let (scheme, authority) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return None;
    }
    if authority.is_empty() {
        // A web page comes from a host.
        return usual_port(&scheme).is_none().then(|| format!("{scheme}://"));
    }
    let (host, port) = split(authority)?;
    Some(match port.filter(|port| Some(*port) != usual_port(&scheme)) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// Whether a page of `origin` was served by the host that a request names in `Host`. TLS ends before us, so the scheme is
/// the page's, unless a proxy said that the request came by TLS: then a page that did not is of another origin.
#[must_use]
pub fn is_same(origin: &str, host: &str, by_tls: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let scheme = scheme.to_ascii_lowercase();
    let (Some(usual), Some(page), Some(own)) = (usual_port(&scheme), split(authority), split(host)) else {
        return false;
    };
    let own_usual = if by_tls { usual_port("https") } else { Some(usual) };
    page.0 == own.0 && Some(page.1.unwrap_or(usual)) == own.1.or(own_usual)
}

/// `host[:port]`: the host in small letters, an IPv6 address in its shortest form.
fn split(authority: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest.strip_prefix(':') {
            Some(port) => number(port)?,
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some((format!("[{address}]"), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, number(port)?),
        None => (authority, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_ascii_lowercase(), port))
}

/// A port; RFC 3986, 3.2.3 allows none after the colon.
#[expect(clippy::option_option, reason = "a fault, nothing, or a number")]
fn number(text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().map(Some)
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_one_form() {
        for (text, expect) in [
            ("https://a.example", Some("https://a.example")),
            ("HTTPS://A.Example:443", Some("https://a.example")),
            ("http://a.example:80", Some("http://a.example")),
            ("http://a.example:443", Some("http://a.example:443")),
            ("http://a.example:", Some("http://a.example")),
            ("http://a.example.", Some("http://a.example.")),
            ("http://xn--bcher-kva.example", Some("http://xn--bcher-kva.example")),
            ("http://127.0.0.1:3000", Some("http://127.0.0.1:3000")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[0:0:0:0:0:0:0:1]:80", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("ionic://localhost", Some("ionic://localhost")),
            ("tauri://localhost", Some("tauri://localhost")),
            ("chrome-extension://abcdefghij", Some("chrome-extension://abcdefghij")),
            ("app://.", Some("app://.")),
            ("file://", Some("file://")),
            ("null", Some("null")),
            ("https://", None),
            ("a.example", None),
            ("https://a/", None),
            ("https://a/b", None),
            ("https://a b", None),
            ("https://user@a", None),
            ("https://a:65536", None),
            ("https://a:+1", None),
            ("https://a:b", None),
            ("https://[::1", None),
            ("https://[::1]x", None),
            ("https://bücher.example", None),
            ("://a", None),
            ("1a://b", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(normal(text).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn a_page_is_of_the_same_origin_if_host_and_port_are_the_same() {
        for (origin, host, plain, tls) in [
            ("http://a.example", "a.example", true, false),
            ("https://a.example", "a.example", true, true),
            ("https://A.example", "a.EXAMPLE", true, true),
            ("http://a.example:80", "a.example", true, false),
            ("http://a.example", "a.example:80", true, true),
            ("https://a.example:443", "a.example", true, true),
            ("https://a.example", "a.example:443", true, true),
            ("https://a.example", "a.example:80", false, false),
            ("http://a.example", "a.example:443", false, false),
            ("http://a.example:8000", "a.example:8000", true, true),
            ("http://a.example:8000", "a.example", false, false),
            ("http://a.example", "a.example:8000", false, false),
            ("http://a.example", "b.example", false, false),
            ("http://a.example", "x.a.example", false, false),
            ("http://a.example.evil", "a.example", false, false),
            // Browsers keep the dot in both, and hold the two for different origins.
            ("http://a.example.", "a.example.", true, false),
            ("http://a.example", "a.example.", false, false),
            ("http://[::1]:8000", "[0:0::1]:8000", true, true),
            ("http://[::1]", "[::1]:80", true, true),
            ("http://[::1]", "[::2]", false, false),
            ("http://xn--bcher-kva.example", "xn--bcher-kva.example", true, false),
            ("null", "a.example", false, false),
            ("file://", "a.example", false, false),
            ("capacitor://localhost", "localhost", false, false),
            ("a.example", "a.example", false, false),
            ("http://a.example", "", false, false),
            ("http://", "", false, false),
        ] {
            assert_eq!(is_same(origin, host, false), plain, "{origin} {host}");
            assert_eq!(is_same(origin, host, true), tls, "{origin} {host}, by TLS");
        }
    }
}
