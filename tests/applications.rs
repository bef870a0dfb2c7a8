//! An application in processes of its own (`app.kind = "external"`): the same transcript as on plain python-socketio, and what
//! deaths of its processes and of workers do to its clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

extern crate harness;

use harness::{Plan, Server, Talk, ms, node, python, signal};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How often something dies, and how many times.
const DEATHS: usize = 4;

async fn server() -> Server {
    Plan::new()
        .with("app = { kind = 'external' }\nworkers = { count = 3 }\nreload = { soak_ms = 0 }")
        .start()
        .await
}

/// A process of the application; it is killed when this goes.
async fn process(server: &Server) -> Talk {
    let mut process = python("guide_app.py").arg("--redis", &server.redis().url()).talk();
    assert_eq!(process.hear().await, json!({ "ready": true }));
    process
}

async fn transcript(url: &str, transports: &str) -> Value {
    let program = python("guide.py").arg("--url", url).arg("--transports", transports);
    let (transcript, content) = program.run().await;
    assert!(content);
    transcript
}

/// Plain python-socketio says what is expected.
async fn same(transports: &str) {
    let mut plain = python("guide_app.py").talk();
    let port = plain.hear().await["port"].as_u64().expect("a port");
    let expected = transcript(&format!("http://127.0.0.1:{port}"), transports).await;
    let server = server().await;
    let _process = process(&server).await;
    assert_eq!(transcript(&server.url(), transports).await, expected);
}

#[tokio::test]
async fn polling_clients_see_what_they_see_on_plain_python_socketio() {
    same("polling").await;
}

#[tokio::test]
async fn upgrading_clients_see_what_they_see_on_plain_python_socketio() {
    same("polling,websocket").await;
}

#[tokio::test]
async fn websocket_clients_see_what_they_see_on_plain_python_socketio() {
    same("websocket").await;
}

/// What clients of both transports that talk in a room saw until `work` was done.
async fn talking(server: &Server, work: impl Future<Output = ()>) -> Value {
    let (end, until) = oneshot::channel();
    let program = node("guide_load.mjs").arg("--url", &server.url()).until(until);
    let work = async {
        work.await;
        end.send(()).expect("it runs");
    };
    let ((found, content), ()) = tokio::join!(program.run(), work);
    assert!(content, "{found}");
    for what in ["missing", "doubled", "disordered"] {
        assert_eq!(found[what], 0, "{what}: {found}");
    }
    assert!(found["acked"].as_u64().is_some_and(|acked| acked > 50), "{found}");
    found
}

#[tokio::test]
async fn a_killed_process_of_the_application_disconnects_no_client_and_loses_nothing() {
    let server = server().await;
    let mut processes = vec![process(&server).await, process(&server).await];
    let found = talking(&server, async {
        sleep(ms(3_000)).await;
        for _ in 0..DEATHS {
            drop(processes.remove(0));
            processes.push(process(&server).await);
            sleep(ms(1_500)).await;
        }
    })
    .await;
    assert_eq!(found["disconnects"], 0, "{found}");
    assert_eq!(found["unknown"], 0, "{found}");
}

#[tokio::test]
async fn a_killed_worker_costs_its_clients_a_resume_and_nothing_that_was_acked() {
    let server = server().await;
    let _process = process(&server).await;
    let found = talking(&server, async {
        sleep(ms(3_000)).await;
        for turn in 0..DEATHS {
            let workers = server.status().await.ready_pids();
            signal(workers[turn % workers.len()], Signal::SIGKILL);
            sleep(ms(2_000)).await;
        }
    })
    .await;
    assert_eq!(found["not_recovered"], 0, "{found}");
}

#[tokio::test]
async fn a_client_without_an_application_is_not_refused() {
    let server = server().await;
    let program = python("guide.py")
        .arg("--url", &server.url())
        .arg("--transports", "websocket");
    let first = async {
        sleep(ms(500)).await;
        process(&server).await
    };
    // It waits for the application, and is let in when that is there.
    let ((transcript, content), _process) = tokio::join!(program.run(), first);
    assert!(content, "{transcript}");
    assert_eq!(transcript[1][0], "in");
}
