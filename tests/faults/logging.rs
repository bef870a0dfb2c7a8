//! A log that cannot be written: nothing ends, nothing waits, and what is missing is counted.
//!
//! Reference: Node's `console.error` throws away what a closed pipe does not take, and ends the process with an unhandled
//! `EPIPE` or waits for ever where the pipe is full.

use crate::harness::{Frame, PATIENCE, Plan, Server, Wire, ms, signal, soon, until, within};
use crate::recovery::come_back;
use nix::sys::signal::Signal;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
/// `workers.grace_ms` and what the supervisor and the managed Redis need besides.
const STOPPED_BY: Duration = ms(25_000);
/// A command that only asks is answered by then, on a loaded machine.
const ANSWERED_BY: Duration = ms(5_000);

/// What standard error is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stderr {
    /// `run 2>&1 | head`, after `head` has seen enough.
    ClosedPipe,
    /// The window is closed: SIGHUP, and `EIO` for whatever is written.
    ClosedTerminal,
    /// The disk is full, from the first line on.
    FullDevice,
    /// The reader stands still.
    FullPipe { blocks: bool },
}

/// What a test holds as long as a server runs: the other end.
enum Other {
    Master(OwnedFd),
    Nothing,
    Reader(#[expect(dead_code, reason = "held open")] PipeReader),
}

/// A pipe without room, and its reader.
fn full_pipe(blocks: bool) -> (PipeReader, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    fcntl_setfl(&writer, OFlags::NONBLOCK).expect("flags");
    for size in [65_536, 1] {
        while writer.write(&vec![b'-'; size]).is_ok() {}
    }
    if blocks {
        fcntl_setfl(&writer, OFlags::empty()).expect("flags");
    }
    (reader, writer.into())
}

impl Stderr {
    /// Starts the server with it.
    fn start(self, server: &mut Server) -> Other {
        let (stderr, other): (OwnedFd, _) = match self {
            Self::ClosedPipe => (std::io::pipe().expect("a pipe").1.into(), Other::Nothing),
            Self::ClosedTerminal => {
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let master = openpt(flags).expect("a terminal");
                grantpt(&master).expect("a terminal");
                unlockpt(&master).expect("a terminal");
                let slave = ioctl_tiocgptpeer(&master, flags).expect("its other end");
                // It leads a session of that terminal, as what a terminal window starts does.
                let mut command = server.run_command_by(&["setsid", "-c"]);
                command
                    .stdin(slave.try_clone().expect("its other end"))
                    .stdout(Stdio::null())
                    .stderr(slave);
                server.spawn(command);
                return Other::Master(master);
            }
            Self::FullDevice => {
                let device = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
                (device.into(), Other::Nothing)
            }
            Self::FullPipe { blocks } => {
                let (reader, writer) = full_pipe(blocks);
                (writer, Other::Reader(reader))
            }
        };
        let mut command = server.run_command();
        command.stdout(Stdio::null()).stderr(stderr);
        server.spawn(command);
        other
    }

