//! A Redis that is none, or not as it should be: every command says which, and what to do.

use crate::harness::{PATIENCE, Plan, Redis, Resp, Server, until};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that gives the same answer to everything.
async fn constant_server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(1..) = stream.read(&mut asked).await {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// A fleet that is started with this `redis.url`, without waiting until it serves.
async fn fleet(url: &str) -> Server {
    let plan = Plan::new().without_redis().with("workers.count = 1");
    plan.with(&format!("redis.url = {url:?}")).launch().await
}

/// What a command prints.
async fn says(server: &Server, command: &str) -> (i32, String) {
    let output = server.cli(command, &[]).await;
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn what_is_no_redis_is_told_from_one_that_is_away() {
    let addr = constant_server("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    // The letter is in most messages of parsers: none is shown.
    let mut server = fleet(&format!("redis://:e@{addr}/1")).await;
    let fault = format!("what answers at {addr} is not Redis");
    assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
    assert!(server.log().contains(&fault), "{}", server.log());
    for command in ["doctor", "health", "selftest"] {
        let (code, text) = says(&server, command).await;
        assert!(code != 0 && text.contains(&fault), "{command}: {text}");
        assert!(!text.contains("Unexpected") && !text.contains("Incompatible"), "{text}");
    }
    let (_, text) = says(&server, "doctor").await;
    assert!(
        text.contains("set redis.url (or REDIS_URL) to where Redis listens"),
        "{text}"
    );
    assert!(!server.log().contains("Incompatible"), "{}", server.log());
    // Without a login the first words are others.
    let mut server = fleet(&format!("redis://{addr}")).await;
    assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
    assert!(server.log().contains(&fault), "{}", server.log());
}

/// The answers of a Redis that serves no client now: whatever the login is, they are waited for. The client library takes an
/// error in answer to AUTH for a wrong password, whatever it says.
#[tokio::test]
async fn what_passes_is_waited_for_at_the_start_with_any_login() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::locked(directory.path(), "right-word").await;
    let other = tempfile::tempdir().unwrap();
    let open = Redis::start(other.path(), false).await;
    let cases = [
        (&redis, format!("unix://:right-word@{}", redis.socket().display())),
        (&redis, format!("unix://:right-word@{}?db=3", redis.socket().display())),
        (&open, open.url()),
        (&open, format!("{}?db=3", open.url())),
    ];
    for (redis, url) in cases {
        // All places are taken, by a client that was accepted before.
        let mut holder = redis.hold().await;
        holder.command(&["CONFIG", "SET", "maxclients", "1"]).await;
        let mut server = fleet(&url).await;
        // On a unix socket Redis is gone before it is asked: then the reason is lost.
        server.logged("redis not usable yet: trying again").await;
        assert!(server.exited().is_none(), "{url}: {}", server.log());
        holder.command(&["CONFIG", "SET", "maxclients", "100"]).await;
        server.ready().await;
    }
}

/// The same in Redis' words.
#[tokio::test]
async fn why_it_is_waited_for_is_said() {
    for (answer, words) in [
        (
            "-ERR max number of clients reached\r\n",
            "max number of clients reached",
        ),
        (
            "-LOADING Redis is loading the dataset in memory\r\n",
            "loading the dataset",
        ),
        ("-BUSY Redis is busy running a script.\r\n", "busy running a script"),
        ("-MASTERDOWN Link with MASTER is down\r\n", "Link with MASTER is down"),
    ] {
        let addr = constant_server(answer).await;
        for url in [
            format!("redis://{addr}"),
            format!("redis://:e@{addr}"),
            format!("redis://{addr}/3"),
        ] {
            let mut server = fleet(&url).await;
            server.logged("redis not usable yet: trying again").await;
            let log = server.log();
            let line = log.lines().find(|line| line.contains("trying again")).unwrap();
            // The password is struck out of all words.
            let words = if url.contains(":e@") {
                words.replace('e', "***")
            } else {
                words.to_owned()
            };
            assert!(line.contains(&words), "{url}: {line}");
            assert!(server.exited().is_none(), "{url}: {log}");
        }
    }
}

/// Nothing but another configuration helps: the start ends with 78 and says so.
#[tokio::test]
async fn what_only_a_person_changes_ends_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::start(directory.path(), false).await;
    let mut server = fleet(&format!("{}?db=99", redis.url())).await;
    assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
    assert!(server.log().contains("DB index is out of range"), "{}", server.log());
    let addr = constant_server("$40\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\n").await;
    let mut server = fleet(&format!("redis://{addr}")).await;
    assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
    assert!(server.log().contains("redis runs as a cluster"), "{}", server.log());
}

#[tokio::test]
async fn a_redis_that_is_too_old_is_refused_at_the_start() {
    let addr = constant_server("$22\r\nredis_version:5.0.14\r\n\r\n").await;
    let mut server = fleet(&format!("redis://{addr}")).await;
    assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
    let fault = format!("redis.url: redis://{addr}/0: redis 5.0.14 is too old: 6.0 or newer is needed; ");
    assert!(server.log().contains(&fault), "{}", server.log());
}

#[tokio::test]
async fn a_wrong_login_ends_the_fleet_with_the_part_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::locked(directory.path(), "right-word").await;
    let path = redis.socket().display();
    for (login, shown, part) in [
        ("", "", "it wants a password, and the URL has none"),
        (":wrong-word@", ":***@", "the password of the URL is wrong"),
        (
            "bob:wrong-word@",
            "bob:***@",
            "the user or the password of the URL is wrong",
        ),
    ] {
        let mut server = fleet(&format!("unix://{login}{path}")).await;
        assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78));
        let log = server.log();
        let ended = log.lines().find(|line| line.contains("fleet ended")).expect("the end");
        for part in [&format!("redis.url: unix://{shown}{path}?db=0: "), part, "REDIS_URL"] {
            assert!(ended.contains(part), "{part} in {ended}");
        }
        assert!(!log.contains("wrong-word"), "{log}");
    }
}

