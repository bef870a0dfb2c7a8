//! What else than requests comes over the control socket: the supervisor answers nothing that it does not understand, lets
//! the connection go, and serves others meanwhile.

use crate::Test;
use crate::harness::{PATIENCE, Supervisor, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = &[
    (
        "control::nothing_on_the_socket_stalls_the_supervisor",
        nothing_on_the_socket_stalls_the_supervisor,
    ),
    (
        "control::a_client_that_has_said_all_gets_its_answer",
        a_client_that_has_said_all_gets_its_answer,
    ),
    (
        "control::a_supervisor_is_stopped_without_its_file",
        a_supervisor_is_stopped_without_its_file,
    ),
    ("control::a_stopped_supervisor_is_named", a_stopped_supervisor_is_named),
];

/// A command has its answer by then although others misbehave: all connections may be taken by silent ones, which are
/// let go after 5 s.
const ANSWERED: Duration = Duration::from_secs(10);

/// Lines that are no request.
const NOT_REQUESTS: &[&str] = &[
    r#""#,
    r#" "#,
    r#"null"#,
    r#"true"#,
    r#"0"#,
    r#"-1"#,
    r#"1e999"#,
    r#""""#,
    r#"[]"#,
    r#"{}"#,
    r#"status"#,
    r#""status""#,
    r#"'status'"#,
    r#"{"command":null}"#,
    r#"{"command":""}"#,
    r#"{"command":1}"#,
    r#"{"command":["status"]}"#,
    r#"{"command":{}}"#,
    r#"{"command":"Status"}"#,
    r#"{"command":"STATUS"}"#,
    r#"{"command":"statu"}"#,
    r#"{"command":"status "}"#,
    r#"{"command":"kill"}"#,
    r#"{"command":"status"}{"command":"status"}"#,
    r#"{"command":"status"},"#,
    r#"[{"command":"status"}]"#,
    r#"{"command":"status","command":"stop","fast":true}"#,
    r#"{"Command":"status"}"#,
    r#"{"command":"reload"}"#,
    r#"{"command":"reload","wait":null}"#,
    r#"{"command":"reload","wait":"yes"}"#,
    r#"{"command":"reload","wait":1}"#,
    r#"{"command":"reload","wait":[]}"#,
    r#"{"wait":true}"#,
    r#"{"command":"scale"}"#,
    r#"{"command":"scale","workers":-1}"#,
    r#"{"command":"scale","workers":65536}"#,
    r#"{"command":"scale","workers":1.5}"#,
    r#"{"command":"scale","workers":"1"}"#,
    r#"{"command":"scale","workers":null}"#,
    r#"{"command":"scale","workers":1e400}"#,
    r#"{"command":"stop"}"#,
    r#"{"command":"stop","fast":null}"#,
    r#"{"command":"stop","fast":"true"}"#,
    r#"{"command":"stop","fast":{}}"#,
    r#"{"command":"upgrade"}"#,
    r#"{"command":"upgrade","wait":0}"#,
    r#"{"command":"upgrade","state":"x","wait":true}"#,
    r#"{"command":"status""#,
    r#"{"command":"stat"#,
    "\u{feff}{\"command\":\"status\"}",
    r#"{command:"status"}"#,
    r#"{'command':'status'}"#,
    r#"{"command":"status",}"#,
    r#"{"command":"\ud800"}"#,
    r#"{"command":"status"} // c"#,
    r#"GET / HTTP/1.1"#,
    r#"HELLO"#,
    "status\r",
    r#"NaN"#,
    "\0\0\0\0",
];

fn connect(supervisor: &Supervisor) -> UnixStream {
    let stream = UnixStream::connect(supervisor.run_directory().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whatever comes until the supervisor closes.
fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is closed with something unread is reset.
    stream.read_to_end(&mut bytes).ok();
    String::from_utf8(bytes).unwrap()
}

fn nothing_on_the_socket_stalls_the_supervisor() {
    let supervisor = Supervisor::serving(1, "message", "");
    let pid = supervisor.pid();
    let long = "x".repeat(100_000);
    let deep = "[".repeat(2_000);
    let others = [deep, long];
    for text in NOT_REQUESTS.iter().copied().chain(others.iter().map(String::as_str)) {
        let mut stream = connect(&supervisor);
        // It may close while it is written to.
        stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.write_all(b"\n"))
            .ok();
        assert_eq!(rest(&mut stream), "", "{text:?} is answered");
    }
    for bytes in [
        &b"\xff\xfe\n"[..],
        b"\"\xc3(\"\n",
        b"\x80\x81\x82\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    ] {
        let mut stream = connect(&supervisor);
        stream.write_all(bytes).unwrap();
        assert_eq!(rest(&mut stream), "", "{bytes:?}");
    }
    // Two requests in one write: the first is answered, and the connection is over.
    let mut stream = connect(&supervisor);
    stream
        .write_all(b"{\"command\":\"status\"}\n{\"command\":\"stop\",\"fast\":true}\n")
        .unwrap();
    let answer = rest(&mut stream);
    assert!(answer.lines().count() == 1 && answer.contains("serving"), "{answer}");
    // One request in many writes.
    let mut stream = connect(&supervisor);
    for byte in b"{\"command\":\"status\"}\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(rest(&mut stream).contains("serving"));
    // Half a request and the end; a whole one and a client that does not wait.
    let mut half = connect(&supervisor);
    half.write_all(b"{\"comm").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut half), "");
    for _ in 0..50 {
        connect(&supervisor).write_all(b"{\"command\":\"status\"}\n").unwrap();
    }
    // More silent connections than there are places, and clients that take no answer.
    let held: Vec<UnixStream> = (0..64).map(|_| connect(&supervisor)).collect();
    for mut stream in held.iter().take(16) {
        stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    }
    let started = Instant::now();
    assert!(supervisor.command(&["status"]).status.success());
    assert!(started.elapsed() < ANSWERED, "{:?}", started.elapsed());
    drop(held);
    assert_eq!((supervisor.pid(), supervisor.state().as_str()), (pid, "serving"));
    assert!(supervisor.command(&["stop"]).status.success());
}

