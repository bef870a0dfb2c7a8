//! `[redis]`: external by URL, managed by the supervisor, or disabled.

use super::resolve::Facts;
use super::values::{Value, Values};
use super::{parse, redis_url};
use boot::{Redis, RedisEndpoint};
use std::path::{Path, PathBuf};

/// Name of the managed Redis' socket in the runtime directory.
const REDIS_SOCKET: &str = "redis.sock";

/// How workers reach Redis (`None`: disabled), and whether the supervisor starts it.
pub(super) fn redis(
    values: &mut Values,
    directory: &Path,
    facts: &Facts<'_>,
    notices: &mut Vec<String>,
) -> (Option<Redis>, bool) {
    let url = values.text_if_any("redis.url").map(|url| redis_url::parse(&url));
    let given = url.is_some();
    let url = url.and_then(|parsed| values.accept("redis.url", parsed));
    let prefix = values.accept("redis.prefix", parse::prefix(&values.text("redis.prefix")));
    let enabled = values.bool("redis.enabled");
    let managed = enabled && managed(values, given, notices);
    values.resolve("redis.managed", Value::Bool(managed));
    if !enabled {
        return (None, false);
    }
    let url = url.filter(|_| !managed).unwrap_or(redis_url::RedisUrl {
        endpoint: RedisEndpoint::Unix {
            path: directory.join(REDIS_SOCKET),
        },
        username: None,
        password: None,
        db: None,
        ca_file: None,
        ignored: Vec::new(),
    });
    if !url.ignored.is_empty() {
        let names = url.ignored.join(", ");
        notices.push(format!(
            "redis.url: {names} in the URL: for redis-py alone; see redis.connect_timeout_ms, redis.response_timeout_ms and \
             redis.ca_file"
        ));
    }
    let ca_file = ca_file(values, &url, facts);
    let db = i64::try_from(values.int("redis.db")).unwrap_or_default();
    let redis = Redis {
        endpoint: url.endpoint,
        db: if values.is_set("redis.db") {
            db
        } else {
            url.db.unwrap_or(db)
        },
        username: url.username,
        password: url.password,
        ca_file,
        pool_size: values.size("redis.pool_size"),
        connect_timeout: values.millis("redis.connect_timeout_ms"),
        response_timeout: values.millis("redis.response_timeout_ms"),
        prefix: prefix.unwrap_or_default(),
    };
    (Some(redis), managed)
}

/// Of the key, or else of the URL. The file has to be there; what is in it is seen when it is used.
fn ca_file(values: &mut Values, url: &redis_url::RedisUrl, facts: &Facts<'_>) -> Option<PathBuf> {
    const KEY: &str = "redis.ca_file";
    let is_tls = matches!(url.endpoint, RedisEndpoint::Tls { .. });
    let of_url = url.ca_file.clone().filter(|_| is_tls);
    let path = facts
        .directory
        .join(values.text_if_any(KEY).map(PathBuf::from).or(of_url)?);
    if !(facts.is_taken)(&path) {
        let what = format!("{} is no file", path.display());
        values.fault(KEY, what, "name a file with the certificate of the authority (PEM)");
    }
    Some(path)
}

/// `managed` and a URL exclude each other: of two layers the later one wins, in one it is a fault.
fn managed(values: &mut Values, url_given: bool, notices: &mut Vec<String>) -> bool {
    let wanted = values.bool("redis.managed");
    if !url_given {
        if !wanted {
            values.fault(
                "redis.url",
                "missing, and redis.managed is false",
                "give a URL, or redis.managed = true",
            );
        }
        return wanted;
    }
    if !wanted || !values.is_set("redis.managed") {
        return false;
    }
    let (url, managed) = (values.source("redis.url"), values.source("redis.managed"));
    match managed.rank().cmp(&url.rank()) {
        std::cmp::Ordering::Equal => {
            values.fault(
                "redis.managed",
                "true, although redis.url is given",
                "remove one of them",
            );
            false
        }
        std::cmp::Ordering::Greater => {
            notices.push(format!("redis.managed = true ({managed}) overrides redis.url ({url})"));
            true
        }
        std::cmp::Ordering::Less => {
            notices.push(format!("redis.url ({url}) overrides redis.managed = true ({managed})"));
            false
        }
    }
}
