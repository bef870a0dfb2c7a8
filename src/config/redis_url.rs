//! Redis URLs, as people write them: the last `@` ends the password, so that it may contain `@`,
//! `#`, `!` and `/` unescaped, and only valid `%XX` are decoded. Faults never show the URL.

use boot::{RedisEndpoint, Secret};
use std::path::PathBuf;

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RedisUrl {
    pub(super) endpoint: RedisEndpoint,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) db: Option<i64>,
    /// `ssl_ca_certs`, as redis-py calls it.
    pub(super) ca_file: Option<PathBuf>,
    /// Parameters that redis-py alone knows.
    pub(super) ignored: Vec<&'static str>,
}

/// What is wrong with a URL.
#[derive(Debug)]
enum Fault {
    Form(&'static str),
    /// A parameter that means nothing here; its name, unless that may be a part of a password.
    Parameter(Option<String>),
}

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Self {
        Self::Form(what)
    }
}

const PORT: u16 = 6379;
const FORMS: &str =
    "write redis://[:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, or unix://[:PASSWORD@]/PATH[?db=DB]";
/// Longest path of a Unix socket (bytes): unix(7), `sun_path` without its closing NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Largest database number.
const DB_MAX: i64 = 65_535;

/// Parameters of redis-py (`URL_QUERY_ARGUMENT_PARSERS` in `redis/connection.py`, and arguments of its connections) that a
/// Python backend may have in a `REDIS_URL` that it shares with us. None of them makes a difference here, or makes us trust
/// more than redis-py would.
const PYTHON: [&str; 19] = [
    "client_name",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "lib_name",
    "lib_version",
    "max_connections",
    "protocol",
    "retry_on_error",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_read_size",
    "socket_timeout",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_min_version",
    "timeout",
];

/// Reads a URL; the fault is (what, remedy).
pub(super) fn parse(url: &str) -> Result<RedisUrl, (String, String)> {
    read(url.trim()).map_err(|fault| match fault {
        Fault::Form(what) => (what.to_owned(), FORMS.to_owned()),
        Fault::Parameter(name) => {
            let name = name.map(|name| format!(" {name}")).unwrap_or_default();
            let what =
                format!("the URL has a parameter{name} that means nothing here: db, user, pass and ssl_ca_certs do");
            let remedy =
                "take it out; if another program needs it, give this one a URL without it in ANYWORKER_REDIS__URL";
            (what, remedy.to_owned())
        }
    })
}

fn read(url: &str) -> Result<RedisUrl, Fault> {
    let (scheme, rest) = url.split_once(':').ok_or("the value is not a URL")?;
    match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => network(rest, |host, port| RedisEndpoint::Tcp { host, port }),
        "rediss" | "valkeys" => network(rest, |host, port| RedisEndpoint::Tls { host, port }),
        "unix" | "redis+unix" | "valkey+unix" => unix(rest),
        _ => Err("the scheme of the URL is none of redis, rediss, unix".into()),
    }
}

fn network(rest: &str, endpoint: impl Fn(String, u16) -> RedisEndpoint) -> Result<RedisUrl, Fault> {
    let rest = rest.strip_prefix("//").ok_or("the value is not a URL: // is missing")?;
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let (username, password) = credentials(user)?;
    let (place, query) = place
        .split_once('?')
        .map_or((place, ""), |(place, query)| (place, query));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = host_port(authority)?;
    let mut found = RedisUrl {
        endpoint: endpoint(host, port),
        username,
        password,
        db: None,
        ca_file: None,
        ignored: Vec::new(),
    };
    if !path.is_empty() {
        found.db = Some(number(path)?);
    }
    apply_query(&mut found, query)?;
    Ok(found)
}