/// As `nc -N` and `socat` do: they close their side for writing after a whole request.
fn a_client_that_has_said_all_gets_its_answer() {
    let mut supervisor = Supervisor::serving(1, "message", "");
    let ask = |request: &str| {
        let mut stream = connect(&supervisor);
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    // At once, after a while, at the end of the supervisor.
    assert!(rest(&mut ask(r#"{"command":"status"}"#)).contains("serving"));
    let answer = rest(&mut ask(r#"{"command":"reload","wait":true}"#));
    assert!(answer.contains(r#""ok":true"#), "{answer}");
    // One that is gone meanwhile is let go, and nothing spins.
    drop(ask(r#"{"command":"reload","wait":true}"#));
    let answer = rest(&mut ask(r#"{"command":"reload","wait":true}"#));
    assert!(answer.contains(r#""ok":"#), "{answer}");
    let answer = rest(&mut ask(r#"{"command":"stop","fast":false}"#));
    assert!(answer.contains(r#""ok":true"#), "{answer}");
    assert_eq!(supervisor.end(PATIENCE), Some(0));
}

/// A file that was moved or unmounted after the start.
fn a_supervisor_is_stopped_without_its_file() {
    let mut supervisor = Supervisor::serving(1, "message", "");
    let file = supervisor.run_directory().with_file_name("supervisor.toml");
    std::fs::remove_file(&file).unwrap();
    for command in ["stop", "status"] {
        let output = supervisor.command(&[command]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("set ANYWORKER_RUNTIME__DIRECTORY to it"), "{text}");
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["stop", "--config"]).arg(&file);
    command
        .env_clear()
        .env("ANYWORKER_RUNTIME__DIRECTORY", supervisor.run_directory());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(supervisor.end(PATIENCE), Some(0));
}

fn a_stopped_supervisor_is_named() {
    let supervisor = Supervisor::serving(1, "message", "");
    let pid = supervisor.pid();
    supervisor.signal(Signal::SIGSTOP);
    let mut child = supervisor.command_in_background(&["stop"]);
    let mut said = String::new();
    let mut errors = child.stderr.take().unwrap();
    let mut bytes = [0; 1024];
    while !said.contains('\n') {
        let count = errors.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "it ends and says only {said:?}");
        said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert!(
        said.contains(&format!("the supervisor (pid {pid}) is stopped")),
        "{said}"
    );
    assert!(said.contains(&format!("`kill -CONT {pid}`")), "{said}");
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    let status = until("an end", PATIENCE, || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
}
