//! Long-polling sessions where every request uses a fresh TCP connection: a server (or cluster) that needs sticky
//! sessions fails here.

use crate::common::{Common, seconds};
use crate::sio;
use crate::sio::{Packet, parse};
use crate::stats::{Report, Stats, bump, measure, round};
use crate::target::{Outcome, Target};
use clap::Args;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;
use tokio::task::spawn_local;

/// Between a failed session and the next (seconds).
const PAUSE_AFTER_FAILURE: f64 = 0.01;
/// Polls that may come back without the awaited packet.
const POLLS_MAX: usize = 20;
/// The ids of acks. Those of echoes count up from `ECHO`.
const JOIN: u64 = 1;
const PUBLISH: u64 = 2;
const ECHO: u64 = 10;
const UPGRADED: u64 = 9;

#[derive(Args, Clone)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Echoes with ack per session
    #[arg(long, default_value_t = 3)]
    pub(crate) echoes: usize,
    /// Then upgrade to WebSocket over another fresh connection and echo there
    #[arg(long)]
    pub(crate) upgrade: bool,
    /// Stop after so many sessions
    #[arg(long, default_value_t = 100_000)]
    pub(crate) max_sessions: u64,
}

#[derive(Default)]
struct Counts {
    started: Cell<u64>,
    requests: Cell<u64>,
    completed: Cell<u64>,
    failed: Cell<u64>,
}

impl Counts {
    fn now(&self) -> (u64, u64, u64) {
        (self.requests.get(), self.completed.get(), self.failed.get())
    }
}

pub(crate) async fn run(options: &Options) -> Outcome<Report> {
    let common = &options.common;
    let (target, stats) = (common.target()?, Stats::new());
    let counts = Rc::new(Counts::default());
    let mut tasks = Vec::new();
    for _ in 0..common.connections {
        let (target, stats, counts, options) = (target.clone(), stats.clone(), counts.clone(), options.clone());
        tasks.push(spawn_local(async move {
            while counts.started.get() < options.max_sessions {
                bump(&counts.started);
                let started = Instant::now();
                let mut session = Session {
                    target: &target,
                    requests: &counts.requests,
                    sid: String::new(),
                    queue: VecDeque::new(),
                };
                match session.run(&options, counts.started.get()).await {
                    Ok(()) => {
                        stats.op(started.elapsed().as_micros() as u64);
                        bump(&counts.completed);
                    }
                    Err(error) => {
                        stats.error(&error);
                        bump(&counts.failed);
                        tokio::time::sleep(seconds(PAUSE_AFTER_FAILURE)).await;
                    }
                }
            }
        }));
    }
    let (mut report, before) = measure(common, &stats, || counts.now()).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let (requests, completed, failed) = counts.now();
    let requests = requests - before.0;
    let cpu = report.get("server_cpu_s").and_then(Value::as_f64);
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("scenario", json!("polling"));
    put("http_requests", json!(requests));
    put("sessions_completed", json!(completed - before.1));
    put("sessions_failed", json!(failed - before.2));
    if let Some(cpu) = cpu {
        let each = cpu * 1e6 / requests.max(1) as f64;
        put("server_cpu_us_per_request", json!(round(each, 1)));
    }
    put("errors", json!(*stats.errors.borrow()));
    Ok(report)
}

struct Session<'a> {
    target: &'a Target,
    requests: &'a Cell<u64>,
    /// Empty until the handshake is answered.
    sid: String,
    /// Packets that were received and not looked at.
    queue: VecDeque<String>,
}

impl Session<'_> {
    async fn run(&mut self, options: &Options, number: u64) -> Outcome<()> {
        let common = &options.common;
        let open = self.get().await?;
        let open = open.strip_prefix('0').ok_or("open: bad packet")?;
        let open: Value = serde_json::from_str(open).map_err(|_| "open: bad packet")?;
        open["sid"].as_str().ok_or("open: no sid")?.clone_into(&mut self.sid);
        let auth = common.auth.as_ref().map(Value::to_string).unwrap_or_default();
        self.post(&format!("40{auth}")).await?;
        self.wait(|packet| packet.starts_with("40")).await?;
        let room = format!("poll-{}-{number}", std::process::id());
        self.post(&format!("42{JOIN}[\"{}\",\"{room}\"]", common.ev_join))
            .await?;
        self.wait(|packet| is_ack(packet, JOIN)).await?;
        for (id, nth) in (ECHO..).zip(0..options.echoes) {
            let text = format!("hello-{number}-{nth}");
            self.post(&format!("42{id}[\"{}\",\"{text}\"]", common.ev_echo)).await?;
            let answer = self.wait(|packet| is_ack(packet, id)).await?;
            if !answer.contains(&text) {
                return Err("wrong echo".to_owned());
            }
        }
        // A message to the session's own room must come back.
        let text = format!("to-{room}");
        self.post(&format!("42{PUBLISH}[\"{}\",\"{room}\",\"{text}\"]", common.ev_publish))
            .await?;
        self.wait(|packet| matches!(parse(packet), Packet::Event(array) if array.contains(&text)))
            .await?;
        if options.upgrade {
            return self.upgrade(options).await;
        }
        self.post("1").await
    }

    /// As a client does it: a poll is pending while the probe runs, the server ends that poll (with a noop if it has
    /// nothing else), and only then the upgrade packet is sent.
    async fn upgrade(&self, options: &Options) -> Outcome<()> {
        self.requests.set(self.requests.get() + 2);
        let poll = self.target.http(Some(&self.sid), None);
        let (mut socket, _) = tokio::try_join!(sio::probe(self.target, &self.sid), poll)?;
        socket.send("5".to_owned()).await?;
        socket
            .send(format!("42{UPGRADED}[\"{}\",\"up\"]", options.common.ev_echo))
            .await?;
        tokio::time::timeout(self.target.timeout, socket.ack(UPGRADED))
            .await
            .map_err(|_| "upgraded echo: timeout")??;
        socket.close().await;
        Ok(())
    }

    async fn get(&self) -> Outcome<String> {
        bump(self.requests);
        let sid = (!self.sid.is_empty()).then_some(self.sid.as_str());
        self.target.http(sid, None).await
    }

    async fn post(&self, body: &str) -> Outcome<()> {
        bump(self.requests);
        self.target.http(Some(&self.sid), Some(body)).await.map(|_| ())
    }

    /// Polls until a packet fits; heartbeats are answered.
    async fn wait(&mut self, fits: impl Fn(&str) -> bool) -> Outcome<String> {
        for _ in 0..POLLS_MAX {
            while let Some(packet) = self.queue.pop_front() {
                if packet == "2" {
                    self.post("3").await?;
                } else if packet == "1" {
                    return Err("closed by server".to_owned());
                } else if let Some(error) = packet.strip_prefix("44") {
                    return Err(format!("connect_error: {error}"));
                } else if fits(&packet) {
                    return Ok(packet);
                }
            }
            let body = self.get().await?;
            self.queue.extend(body.split('\x1e').map(str::to_owned));
        }
        Err(format!("packet did not come in {POLLS_MAX} polls"))
    }
}

fn is_ack(packet: &str, id: u64) -> bool {
    matches!(parse(packet), Packet::Ack(got, _) if got == id)
}
