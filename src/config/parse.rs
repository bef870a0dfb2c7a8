//! Texts that have a form of their own: addresses, paths, origins, names. A fault is (what, remedy).

use boot::{Namespaces, Origins, Probe};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

type Parsed<T> = Result<T, (String, String)>;

/// Longest path, event name or namespace (bytes).
const NAME_BYTES_MAX: usize = 256;

fn fault<T>(what: impl Into<String>, remedy: impl Into<String>) -> Parsed<T> {
    Err((what.into(), remedy.into()))
}

/// `127.0.0.1:8000`, `[::]:8000`, `localhost:8000`; `:8000` and `*:8000` are all IPv4 addresses.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    let named = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        Some(("" | "*", port)) => format!("0.0.0.0:{port}"),
        _ => text.to_owned(),
    };
    match named.parse() {
        Ok(address) => Ok(address),
        Err(_) => fault(
            format!("{text:?} is not an address to listen on"),
            "write ADDRESS:PORT, for example 127.0.0.1:8000, [::]:8000 or :8000",
        ),
    }
}

/// A path of an endpoint: begins and ends with `/`, and leaves `/api/` alone.
pub(super) fn endpoint_path(text: &str) -> Parsed<String> {
    let remedy = "use a path such as /socket.io/";
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    if !text.starts_with('/') || !text.ends_with('/') || text.contains("//") || text.len() < 3 {
        return fault(format!("{text:?} does not begin and end with one /"), remedy);
    }
    if !text.chars().all(plain) || text.len() > NAME_BYTES_MAX {
        return fault(
            format!("{text:?} has characters that no path has, or more than {NAME_BYTES_MAX}"),
            remedy,
        );
    }
    if text.starts_with("/api/") {
        return fault(format!("{text:?} collides with /api/live and /api/ready"), remedy);
    }
    Ok(text.to_owned())
}

/// `"*"` or names that begin with `/`.
pub(super) fn namespaces(names: &[String]) -> Parsed<Namespaces> {
    if names == ["*"] {
        return Ok(Namespaces::All);
    }
    if names.is_empty() {
        return fault("no namespace would exist", "name at least \"/\", or \"*\" for all");
    }
    for (nth, name) in names.iter().enumerate() {
        if name == "*" {
            return fault("\"*\" is all namespaces and stands alone", "remove it, or the others");
        }
        if !name.starts_with('/') {
            return fault(format!("{name:?} is not a namespace"), format!("write \"/{name}\""));
        }
        if name.contains([',', '?']) || name.chars().any(char::is_control) || name.len() > NAME_BYTES_MAX {
            let what = format!("{name:?} has a comma, a question mark or more than {NAME_BYTES_MAX} bytes");
            return fault(what, "choose another name");
        }
        if names.iter().take(nth).any(|earlier| earlier == name) {
            return fault(format!("{name:?} is there twice"), "remove one");
        }
    }
    Ok(Namespaces::Only(names.to_vec()))
}

/// Nothing, `"*"`, or origins as browsers send them.
pub(super) fn origins(texts: &[String]) -> Parsed<Origins> {
    if texts.is_empty() {
        return Ok(Origins::SameOrigin);
    }
    if texts == ["*"] {
        return Ok(Origins::Any);
    }
    let mut origins = Vec::with_capacity(texts.len());
    for text in texts {
        if text == "*" {
            return fault("\"*\" is all origins and stands alone", "remove it, or the others");
        }
        let Some(origin) = boot::origin::normal(text) else {
            let what = format!("{text:?} is not an origin");
            let remedy = "write scheme://host[:port] without a path, for example https://chat.example.com (a name with other \
                          letters as browsers send it, xn--…)";
            return fault(what, remedy);
        };
        origins.push(origin);
    }
    Ok(Origins::Only(origins))
}

/// Networks, and addresses, which are networks of one.
pub(super) fn networks(texts: &[String]) -> Parsed<Vec<IpNet>> {
    let parse = |text: &String| match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(network) => Ok(network),
        Err(_) => fault(
            format!("{text:?} is neither an address nor a network"),
            "write 10.0.0.5, 10.0.0.0/8 or fd00::/8",
        ),
    };
    texts.iter().map(parse).collect()
}

