//! Redis answers and takes no writes: a publisher is told why.

use crate::harness::{Plan, Redis, Request, Resp, Server, Wire, ask, soon, until};
use serde_json::json;

const SECRET: &str = "a-secret-of-at-least-thirty-two-characters";

/// What keeps Redis from taking writes: what brings it about, what ends it, and its code.
struct Cause {
    begin: &'static [&'static str],
    end: &'static [&'static str],
    code: &'static str,
    /// What a publisher reads.
    told: &'static str,
}

const CAUSES: [Cause; 4] = [
    Cause {
        begin: &["CONFIG", "SET", "maxmemory", "1"],
        end: &["CONFIG", "SET", "maxmemory", "0"],
        code: "OOM",
        told: "redis refuses writes: OOM, it has reached its maxmemory",
    },
    Cause {
        begin: &["REPLICAOF", "127.0.0.1", "1"],
        end: &["REPLICAOF", "NO", "ONE"],
        code: "READONLY",
        told: "redis refuses writes: READONLY, it is a replica",
    },
    Cause {
        begin: &["CONFIG", "SET", "min-replicas-to-write", "1"],
        end: &["CONFIG", "SET", "min-replicas-to-write", "0"],
        code: "NOREPLICAS",
        told: "redis refuses writes: NOREPLICAS, too few replicas follow it",
    },
    // A snapshot has failed, and another one would have been due.
    Cause {
        begin: &["BGSAVE"],
        end: &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"],
        code: "MISCONF",
        told: "redis refuses writes: MISCONF, it cannot write to its disk",
    },
];

async fn emit(server: &Server) -> (u16, serde_json::Value) {
    let event = json!({"rooms": ["room"], "event": "news"}).to_string();
    let request = Request::post("/api/emit", event).header("Authorization", &format!("Bearer {SECRET}"));
    let reply = soon("an answer", ask(server.addr, request)).await.unwrap();
    (reply.status, reply.json())
}

async fn refuses(redis: &Redis, code: &str) {
    until(code, async || {
        let answer = redis.try_command(&["SET", "x", "x"]).await.unwrap();
        matches!(answer, Resp::Fault(fault) if fault.starts_with(code)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_publisher_is_told_why_redis_refuses_writes() {
    let plan = Plan::new().with("log.publish_timeout_ms = 700");
    let server = plan.with(&format!("emit.secret = {SECRET:?}")).start().await;
    let redis = server.redis();
    // A directory where the snapshot is to be: no user can replace it with a file.
    std::fs::create_dir_all(server.directory().join("dump.rdb/x")).unwrap();
    redis.command(&["CONFIG", "SET", "save", "3600 1"]).await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let publish = json!(["publish", "room", "news"]);
    for (at, cause) in CAUSES.iter().enumerate() {
        let id = at as u64 * 2;
        redis.command(cause.begin).await;
        refuses(redis, cause.code).await;
        // Not at once: each of them can pass within the time that a publisher waits.
        let wanted = format!("not confirmed by redis within 700ms: {}", cause.told);
        assert_eq!(wire.call(id, &publish).await, json!([{"error": wanted}]));
        let (status, told) = emit(&server).await;
        assert_eq!((status, &told["error"]), (503, &json!(wanted)), "{told}");
        redis.command(cause.end).await;
        until("writes again", async || {
            let (status, _) = emit(&server).await;
            (status == 200).then_some(())
        })
        .await;
        assert_eq!(wire.call(id + 1, &publish).await, json!(["ok"]));
    }
}

#[tokio::test]
async fn a_publisher_is_told_that_redis_is_away_or_silent() {
    let plan = Plan::new().with("log.publish_timeout_ms = 700");
    let plan = plan.with("redis = { response_timeout_ms = 200, connect_timeout_ms = 200 }");
    let mut server = plan.start().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    let publish = json!(["publish", "room", "news"]);
    server.redis().signal(nix::sys::signal::Signal::SIGSTOP);
    let silent = "not confirmed by redis within 700ms: redis does not answer";
    assert_eq!(wire.call(1, &publish).await, json!([{"error": silent}]));
    server.redis_mut().kill();
    let away = "not confirmed by redis within 700ms: redis is not available";
    until("it is away", async || {
        (wire.call(2, &publish).await == json!([{"error": away}])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_passes_in_time_is_no_error() {
    let server = Plan::new().start().await;
    let redis = server.redis();
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    for (at, cause) in CAUSES.iter().take(3).enumerate() {
        redis.command(cause.begin).await;
        refuses(redis, cause.code).await;
        wire.send(&format!(r#"42{at}["publish","room","news"]"#)).await;
        // It is refused once at least.
        harness::pass(harness::ms(200)).await;
        redis.command(cause.end).await;
        assert_eq!(wire.data().await, format!(r#"43{at}["ok"]"#));
    }
}