/// What a command prints for scripts.
async fn tells(server: &Server, command: &str) -> (i32, Value) {
    let output = server.cli(command, &["--json"]).await;
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| panic!("{fault} in {output:?}"));
    (output.status.code().unwrap(), json)
}

/// The doctor's finding of a name.
async fn finding(server: &Server, check: &str) -> Value {
    let (_, diagnosis) = tells(server, "doctor").await;
    let mut findings = diagnosis["findings"].as_array().unwrap().iter();
    findings
        .find(|finding| finding["check"] == check)
        .expect("a finding")
        .clone()
}

/// The report of a Redis that takes no writes: what can be seen of it is there.
async fn unhealthy(server: &Server, reason: &str) -> Value {
    let (code, report) = tells(server, "health").await;
    assert_eq!((code, report["verdict"].as_str()), (2, Some("UNHEALTHY")), "{report:#}");
    assert!(report["reasons"].to_string().contains(reason), "{report:#}");
    assert!(!report["reasons"].to_string().contains("cannot be used"), "{report:#}");
    assert!(
        report["could_not_see"].to_string().contains("latency of writes"),
        "{report:#}"
    );
    assert!(report["latency_ms"]["get"]["p50"].is_f64() && report["latency_ms"]["set"].is_null());
    assert!(
        report["sessions"]["total"].is_u64() && report["log"]["head"].is_string(),
        "{report:#}"
    );
    assert!(report["memory"]["used_memory_human"].is_string(), "{report:#}");
    report
}

#[tokio::test]
async fn a_full_disk_is_told_from_a_redis_that_is_away() {
    let server = Plan::new().start().await;
    let redis = server.redis();
    // A directory where the snapshot is to be: no user can replace it with a file.
    std::fs::create_dir_all(server.directory().join("dump.rdb/x")).unwrap();
    redis.command(&["CONFIG", "SET", "save", "3600 1"]).await;
    redis.command(&["BGSAVE"]).await;
    until("writes are refused", async || {
        let answer = redis.try_command(&["SET", "x", "x"]).await.unwrap();
        matches!(answer, Resp::Fault(fault) if fault.starts_with("MISCONF")).then_some(())
    })
    .await;
    let report = unhealthy(
        &server,
        "cannot write to its disk (refuses writes: MISCONF, rdb_last_bgsave_status)",
    )
    .await;
    assert!(report["latency_ms"]["ping"].is_null(), "{report:#}");
    let disk = finding(&server, "redis.disk").await;
    assert_eq!(disk["outcome"], "fail", "{disk}");
    assert!(
        disk["evidence"].to_string().contains("MISCONF") && disk["remedy"].to_string().contains("df -h"),
        "{disk}"
    );
    for check in ["redis.reachable", "redis.permissions", "redis.version"] {
        assert_eq!(finding(&server, check).await["outcome"], "pass", "{check}");
    }
}

#[tokio::test]
async fn a_replica_is_reported_as_one() {
    let server = Plan::new().start().await;
    server.redis().command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let report = unhealthy(
        &server,
        "this Redis is a read-only replica: set redis.url to its primary",
    )
    .await;
    assert!(report["latency_ms"]["ping"]["p50"].is_f64(), "{report:#}");
    let (code, text) = says(&server, "health").await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("get_ms: ") && !text.contains("set_ms: "), "{text}");
}

/// An operator of several of them sees at once which one this is about.
#[tokio::test]
async fn a_report_names_its_redis_without_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Redis::locked(directory.path(), "right-word").await;
    let path = redis.socket().display();
    let server = fleet(&format!("unix://:right-word@{path}?db=3")).await;
    let (_, text) = says(&server, "health").await;
    assert!(text.contains(&format!("Redis: unix://:***@{path}?db=3\n")), "{text}");
    assert!(!text.contains("right-word"), "{text}");
}

#[tokio::test]
async fn too_few_replicas_are_told() {
    let server = Plan::new().start().await;
    let redis = server.redis();
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    unhealthy(&server, "Redis refuses writes: NOREPLICAS").await;
    let role = finding(&server, "redis.role").await;
    assert_eq!(role["outcome"], "fail", "{role}");
    assert!(
        role["evidence"].to_string().contains("NOREPLICAS")
            && role["remedy"].to_string().contains("min-replicas-to-write"),
        "{role}"
    );
}