/// A directory that sockets are made in: their paths must fit the kernel's limit.
pub(super) fn socket_directory(path: &std::path::Path) -> Parsed<()> {
    // sun_path holds 108 bytes; the longest name beside it is short.
    const BYTES_MAX: usize = 80;
    let bytes = path.as_os_str().len();
    if bytes > BYTES_MAX {
        let what = format!("{} is {bytes} bytes long, too long for sockets in it", path.display());
        return fault(what, format!("use a path of at most {BYTES_MAX} bytes"));
    }
    Ok(())
}

/// First part of every Redis key.
pub(super) fn prefix(text: &str) -> Parsed<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:/".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return fault(
            format!("{text:?} is not a prefix of keys"),
            "use 1 to 64 letters, digits and - . _ : / for it",
        );
    }
    Ok(text.to_owned())
}

/// An event's name; those that clients use for themselves are refused.
pub(super) fn event(text: &str) -> Parsed<String> {
    const RESERVED: [&str; 6] = [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    ];
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return fault(
            format!("{text:?} is not an event"),
            format!("use 1 to {NAME_BYTES_MAX} bytes"),
        );
    }
    if RESERVED.contains(&text) {
        return fault(format!("{text:?} is reserved by Socket.IO"), "choose another name");
    }
    Ok(text.to_owned())
}

/// A cookie's name (RFC 6265: a token).
pub(super) fn cookie_name(text: &str) -> Parsed<String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(token) {
        return fault(
            format!("{text:?} is not the name of a cookie"),
            "use letters, digits, - and _",
        );
    }
    Ok(text.to_owned())
}

/// A cookie's path: no `;`, which would end it.
pub(super) fn cookie_path(text: &str) -> Parsed<String> {
    let plain = |c: char| c.is_ascii_graphic() && c != ';';
    if !text.starts_with('/') || text.len() > NAME_BYTES_MAX || !text.chars().all(plain) {
        return fault(format!("{text:?} is not the path of a cookie"), "use a path such as /");
    }
    Ok(text.to_owned())
}

/// The name of a `[checks.NAME]`, as readiness shows it.
pub(super) fn check_name(name: &str) -> Parsed<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.len() > 64 || !name.chars().all(plain) {
        return fault(
            format!("{name:?} is not a name"),
            "use 1 to 64 letters, digits, - and _",
        );
    }
    if name == "redis" || name == "log" {
        return fault("anyworker has a check of this name itself", "choose another name");
    }
    Ok(())
}

/// What a check looks at, from its three possible keys (empty: not given).
pub(super) fn probe(http: &str, tcp: &str, writable_path: &str) -> Parsed<Probe> {
    match (http.is_empty(), tcp.is_empty(), writable_path.is_empty()) {
        (false, true, true) => http_probe(http),
        (true, false, true) => Ok(Probe::Tcp {
            address: authority(tcp, None)?,
        }),
        (true, true, false) if writable_path.starts_with('/') => Ok(Probe::WritablePath {
            path: PathBuf::from(writable_path),
        }),
        (true, true, false) => fault(format!("{writable_path:?} is not absolute"), "begin it with /"),
        (true, true, true) => fault("nothing to check", "give one of http, tcp and writable_path"),
        _ => fault(
            "more than one thing to check",
            "give one of http, tcp and writable_path",
        ),
    }
}

