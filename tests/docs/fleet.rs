//! What the commands of the documents are run against: four workers with five hundred sessions, one of which has a past.

use crate::harness::{Plan, Poller, Server, Wire, signal, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Of each transport.
const SESSIONS: usize = 250;
/// Of `POST /api/emit`.
const SECRET: &str = "3a6f0f2b7c1d4e5890ab12cd34ef5678";

/// The fleet, and its connected clients.
pub(crate) struct Fleet {
    pub(crate) server: Server,
    /// Sid and socket of the session with the past.
    hero: (String, String),
    /// Sids of sessions that commands may end.
    victims: Vec<String>,
    _wires: Vec<Wire>,
    traffic: JoinHandle<()>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None: it was ended from outside.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let server = Plan::new()
            .without_redis()
            // Pings are not answered here.
            .with("redis = { managed = true }\nengine = { ping_interval_ms = 600000 }")
            .with("reload = { soak_ms = 0 }\nhttp = { origins = ['*'] }")
            .env("ANYWORKER_EMIT__SECRET", SECRET)
            .start()
            .await;
        for name in ["anyworker", "redis-cli"] {
            let program = server.directory().join("bin").join(name);
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            let built = std::env::var("ANYWORKER_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_anyworker").to_owned());
            // As the documents say: "`redis-cli` stands for `redis-cli -s DIRECTORY/redis.sock`".
            let line = match name {
                "anyworker" => format!("{built} \"$@\""),
                _ => format!(
                    "/usr/bin/env -S PATH={} redis-cli -s {} \"$@\"",
                    path(),
                    server.directory().join("run/redis.sock").display()
                ),
            };
            std::fs::write(&program, format!("#!/bin/sh\nexec {line}\n")).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let (sid, socket, wire) = past(&server).await;
        let (mut wires, mut victims) = (vec![wire], Vec::new());
        for nth in 0..SESSIONS {
            let (user, room) = (format!("u{nth}"), format!("room{}", nth % 10));
            let mut wire = Wire::open(&server).await;
            wire.send(&format!(r#"40{{"user":"{user}"}}"#)).await;
            assert!(wire.data().await.starts_with("40"));
            assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
            wires.push(wire);
            let poller = poller(&server, &user).await;
            assert_eq!(poller.call(0, &json!(["join", room])).await, json!(["ok"]));
            victims.extend(Some(poller.sid).filter(|sid| !sid.starts_with('-')));
        }
        let traffic = tokio::spawn(traffic(server.addr));
        Self {
            server,
            hero: (sid, socket),
            victims,
            _wires: wires,
            traffic,
        }
    }

    /// Runs a command as a shell in the fleet's directory does, with what stands for something put in its place.
    pub(crate) async fn run(&mut self, command: &str, limit: Option<Duration>) -> Ended {
        let command = self.meant(command);
        let directory = self.server.directory().to_owned();
        let mut shell = Command::new("timeout");
        let limit = limit.unwrap_or(Duration::from_secs(60));
        shell.arg(format!("{:.1}", limit.as_secs_f64()));
        shell.args(["bash", "-o", "pipefail", "-c", &command]);
        shell.env_clear().current_dir(&directory).stdin(Stdio::null());
        shell.env("PATH", format!("{}:{}", directory.join("bin").display(), path()));
        // The signs of the documents are those of UTF-8.
        shell.envs([("LC_ALL", "C.UTF-8"), ("ANYWORKER_EMIT__SECRET", SECRET)]);
        let output = shell.output().await.expect("timeout and bash");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            // What timeout(1) says of what it ended.
            code: output.status.code().filter(|code| *code != 124),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The documents say SID, SOCKET, ROOM, NAME, and speak of port 8000.
    fn meant(&mut self, command: &str) -> String {
        let ends = command.contains("kick") || command.contains("DEL ");
        let sid = match ends {
            true => self.victims.pop().expect("a session"),
            false => self.hero.0.clone(),
        };
        let mut meant = String::new();
        for word in command.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            let (end, rest) = match word.char_indices().next_back() {
                Some((at, last)) if !last.is_ascii_alphanumeric() && !matches!(last, '-' | '_') => word.split_at(at),
                _ => (word, ""),
            };
            let id = end.len() == 20 && end.chars().any(char::is_uppercase) && end.chars().any(char::is_lowercase);
            meant.push_str(match end {
                "SID" => &sid,
                "SOCKET" => &self.hero.1,
                _ if id => &self.hero.1,
                "ROOM" => "room3",
                "NAME" => "u7",
                other => other,
            });
            meant.push_str(rest);
        }
        meant
            .replace("127.0.0.1:8000", &self.server.addr.to_string())
            .replace("127.0.0.1:9464", &self.server.admin.to_string())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.traffic.abort();
    }
}

fn path() -> String {
    std::env::var("PATH").unwrap()
}

/// A polling session of a user, whose client understands offsets.
async fn poller(server: &Server, user: &str) -> Poller {
    let poller = Poller::open(server).await;
    poller.say(format!(r#"40{{"user":"{user}","recovery":1}}"#)).await;
    poller.poll_until(|packet| packet.starts_with("40")).await;
    poller
}

/// A client that upgraded, whose worker was killed, that came back as another session, upgraded, and was moved by a reload. Its
/// sid, its socket, its connection.
async fn past(server: &Server) -> (String, String, Wire) {
    let first = loop {
        let poller = Poller::open(server).await;
        if !poller.sid.starts_with('-') {
            break poller;
        }
    };
    first.say(r#"40{"user":"ada","recovery":1}"#).await;
    let packets = first.poll_until(|packet| packet.starts_with("40")).await;
    let joined: Value = serde_json::from_str(&packets[0][2..]).unwrap();
    let mut wire = upgraded(server, &first).await;
    assert_eq!(wire.call(0, &json!(["join", "news"])).await, json!(["ok"]));
    noted(server, &first.sid, "joined").await;
    signal(server.holder().await, Signal::SIGKILL);
    wire.drain().await;
    noted(server, &first.sid, "worker_died").await;
    let second = Poller::open(server).await;
    second
        .say(format!(r#"40{{"pid":{},"user":"ada","recovery":1}}"#, joined["pid"]))
        .await;
    let packets = second.poll_until(|packet| packet.starts_with("40")).await;
    assert!(packets[0].contains(joined["pid"].as_str().unwrap()), "{packets:?}");
    let wire = upgraded(server, &second).await;
    noted(server, &first.sid, "goes_on_as").await;
    server.serving().await;
    assert!(server.cli("reload", &["--wait"]).await.status.success());
    noted(server, &first.sid, "moved").await;
    (second.sid, joined["sid"].as_str().unwrap().to_owned(), wire)
}

async fn upgraded(server: &Server, poller: &Poller) -> Wire {
    let mut wire = Wire::dial(server.addr, &poller.upgrade_target(), &[]).await.unwrap();
    wire.send("2probe").await;
    assert_eq!(wire.text().await, "3probe");
    wire.send("5").await;
    assert_eq!(wire.call(9, &json!(["echo", 1])).await, json!([1]));
    wire
}

/// Waits until `what` is noted of a session.
async fn noted(server: &Server, sid: &str, what: &str) {
    let wanted = format!(" {what} ");
    until(what, async || {
        let output = server.cli("trace", &[sid]).await;
        String::from_utf8_lossy(&output.stdout).contains(&wanted).then_some(())
    })
    .await;
}

/// A client that comes, joins, publishes and goes, again and again, for the commands that watch.
async fn traffic(addr: std::net::SocketAddr) {
    loop {
        let mut wire = Wire::dial(addr, "/socket.io/?EIO=4&transport=websocket", &[])
            .await
            .unwrap();
        wire.text().await;
        wire.send(r#"40{"user":"eve"}"#).await;
        // A drain may end it at any point.
        for step in [
            r#"420["join","news"]"#,
            r#"421["publish","news",{"text":"hello"}]"#,
            "1",
        ] {
            harness::pass(harness::ms(100)).await;
            if wire.try_send(step).await.is_err() {
                break;
            }
        }
    }
}