fn unix(rest: &str) -> Result<RedisUrl, Fault> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    // Without user, an `@` belongs to the path.
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) if !rest.starts_with('/') => (Some(user), place),
        _ => (None, rest),
    };
    let (username, password) = credentials(user)?;
    let (path, query) = place.split_once('?').unwrap_or((place, ""));
    if !path.starts_with('/') {
        return Err("the socket's path in the URL is not absolute".into());
    }
    let path = decoded(path);
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err("the socket's path in the URL is longer than 107 bytes, which no socket can have".into());
    }
    if path.contains('\0') {
        return Err("the socket's path in the URL has a NUL byte".into());
    }
    let endpoint = RedisEndpoint::Unix {
        path: PathBuf::from(path),
    };
    let mut found = RedisUrl {
        endpoint,
        username,
        password,
        db: None,
        ca_file: None,
        ignored: Vec::new(),
    };
    apply_query(&mut found, query)?;
    Ok(found)
}

fn credentials(user: Option<&str>) -> Result<(Option<String>, Option<Secret>), &'static str> {
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        return Ok((None, None));
    };
    let Some((name, password)) = user.split_once(':') else {
        return Err("the URL has a user but no password; a password alone is written with a colon before it");
    };
    let some = |text: &str| Some(decoded(text)).filter(|text| !text.is_empty());
    match (some(name), some(password)) {
        (Some(_), None) => Err("the URL has a user but no password"),
        (name, password) => Ok((name, password.map(Secret::new))),
    }
}

/// `host`, `host:port`, `[::1]:port`.
fn host_port(authority: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest
            .split_once(']')
            .ok_or("the host of the URL has no closing bracket")?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| "the host of the URL is not an IPv6 address")?;
        match port.strip_prefix(':') {
            None if !port.is_empty() => return Err("the port of the URL is not a port"),
            port => (host, port),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(allowed) {
        return Err("the URL names no host, or one with characters that no host has");
    }
    let port = match port {
        None | Some("") => PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|&port| port > 0)
            .ok_or("the port of the URL is not a port")?,
    };
    Ok((host.to_owned(), port))
}

fn apply_query(found: &mut RedisUrl, query: &str) -> Result<(), Fault> {
    let names = || query.split('&').filter_map(|pair| Some(pair.split_once('=')?.0));
    // As redis-py: the first one counts, and one without a value is not there.
    for pair in query.rsplit('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.is_empty() {
            continue;
        }
        match name {
            "db" => found.db = Some(number(value)?),
            "user" | "username" => found.username = Some(decoded(value)),
            "pass" | "password" => found.password = Some(Secret::new(decoded(value))),
            "ssl_ca_certs" => found.ca_file = Some(decoded(value).into()),
            _ => match PYTHON.into_iter().find(|known| *known == name) {
                Some(known) => found.ignored.insert(0, known),
                None => {
                    // A password with a `&` seems to have parameters behind it.
                    let is_safe = !names().any(|name| matches!(name, "pass" | "password")) && is_name(name);
                    return Err(Fault::Parameter(is_safe.then(|| name.to_owned())));
                }
            },
        }
    }
    Ok(())
}

/// Whether it looks like the name of a parameter.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn number(text: &str) -> Result<i64, &'static str> {
    let number = text.parse().ok().filter(|db| (0..=DB_MAX).contains(db));
    number.ok_or("the database in the URL is not a number from 0 to 65535")
}

