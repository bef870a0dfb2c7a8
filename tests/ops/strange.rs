//! A Redis that is none, or not as it should be: every command says which, and what to do.

use crate::harness::{PATIENCE, Plan, Redis, Server};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Somebody who gives the same answer to everything.
async fn somebody(answer: &'static str) -> SocketAddr {
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

/// A fleet that is started with this `redis.url`; nobody waits until it serves.
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
    let addr = somebody("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    // The letter is in most messages of parsers: none is shown.
    let server = fleet(&format!("redis://:e@{addr}/1")).await;
    let fault = format!("what answers at {addr} is not Redis");
    server.logged(&fault).await;
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
    let server = fleet(&format!("redis://{addr}")).await;
    server.logged(&fault).await;
}

#[tokio::test]
async fn a_redis_that_is_too_old_is_refused_at_the_start() {
    let addr = somebody("$22\r\nredis_version:5.0.14\r\n\r\n").await;
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
