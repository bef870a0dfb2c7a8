//! The guide's six tests, and one session on every worker.

use crate::harness::{Plan, Poller, Server};
use crate::patient::{Illness, Patient, WORKERS};

async fn selftest(server: &Server) -> (i32, String) {
    let output = server.cli("selftest", &[]).await;
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// What the guide's script says, in this order.
const GUIDE: [&str; 6] = [
    "Test 1: Checking Redis Installation...",
    "Test 2: Checking Redis Server Status...",
    "Test 3: Testing Redis Connectivity...",
    "Test 4: Testing Basic Operations...",
    "Test 5: Testing Session Storage Pattern...",
    "Test 6: Testing Redis Performance...",
];

#[tokio::test]
async fn all_tests_pass_on_a_fleet_that_works() {
    let server = Plan::new().env("LANG", "C.UTF-8").start().await;
    let guest = Poller::open(&server).await;
    guest.connect().await;
    let (code, text) = selftest(&server).await;
    assert_eq!(code, 0, "{text}");
    let places: Vec<usize> = GUIDE
        .iter()
        .map(|line| text.find(line).unwrap_or_else(|| panic!("{line} in {text}")))
        .collect();
    assert!(places.is_sorted(), "{text}");
    for line in [
        "✅ SET operation successful",
        "✅ GET operation successful",
        "✅ DEL operation successful",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("🎉 All tests passed!") && !text.contains('❌'), "{text}");
    // Every worker has served the session, by its own name.
    for slot in 0..4 {
        let used = text
            .lines()
            .filter(|line| line.contains("Session used on worker") && line.contains(&format!("(slot {slot})")));
        assert_eq!(used.count(), 1, "{text}");
    }
    // Nothing is left, and the clients that were there are still there.
    let keys = server.redis().keys("socketio:*").await;
    let sessions: Vec<&String> = keys.iter().filter(|key| key.contains(":session:")).collect();
    assert_eq!(sessions, [&format!("socketio:session:{{{}}}", guest.sid)], "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains(":trial:")), "{keys:?}");
}

#[tokio::test]
async fn it_runs_with_commands_renamed_away_and_in_plain_letters() {
    let rights = format!("workers on >{WORKERS} ~socketio:* &* +@all -@dangerous");
    let patient = Patient::new(&Illness {
        redis: vec![
            ("rename-command", "CONFIG \"\""),
            ("rename-command", "KEYS \"\""),
            ("rename-command", "INFO \"\""),
            ("user", Box::leak(rights.into_boxed_str())),
        ],
        without: vec!["user"],
        ..Illness::default()
    })
    .await;
    let url = format!("redis.url = {:?}", patient.url());
    let server = Plan::new().without_redis().with(&url).start().await;
    let (code, text) = selftest(&server).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.is_ascii() && text.contains("[ok] Redis connectivity test passed"),
        "{text}"
    );
    // Health says what it cannot see.
    let output = server.cli("health", &[]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("Could not see:") && text.contains("unknown command"),
        "{text}"
    );
    assert!(
        text.contains("redis_version: ") && text.contains("Total Sessions: 0"),
        "{text}"
    );
}

#[tokio::test]
async fn without_redis_and_without_a_fleet_it_fails() {
    let mut server = Plan::new().start().await;
    server.redis_mut().kill();
    let (code, text) = selftest(&server).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("[FAILED] nothing accepts at"), "{text}");
    assert!(
        text.contains("[FAILED] no session: the handshake was answered with 503"),
        "{text}"
    );

    let patient = Patient::new(&Illness::default()).await;
    let output = patient.ask(&["selftest"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("[ok] Session retrieval successful"), "{text}");
    assert!(text.contains("[FAILED] no supervisor answers at"), "{text}");
}

#[tokio::test]
async fn a_single_worker_without_redis_passes() {
    let server = Plan::new()
        .without_redis()
        .with("redis.enabled = false\nworkers.count = 1")
        .start()
        .await;
    let (code, text) = selftest(&server).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not needed: redis.enabled = false"), "{text}");
    assert!(
        text.contains("1 message published and received: all, in order"),
        "{text}"
    );
    assert!(text.contains("Session ended\n"), "{text}");
    let output = server.cli("health", &[]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn a_fleet_that_writes_elsewhere_is_noticed() {
    let mut server = Plan::new().start().await;
    // The file has been changed, and not reloaded.
    server.reconfigure("redis.prefix = \"chat\"");
    let (code, text) = selftest(&server).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("is not in Redis: another fleet listens at this address"),
        "{text}"
    );
}

/// `anyworker selftest | head -1`: the reader closes its end early.
#[tokio::test]
async fn a_closed_pipe_is_no_error() {
    let server = Plan::new().start().await;
    let run = |command: &str, closed_error: bool| {
        let closed = || std::process::Stdio::from(std::io::pipe().expect("a pipe").1);
        let mut command = server.command(command);
        if closed_error {
            command.stderr(closed());
        } else {
            command.stdout(closed());
        }
        command.status().unwrap().code()
    };
    for command in ["selftest", "check", "status", "health", "--help"] {
        assert_eq!(run(command, false), Some(0), "{command}");
    }
    assert_eq!(run("nope", true), Some(64));
}
