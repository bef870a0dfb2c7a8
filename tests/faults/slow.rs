//! One client that never reads, in a room with much traffic: what it costs the others.

use crate::harness::{Frame, Plan, Server, Wire, ms, pass, within};
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

/// Bytes of one message.
const MESSAGE: usize = 10_000;
/// Members that read.
const READERS: usize = 4;
/// A tail is compared from here on: below it the machine is measured, not the server.
const FLOOR: Duration = ms(20);
/// So often it is tried before the tail counts as longer.
const ATTEMPTS: usize = 3;

/// How long a run takes (`SLOW_SECONDS`), and how many bytes go into the room each second (`SLOW_RATE`).
fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Never reads more than a greeting; whenever it is closed it comes back, to the same session.
async fn never_reads(server: &Server, done: &Cell<bool>) -> u64 {
    let target = "/socket.io/?EIO=4&transport=websocket&recovery=1";
    let (mut pid, mut closed) = (Value::Null, 0);
    while !done.get() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream: TcpStream = socket.connect(server.addr).await.expect("connect");
        let mut wire = Wire::dial_on(stream, server.addr, target, &[])
            .await
            .expect("a WebSocket");
        wire.text().await;
        let auth = if pid.is_null() {
            String::new()
        } else {
            json!({ "pid": pid }).to_string()
        };
        wire.send(&format!("40{auth}")).await;
        // Its answer is the first thing that comes, or it is behind what it missed.
        if let Frame::Text(text) = wire.next().await
            && let Some(answer) = text.strip_prefix("40")
        {
            let answer: Value = serde_json::from_str(answer).expect("an answer");
            if answer["pid"] != pid {
                pid = answer["pid"].clone();
                wire.send(r#"420["join","room"]"#).await;
            }
        }
        // As long as it is open: the server's end shows when something is written.
        while !done.get() && wire.try_send("3").await.is_ok() {
            pass(ms(100)).await;
        }
        closed += 1;
    }
    closed
}

async fn reads(server: &Server, done: Rc<Cell<bool>>) -> Vec<Duration> {
    let mut wire = Wire::open(server).await;
    wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", "room"])).await, json!(["ok"]));
    let mut took = Vec::new();
    while let Ok(Frame::Text(text)) = tokio::time::timeout(ms(1000), wire.next()).await {
        if text == "2" {
            wire.send("3").await;
        } else if let Some((_, rest)) = text.split_once("sent ") {
            let sent = rest
                .split('!')
                .next()
                .and_then(|text| text.parse().ok())
                .expect("a time");
            took.push(Duration::from_micros(now_us().saturating_sub(sent)));
        } else if done.get() {
            break;
        }
    }
    took
}

fn now_us() -> u64 {
    thread_local!(static BEGAN: Instant = Instant::now());
    u64::try_from(BEGAN.with(Instant::elapsed).as_micros()).expect("a short test")
}

/// Publishes at a steady pace, without waiting for acks.
async fn publishes(server: &Server, seconds: usize, rate: usize, done: &Cell<bool>) {
    let mut wire = Wire::open(server).await;
    wire.connect().await;
    let (step, began) = (Duration::from_secs_f64(MESSAGE as f64 / rate as f64), Instant::now());
    let count = seconds * rate / MESSAGE;
    for number in 0..count {
        let due = step * u32::try_from(number).expect("few");
        pass(due.saturating_sub(began.elapsed())).await;
        let stamp = format!("sent {}!", now_us());
        let event = json!(["publish", "room", format!("{stamp:x<MESSAGE$}")]);
        wire.send(&format!("42{event}")).await;
    }
    done.set(true);
}

/// The 99th percentile from publish to delivery, how often the one that never reads was closed, and by how much
/// the largest worker grew (bytes).
async fn run(with_slow: bool) -> (Duration, u64, usize) {
    let (seconds, rate) = (number("SLOW_SECONDS", 6), number("SLOW_RATE", 2_000_000));
    let server = Plan::new()
        .with("engine = { ping_interval_ms = 600000 }\nlogging = { level = 'info', connections = false }")
        .start()
        .await;
    let before = largest(&server).await;
    let done = Rc::new(Cell::new(false));
    let work = async {
        let readers = (0..READERS).map(|_| reads(&server, done.clone()));
        let slow = async {
            if with_slow {
                never_reads(&server, &done).await
            } else {
                0
            }
        };
        let load = async {
            pass(ms(500)).await;
            publishes(&server, seconds, rate, &done).await;
        };
        let grown = async {
            let mut most = 0;
            while !done.get() {
                pass(ms(500)).await;
                most = most.max(largest(&server).await);
            }
            most.saturating_sub(before)
        };
        tokio::join!(futures_util::future::join_all(readers), slow, load, grown)
    };
    let limit = Duration::from_secs(seconds as u64 + 60);
    let (took, closed, (), grown) = within(limit, "a run", Box::pin(work)).await;
    let wanted = seconds * rate / MESSAGE;
    assert!(took.iter().all(|took| took.len() == wanted), "not all came: {wanted}");
    let mut took = took.concat();
    took.sort_unstable();
    (took[took.len() * 99 / 100], closed, grown)
}

/// Resident bytes of the largest worker.
async fn largest(server: &Server) -> usize {
    let resident = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        text.split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok())
            .unwrap_or_default()
            * 4096
    };
    server
        .status()
        .await
        .ready_pids()
        .iter()
        .map(resident)
        .max()
        .unwrap_or_default()
}

#[tokio::test]
async fn one_that_never_reads_costs_the_others_little() {
    LocalSet::new()
        .run_until(async {
            // A tail is as long as the machine is busy: once in a few times it must be still enough to tell.
            let mut attempts = ATTEMPTS;
            loop {
                let (without, _, grown_without) = Box::pin(run(false)).await;
                let (with, closed, grown) = Box::pin(run(true)).await;
                eprintln!(
                    "p99 without {without:?}, with {with:?}; closed {closed} times; \
                     the largest worker grew by {grown_without} and {grown} bytes"
                );
                assert!(closed > 0, "it was never closed");
                // The ring, and a few outboxes on their way out.
                assert!(
                    grown < grown_without + (48 << 20),
                    "{grown} instead of {grown_without} bytes"
                );
                if with <= 2 * without.max(FLOOR) {
                    return;
                }
                attempts -= 1;
                assert!(attempts > 0, "p99 without {without:?}, with {with:?}");
            }
        })
        .await;
}