/// Decodes each valid `%XX` and leaves everything else as it is; as written if that is not UTF-8.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .filter(|pair| byte == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        let escaped = pair.and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = after.get(if escaped.is_some() { 2.. } else { 0.. }).unwrap_or_default();
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expect: (&str, Option<&str>, Option<&str>, Option<i64>)) {
        let found = parse(url).unwrap_or_else(|fault| panic!("{url}: {fault:?}"));
        let endpoint = match &found.endpoint {
            RedisEndpoint::Tcp { host, port } => format!("{host} {port}"),
            RedisEndpoint::Tls { host, port } => format!("tls {host} {port}"),
            RedisEndpoint::Unix { path } => path.display().to_string(),
        };
        let found = (
            endpoint.as_str(),
            found.username.as_deref(),
            found.password.as_ref().map(Secret::expose),
            found.db,
        );
        assert_eq!(found, expect, "{url}");
    }

    #[test]
    fn urls() {
        let guide = "redis://:YourVeryStrong!Redis@Password#2024@localhost:6379";
        check(
            guide,
            ("localhost 6379", None, Some("YourVeryStrong!Redis@Password#2024"), None),
        );
        check(
            &format!("{guide}/3"),
            (
                "localhost 6379",
                None,
                Some("YourVeryStrong!Redis@Password#2024"),
                Some(3),
            ),
        );
        check("redis://localhost", ("localhost 6379", None, None, None));
        check("redis://localhost:6380/1", ("localhost 6380", None, None, Some(1)));
        check("valkey://localhost/", ("localhost 6379", None, None, None));
        check(
            "REDISS://u:p@cache.example:7000/2",
            ("tls cache.example 7000", Some("u"), Some("p"), Some(2)),
        );
        check("valkeys://h?db=4", ("tls h 6379", None, None, Some(4)));
        check("redis://:a%40b%zz%@h", ("h 6379", None, Some("a@b%zz%"), None));
        check("redis://:a/b?c@h:1/0", ("h 1", None, Some("a/b?c"), Some(0)));
        check("redis://:@h", ("h 6379", None, None, None));
        check("redis://[::1]:7/0", ("::1 7", None, None, Some(0)));
        check("unix:///run/r.sock?db=1", ("/run/r.sock", None, None, Some(1)));
        check("redis+unix:///run/a@b.sock", ("/run/a@b.sock", None, None, None));
        check("unix://:p@ss@/run/r.sock", ("/run/r.sock", None, Some("p@ss"), None));
        check(
            "unix:/run/r.sock?user=u&pass=p",
            ("/run/r.sock", Some("u"), Some("p"), None),
        );
    }

    /// `redis_url/reference.json` holds URLs with what `parse_url` of redis-py 8.1.0 makes of them: kind, host or path,
    /// port, user, password, database; null where it refuses the URL. Where ours differs, it is said here why.
    #[test]
    fn as_redis_py_reads_them() {
        type Row = (String, String, Option<u16>, Option<String>, Option<String>, Option<i64>);
        let cases: Vec<(String, Option<Row>)> = serde_json::from_str(include_str!("redis_url/reference.json")).unwrap();
        assert!(cases.len() >= 80, "{}", cases.len());
        // redis-py drops what it does not understand, or takes a default for it: here a fault, because it is a mistake.
        let refused = [
            "redis://user@h",
            "redis://user:@h",
            "redis://h:0",
            "redis://h/x",
            "redis://h/-1",
            "redis://h/1/2",
            "redis://h?ssl=true",
            "redis://h#frag",
            "redis:// h",
            "redis://h /1",
            "unix://run/r.sock",
            "redis://",
            "redis:///1",
            "redis://?db=1",
        ];
        // redis-py refuses these; a password need not be escaped here, and `unix:/path` is a usual form.
        let accepted = [
            ("REDIS://h", None),
            ("Rediss://h", None),
            ("redis://u:p#x@h", Some("p#x")),
            ("redis://u:p/x@h", Some("p/x")),
            ("redis://u:p?x@h", Some("p?x")),
            ("redis://u:[p]@h", Some("[p]")),
            ("unix:/run/r.sock", None),
        ];
        for (url, expect) in cases {
            let found = parse(&url).ok();
            if let Some((_, password)) = accepted.iter().find(|(accepted, _)| *accepted == url) {
                let found = found.unwrap_or_else(|| panic!("{url}"));
                assert_eq!(
                    (expect, found.password.as_ref().map(Secret::expose)),
                    (None, *password),
                    "{url}"
                );
                continue;
            }
            if refused.contains(&url.as_str()) {
                assert!(found.is_none() && expect.is_some(), "{url}: {found:?}");
                continue;
            }
            let found = found.map(|found| {
                let (kind, host, port) = match found.endpoint {
                    RedisEndpoint::Tcp { host, port } => ("tcp", host, Some(port)),
                    RedisEndpoint::Tls { host, port } => ("tls", host, Some(port)),
                    RedisEndpoint::Unix { path } => ("unix", path.display().to_string(), None),
                };
                let password = found.password.map(|password| password.expose().to_owned());
                (
                    kind.to_owned(),
                    host.to_lowercase(),
                    port,
                    found.username,
                    password,
                    found.db,
                )
            });
            // Only a network has a port, and its default.
            let expect = expect.map(|(kind, host, port, user, password, db)| {
                let port = if kind == "unix" { None } else { port.or(Some(PORT)) };
                (kind, host, port, user, password, db)
            });
            assert_eq!(found, expect, "{url}");
        }
    }

    #[test]
    fn parameters_of_python_are_known_and_others_are_named() {
        let shared = "?socket_timeout=5&db=2&decode_responses=true&health_check_interval=30&ssl_cert_reqs=required";
        let names = [
            "socket_timeout",
            "decode_responses",
            "health_check_interval",
            "ssl_cert_reqs",
        ];
        for url in ["redis://h", "rediss://:p@h:1/", "unix:///run/r.sock"] {
            let found = parse(&format!("{url}{shared}")).unwrap();
            assert_eq!((found.db, found.ignored.as_slice()), (Some(2), &names[..]), "{url}");
        }
        let found = parse("rediss://h?ssl_ca_certs=/etc/ca%20one.pem").unwrap();
        assert_eq!(found.ca_file, Some(PathBuf::from("/etc/ca one.pem")));
        // Without a value it is not there.
        assert_eq!(
            parse("redis://h?nonsense=&socket_timeout=&x").unwrap().ignored,
            Vec::<&str>::new()
        );
        for (url, name) in [
            ("redis://h?ssl_certfile=/a.pem", " ssl_certfile "),
            ("redis://h?ssl=true", " ssl "),
            ("redis://h?family=0", " family "),
            ("redis://h?DB=1", " DB "),
            ("redis://h?db=1&max-retries=2", " max-retries "),
            ("unix:///run/r.sock?x=1", " x "),
            // Perhaps parts of a password.
            ("redis://h?password=a&b=c", " that "),
            ("redis://h?pass=a&b=c", " that "),
            ("redis://h?a%b=c", " that "),
            ("redis://h?=c", " that "),
        ] {
            let (what, remedy) = parse(url).expect_err(url);
            assert!(
                what.starts_with(&format!("the URL has a parameter{name}")),
                "{url}: {what}"
            );
            assert!(remedy.contains("ANYWORKER_REDIS__URL"), "{remedy}");
        }
    }

    #[test]
    fn the_path_of_a_socket_fits() {
        let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        for form in ["unix://", "unix:", "redis+unix://", "unix://:p@"] {
            assert!(parse(&format!("{form}{}", path(107))).is_ok(), "{form}");
            let (what, _) = parse(&format!("{form}{}", path(108))).expect_err(form);
            assert!(what.contains("longer than 107 bytes"), "{what}");
        }
        // Bytes count, and those that are meant.
        assert!(parse(&format!("unix:///{}", "ü".repeat(54))).is_err());
        assert!(parse(&format!("unix:///{}", "%20".repeat(106))).is_ok());
        assert!(parse("unix:///a%00b").is_err());
    }

    #[test]
    fn faults_show_no_secret() {
        for url in [
            "secret",
            "http://:secret@h",
            "redis:secret",
            "redis://secret@h",
            "redis://secret:@h",
            "redis://:secret@",
            "redis://:secret@h:port",
            "redis://:secret@h:0",
            "redis://:secret@h:70000",
            "redis://:secret@h/one",
            "redis://:secret@h/-1",
            "redis://:secret@h?ssl=secret",
            "redis://:secret@[::1",
            "redis://:secret@[::1]x",
            "redis://:secret@a b",
            "unix://:secret@run/r.sock",
        ] {
            let (what, remedy) = parse(url).expect_err(url);
            assert!(!what.contains("secret") && !remedy.contains("secret"), "{url}: {what}");
        }
    }
}