    /// Whether lines are lost from the first one on; a full pipe has a queue before it.
    const fn drops_at_once(self) -> bool {
        !matches!(self, Self::FullPipe { .. })
    }
}

/// One attempt at a publish, by a client of its own: whether it was acked.
async fn try_publish(server: &Server, payload: &str) -> Option<()> {
    let mut wire = Wire::try_dial(server.addr, WEBSOCKET).await?;
    loop {
        let Frame::Text(text) = wire.next().await else {
            return None;
        };
        if text.starts_with("0{") {
            wire.try_send("40").await.ok()?;
        } else if text.starts_with("40") {
            let event = json!(["publish", "room", payload]);
            wire.try_send(&format!("421{event}")).await.ok()?;
        } else if text.starts_with("43") {
            return (text == r#"431["ok"]"#).then_some(());
        }
    }
}

/// Publishes until it is acked: the payload that was. Each attempt has its own, since one without an ack may be in the log.
async fn publish(server: &Server, name: &str) -> String {
    let mut attempt = 0;
    until("an acked publish", async || {
        attempt += 1;
        let payload = format!("{name}-{attempt}");
        try_publish(server, &payload).await.map(|()| payload)
    })
    .await
}

/// A member of the room, and the latest offset that it has seen.
struct Member {
    wire: Wire,
    pid: Value,
    offset: Option<Value>,
}

impl Member {
    async fn join(server: &Server) -> Self {
        let mut wire = Wire::open(server).await;
        let pid = wire.connect().await["pid"].clone();
        assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
        Self {
            wire,
            pid,
            offset: None,
        }
    }

    async fn gets(&mut self, payload: &str) {
        loop {
            let packet = self.wire.data().await;
            let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
            self.offset = Some(event[2].clone());
            if event[1] == *payload {
                return;
            }
        }
    }
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

fn managed_redis(server: &Server) -> Option<u32> {
    let file = server.directory().join("run/redis/redis.pid");
    let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    is_there(pid).then_some(pid)
}

/// Clients publish and receive, the managed Redis dies, the fleet is reloaded, the supervisor is killed, another one takes
/// over and is told to stop; all that with a log that takes nothing.
async fn everything_goes_on(stderr: Stderr) {
    let plan = Plan::new().without_redis().with(
        "workers = { count = 2 }
         redis = { managed = true }
         recovery = { offsets = 'always' }",
    );
    let mut server = plan.prepare().await;
    let other = stderr.start(&mut server);
    server.ready().await;
    drop(hang_up(other, &server).await);
    let mut member = Member::join(&server).await;
    let acked = publish(&server, "first").await;
    member.gets(&acked).await;

    // Redis is killed, and started again by the supervisor.
    let redis = managed_redis(&server).expect("a managed Redis");
    signal(redis, Signal::SIGKILL);
    let second = until("another Redis", async || {
        managed_redis(&server).filter(|pid| *pid != redis)
    })
    .await;
    let acked = publish(&server, "after-redis").await;
    member.gets(&acked).await;

    if stderr.drops_at_once() {
        server
            .status_when("lines dropped", |status| status.supervisor.log_lines_dropped > 0)
            .await;
    }
    let status = within(ANSWERED_BY, "status", server.status()).await;
    let restarts: u64 = status.workers.iter().map(|worker| worker.restarts).sum();
    assert_eq!(restarts, 0, "{status:?}");
    let output = server.cli("reload", &["--wait"]).await;
    assert!(output.status.success(), "{output:?}");
    let acked = publish(&server, "after-reload").await;
    member.gets(&acked).await;

    // The supervisor is killed: its workers leave, and the next one gets the port and the Redis.
    let mut workers = server.workers();
    workers.retain(|pid| *pid != second);
    server.signal(Signal::SIGKILL);
    server.exit_within(PATIENCE).await;
    // It answers the close frame.
    member.wire.drain().await;
    until("the end of the workers", async || {
        workers.iter().all(|pid| !is_there(*pid)).then_some(())
    })
    .await;
    let other = stderr.start(&mut server);
    server.ready().await;
    assert!(!is_there(second), "the Redis of the former supervisor is still there");
    let other = hang_up(other, &server).await;
    let acked = publish(&server, "after-supervisor").await;
    let offset = member.offset.take();
    let (_wire, missed, _) = come_back(&server, &member.pid, offset.as_ref()).await;
    assert!(missed.contains(&json!(acked)), "{acked} is not in {missed:?}");

    let (pids, redis) = (server.workers(), managed_redis(&server).expect("a managed Redis"));
    let status = within(ANSWERED_BY, "status", server.status()).await;
    assert!(status.workers.iter().all(|worker| worker.restarts == 0), "{status:?}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_within(STOPPED_BY).await.code(), Some(0));
    let left: Vec<u32> = pids.into_iter().chain([redis]).filter(|pid| is_there(*pid)).collect();
    assert!(left.is_empty(), "still there: {left:?}");
    drop(other);
}

/// Closes the terminal, if it is one. The supervisor hears of it: SIGHUP is a reload.
async fn hang_up(other: Other, server: &Server) -> Other {
    let Other::Master(master) = other else { return other };
    drop(master);
    server
        .status_when("a reload by SIGHUP", |status| {
            status.supervisor.generation == 2 && status.supervisor.state == "serving"
        })
        .await;
    Other::Nothing
}

#[tokio::test]
async fn everything_goes_on_with_a_full_device() {
    everything_goes_on(Stderr::FullDevice).await;
}

#[tokio::test]
async fn everything_goes_on_with_a_closed_pipe() {
    everything_goes_on(Stderr::ClosedPipe).await;
}

#[tokio::test]
async fn everything_goes_on_with_a_full_pipe_that_blocks() {
    everything_goes_on(Stderr::FullPipe { blocks: true }).await;
}

#[tokio::test]
async fn everything_goes_on_with_a_full_pipe_that_does_not_block() {
    everything_goes_on(Stderr::FullPipe { blocks: false }).await;
}

#[tokio::test]
async fn everything_goes_on_without_the_terminal() {
    everything_goes_on(Stderr::ClosedTerminal).await;
}

/// Logs so much that lines have to be dropped.
async fn flood(server: &Server) {
    let mut wire = Wire::open(server).await;
    wire.connect().await;
    let room = "r".repeat(200);
    let mut id = 0;
    until("lines dropped", async || {
        // Each join is a line with the name of the room; the last answer says that all were carried out.
        for _ in 0..200 {
            wire.send(&format!(r#"42["join","{room}"]"#)).await;
            wire.send(&format!(r#"42["leave","{room}"]"#)).await;
        }
        id += 1;
        assert_eq!(wire.call(id, &json!(["echo", id])).await, json!([id]));
        (server.status().await.supervisor.log_lines_dropped > 0).then_some(())
    })
    .await;
}

/// Sum of what the notices in a log say, and how many lines there are. Every line is whole.
fn dropped_by_notices(text: &str) -> (u64, usize) {
    let mut sum = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|fault| panic!("{fault}: {line}"));
        if line["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("log lines dropped"))
        {
            sum += line["dropped"].as_u64().expect("a number");
        }
    }
    (sum, text.lines().count())
}

fn chatty() -> Plan {
    Plan::new().with("workers = { count = 2 }\nlogging = { level = 'trace', format = 'json', connections = true }")
}

/// A reader that stood still reads on: every line is whole, and the log says how many are not there.
#[tokio::test]
async fn what_a_slow_reader_misses_is_counted_and_told() {
    for blocks in [true, false] {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        if !blocks {
            fcntl_setfl(&writer, OFlags::NONBLOCK).expect("flags");
        }
        let mut server = chatty().prepare().await;
        let mut command = server.run_command();
        command.stdout(Stdio::null()).stderr(writer);
        server.spawn(command);
        server.ready().await;
        flood(&server).await;
        // A supervisor whose log stands still is upgraded, and still knows what it has dropped.
        let before = server.status().await.supervisor.log_lines_dropped;
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("UTF-8");
            text
        });
        let output = server.cli("upgrade", &["--wait"]).await;
        assert!(output.status.success(), "{output:?}");
        let after = server.status().await.supervisor.log_lines_dropped;
        assert!(after >= before, "{before} and then {after}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_within(STOPPED_BY).await.code(), Some(0));
        let text = soon("the end of the log", reading).await.expect("a reader");
        let (told, lines) = dropped_by_notices(&text);
        assert!(
            told >= before && lines > 500,
            "{told} of {before} told in {lines} lines"
        );
    }
}

/// A log file reaches the limit of its size (SIGXFSZ, `EFBIG`; a full disk says `ENOSPC`), and is emptied.
#[tokio::test]
async fn a_log_file_without_room_is_written_again_when_there_is_room() {
    let mut server = chatty().prepare().await;
    let path = server.directory().join("limited.log");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .expect("a log file");
    // 512 bytes each; what else is written here is smaller.
    let mut command = server.run_command_by(&["sh", "-c", "ulimit -f 600; exec \"$@\"", "sh"]);
    command.stdout(Stdio::null()).stderr(file);
    server.spawn(command);
    server.ready().await;
    flood(&server).await;
    assert!(std::fs::metadata(&path).expect("a log file").len() <= 600 * 512);
    let emptied = File::options().write(true).open(&path).expect("a log file");
    emptied.set_len(0).expect("empty it");
    let output = server.cli("reload", &["--wait"]).await;
    assert!(output.status.success(), "{output:?}");
    until("a notice", async || {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        text.contains("log lines dropped, they could not be written")
            .then_some(())
    })
    .await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_within(STOPPED_BY).await.code(), Some(0));
}

/// What a command found out is its exit code, whatever reads its words. A refusal was told as 0 to a script behind a closed
/// pipe, and as 70 behind a full disk.
#[tokio::test]
async fn the_verdict_of_a_command_needs_no_reader() {
    let mut server = Plan::new().prepare().await;
    let ended = |server: &Server, words: &[&str]| {
        let (name, words) = words.split_first().expect("a command");
        let full = || OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        [Stdio::from(full()), Stdio::from(std::io::pipe().expect("a pipe").1)].map(|stderr| {
            let mut command = server.command(name);
            let status = command.args(words).stdout(Stdio::null()).stderr(stderr).status();
            status.expect("run anyworker").code()
        })
    };
    for (words, code) in [
        (&["status"][..], 69),
        (&["reload", "--wait"], 69),
        (&["stop"], 69),
        (&["sessions", "show", "unknown"], 1),
        (&["check"], 0),
        (&["check", "--no-such-flag"], 64),
    ] {
        assert_eq!(ended(&server, words), [Some(code), Some(code)], "{words:?}");
    }
    server.redis_mut().kill();
    assert_eq!(ended(&server, &["sessions"]), [Some(69), Some(69)]);
    server.reconfigure("workers = { count = 'many' }");
    for words in [&["check"][..], &["run"], &["health"]] {
        assert_eq!(ended(&server, words), [Some(78), Some(78)], "{words:?}");
    }
}
