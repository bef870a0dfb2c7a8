//! The programs that README.md and docs/emit.md show do what is said of them.

use crate::book::{Page, pages, root};
use crate::harness::{Plan, Resp, Server, Wire, ms, until, within};
use serde_json::json;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

fn page(path: &str) -> Page {
    pages().into_iter().find(|page| page.path == path).expect("the page")
}

/// Starts what is shown in a language, with what it takes for granted put in its place.
async fn start(page: &Page, language: &str, replace: &[(&str, &str)]) -> Child {
    let mut program = page.program(language);
    for (shown, real) in replace {
        assert!(program.contains(shown), "{shown} in {program}");
        program = program.replace(shown, real);
    }
    let venv = root().join("target/test-venv/bin/python");
    let (interpreter, argument) = match language {
        "js" => ("node".into(), "--input-type=module"),
        _ if venv.exists() => (venv, "-"),
        _ => ("python3".into(), "-"),
    };
    let mut command = Command::new(interpreter);
    // Modules are looked for there.
    command.arg(argument).current_dir(root().join("tests/clients"));
    // What it prints comes at once.
    command.env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command
        .spawn()
        .expect("node and python3: `make test` installs what is missing");
    child.stdin.take().unwrap().write_all(program.as_bytes()).await.unwrap();
    child
}

#[tokio::test]
async fn the_quick_start_gets_its_own_message() {
    let server = Plan::new().start().await;
    let readme = page("README.md");
    for (language, printed) in [("js", "got { text: 'hello' }"), ("python", "got {'text': 'hello'}")] {
        let mut child = start(&readme, language, &[("http://127.0.0.1:8000", &server.url())]).await;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within(ms(20_000), language, lines.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(printed), "{language}");
    }
}

/// A client in the room that the programs emit to.
async fn listener(server: &Server) -> Wire {
    let mut wire = Wire::open(server).await;
    wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", "chat"])).await, json!(["ok"]));
    // Channels keep nothing: their reader must be there.
    until("a worker reads the channels", async || {
        let asked = server.redis().command(&["PUBSUB", "NUMSUB", "socketio"]).await;
        (asked == Resp::List(vec![Resp::Text("socketio".to_owned()), Resp::Int(1)])).then_some(())
    })
    .await;
    wire
}

#[tokio::test]
async fn emitters_reach_a_room() {
    let server = Plan::new().start().await;
    let emit = page("docs/emit.md");
    let mut wire = listener(&server).await;
    let path = server.redis().socket().to_str().unwrap();
    let _python = start(&emit, "python", &[("redis://127.0.0.1:6379", &server.redis().url())]).await;
    let packet = within(ms(20_000), "python", wire.data()).await;
    assert!(packet.starts_with(r#"42["news",{"n": 1}"#), "{packet}");
    let client = format!("createClient({{ socket: {{ path: {path:?} }} }})");
    let _node = start(
        &emit,
        "js",
        &[("createClient()", &client), ("someSocketId", "'unknown'")],
    )
    .await;
    let packet = within(ms(20_000), "node", wire.data()).await;
    assert!(packet.starts_with(r#"451-["news","hello","#), "{packet}");
}