fn http_probe(url: &str) -> Parsed<Probe> {
    let Some(rest) = url.strip_prefix("http://") else {
        return fault(
            "only http:// can be checked",
            "write http://HOST[:PORT]/PATH, or use tcp",
        );
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (place, path) = rest.split_at(at);
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    if !path.chars().all(|c| c.is_ascii_graphic()) {
        return fault("the path has blanks or characters beyond ASCII", "encode them as %XX");
    }
    Ok(Probe::Http {
        authority: authority(place, Some(80))?,
        path,
    })
}

/// `host:port`; not shown in faults, because people put passwords before a host.
fn authority(text: &str, default_port: Option<u16>) -> Parsed<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (text, default_port),
    };
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host_is_one = match ipv6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    match port {
        Some(port) if port > 0 && host_is_one => Ok(format!("{host}:{port}")),
        _ => fault("the host or the port is not one", "write HOST:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expect) in [
            ("127.0.0.1:8000", Some("127.0.0.1:8000")),
            (":8000", Some("0.0.0.0:8000")),
            ("*:8000", Some("0.0.0.0:8000")),
            ("0.0.0.0:0", Some("0.0.0.0:0")),
            ("[::]:8000", Some("[::]:8000")),
            ("localhost:8000", Some("127.0.0.1:8000")),
            ("8000", None),
            ("127.0.0.1", None),
            ("127.0.0.1:70000", None),
            ("example.com:80", None),
            ("", None),
        ] {
            assert_eq!(
                address(text).ok().map(|found| found.to_string()).as_deref(),
                expect,
                "{text}"
            );
        }
    }

    #[test]
    fn paths() {
        for (text, good) in [
            ("/socket.io/", true),
            ("/a/b/", true),
            ("/", false),
            ("socket.io/", false),
            ("/socket.io", false),
            ("/a//b/", false),
            ("/a b/", false),
            ("/a?/", false),
            ("/api/x/", false),
            ("/api/", false),
            ("/apis/", true),
        ] {
            assert_eq!(endpoint_path(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn origin_lists() {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        for (texts, expect) in [
            (list(&[]), Some(Origins::SameOrigin)),
            (list(&["*"]), Some(Origins::Any)),
            (
                list(&["https://A.example:443"]),
                Some(Origins::Only(list(&["https://a.example"]))),
            ),
            (
                list(&["http://[::1]:3000"]),
                Some(Origins::Only(list(&["http://[::1]:3000"]))),
            ),
            (
                list(&["capacitor://localhost", "chrome-extension://abc", "null", "file://"]),
                Some(Origins::Only(list(&[
                    "capacitor://localhost",
                    "chrome-extension://abc",
                    "null",
                    "file://",
                ]))),
            ),
            (list(&["*", "https://a"]), None),
            (list(&["https://a/"]), None),
            (list(&["a.example"]), None),
            (list(&["https://"]), None),
        ] {
            assert_eq!(origins(&texts).ok(), expect, "{texts:?}");
        }
    }

    #[test]
    fn network_lists() {
        for (text, expect) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("fd00::/8", Some("fd00::/8")),
            ("::1", Some("::1/128")),
            ("10.0.0.0/33", None),
            ("localhost", None),
            ("10.0.0.1:80", None),
        ] {
            let expect = expect.map(|network| vec![network.parse().unwrap()]);
            assert_eq!(networks(&[text.to_owned()]).ok(), expect, "{text}");
        }
    }

    #[test]
    fn namespace_lists() {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(namespaces(&list(&["*"])).ok(), Some(Namespaces::All));
        let two = list(&["/", "/admin"]);
        assert_eq!(namespaces(&two).ok(), Some(Namespaces::Only(two)));
        for bad in [&["admin"][..], &[], &["/", "*"], &["/a,b"], &["/", "/"]] {
            assert!(namespaces(&list(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn probes() {
        let http = |authority: &str, path: &str| {
            Some(Probe::Http {
                authority: authority.to_owned(),
                path: path.to_owned(),
            })
        };
        for (given, expect) in [
            (
                ("http://localhost:11434/api/tags", "", ""),
                http("localhost:11434", "/api/tags"),
            ),
            (("http://h", "", ""), http("h:80", "/")),
            (("http://[::1]:80?x=1", "", ""), http("[::1]:80", "/?x=1")),
            (("https://h", "", ""), None),
            (("http://u:p@h/", "", ""), None),
            (("http:///x", "", ""), None),
            (
                ("", "db:5432", ""),
                Some(Probe::Tcp {
                    address: "db:5432".to_owned(),
                }),
            ),
            (("", "db", ""), None),
            (
                ("", "", "/srv/x"),
                Some(Probe::WritablePath {
                    path: PathBuf::from("/srv/x"),
                }),
            ),
            (("", "", "srv"), None),
            (("", "", ""), None),
            (("http://h", "db:1", ""), None),
        ] {
            assert_eq!(probe(given.0, given.1, given.2).ok(), expect, "{given:?}");
        }
    }
}
