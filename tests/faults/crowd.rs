//! WebSocket members of a room that check everything they get, echo all the time, and come back as
//! the official client does; and one that publishes to them at a steady pace.

use crate::harness::{Frame, Server, Wire, ms, pass, until_within, within};
use serde_json::{Value, json};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

/// Between two attempts to connect again.
const RETRY: Duration = ms(20);
/// Between two echoes of a member.
const ECHO_PAUSE: Duration = ms(10);
/// Everything must have arrived by then.
const LAST_CALL: Duration = Duration::from_secs(20);

/// What a member has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections that ended before the member left.
    pub(crate) disconnects: u64,
    /// Sessions that were not recovered after that.
    pub(crate) forgotten: u64,
    pub(crate) echoes: u64,
    /// Numbers that were not the next one.
    pub(crate) faults: Vec<String>,
    /// The longest time without an answer to an echo that was under way, or a message.
    pub(crate) gap: Duration,
}

/// Members under load; runs on the thread of the test.
pub(crate) struct Crowd {
    members: Vec<JoinHandle<Seen>>,
    publisher: JoinHandle<u64>,
    stop: watch::Sender<bool>,
    /// What was published and acked, once that is known.
    last: watch::Sender<Option<u64>>,
}

impl Crowd {
    /// Opens `count` members, and publishes a message each `every`.
    pub(crate) async fn start(server: &Server, count: usize, every: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (last, upto) = watch::channel(None);
        let addr = server.addr;
        let joined = Rc::new(Cell::new(0));
        let mut members = Vec::new();
        for number in 0..count {
            let (upto, joined) = (upto.clone(), joined.clone());
            members.push(tokio::task::spawn_local(member(addr, number, upto, joined)));
        }
        within(LAST_CALL, "all members", async {
            while joined.get() < count {
                pass(ms(5)).await;
            }
        })
        .await;
        let publisher = tokio::task::spawn_local(publish(addr, every, stopped));
        Self {
            members,
            publisher,
            stop,
            last,
        }
    }

    /// Stops publishing; every member has to get what is still on its way.
    pub(crate) async fn finish(self) -> Vec<Seen> {
        self.stop.send_replace(true);
        let published = within(LAST_CALL, "the publisher's end", self.publisher)
            .await
            .expect("a task");
        self.last.send_replace(Some(published));
        let mut all = Vec::new();
        for member in self.members {
            all.push(within(LAST_CALL, "a member's end", member).await.expect("a task"));
        }
        let longest = all.iter().map(|seen| seen.gap).max();
        eprintln!("{published} messages to {} members, longest gap {longest:?}", all.len());
        assert!(published > 0, "no load");
        all
    }
}

/// Runs a test with a crowd on one thread.
pub(crate) async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

const TARGET: &str = "/socket.io/?EIO=4&transport=websocket&recovery=true";

async fn dial(addr: SocketAddr) -> Option<Wire> {
    let mut wire = Wire::try_dial(addr, TARGET).await?;
    matches!(wire.next().await, Frame::Text(open) if open.starts_with("0{")).then_some(wire)
}

/// A connection that is a member; after a loss it resumes. `None` while no worker answers.
struct Member {
    wire: Wire,
    seen: Seen,
    pid: Option<Value>,
    sid: Option<Value>,
    offset: Option<Value>,
    /// Number of the last message.
    number: u64,
    heard: Instant,
}

impl Member {
    /// Takes what comes; true for an ack.
    fn take(&mut self, packet: &str) -> bool {
        self.seen.gap = self.seen.gap.max(self.heard.elapsed());
        self.heard = Instant::now();
        if let Some(body) = packet.strip_prefix("42") {
            let event: Value = serde_json::from_str(body).expect("an event");
            self.offset = event.get(2).cloned().or(self.offset.take());
            let number = event[1].as_u64();
            if number != Some(self.number + 1) {
                self.seen.faults.push(format!("{event} after {}", self.number));
            }
            self.number = number.unwrap_or(self.number);
        } else if let Some(body) = packet.strip_prefix("40") {
            let answer: Value = serde_json::from_str(body).expect("an answer");
            if self.sid.is_some() && self.sid.as_ref() != Some(&answer["sid"]) {
                self.seen.forgotten += 1;
            }
            (self.sid, self.pid) = (Some(answer["sid"].clone()), Some(answer["pid"].clone()));
        }
        packet.starts_with("43")
    }

    /// Until the answer to `request`, whose packet begins with `wanted`; false if the connection ended.
    async fn ask(&mut self, request: &str, wanted: &str) -> bool {
        if self.wire.try_send(request).await.is_err() {
            return false;
        }
        self.heard = Instant::now();
        loop {
            match self.wire.next().await {
                Frame::Text(text) if text == "2" => {
                    if self.wire.try_send("3").await.is_err() {
                        return false;
                    }
                }
                Frame::Text(text) => {
                    self.take(&text);
                    if text.starts_with(wanted) {
                        return true;
                    }
                }
                Frame::Binary(_) | Frame::Close(_) | Frame::Gone => return false,
            }
        }
    }

    async fn connect(&mut self) -> bool {
        let auth = match (&self.pid, &self.offset) {
            (Some(pid), Some(offset)) => json!({ "pid": pid, "offset": offset }).to_string(),
            (Some(pid), None) => json!({ "pid": pid }).to_string(),
            (None, _) => String::new(),
        };
        self.ask(&format!("40{auth}"), "40").await
    }

    /// After a loss.
    async fn come_back(&mut self, addr: SocketAddr) {
        self.seen.disconnects += 1;
        let deadline = Instant::now() + LAST_CALL;
        loop {
            assert!(Instant::now() < deadline, "no worker serves");
            pass(RETRY).await;
            if let Some(wire) = dial(addr).await {
                self.wire = wire;
                if self.connect().await {
                    return;
                }
            }
        }
    }
}

async fn member(addr: SocketAddr, number: usize, upto: watch::Receiver<Option<u64>>, joined: Rc<Cell<usize>>) -> Seen {
    let wire = until_within(LAST_CALL, "a member's connection", async || dial(addr).await).await;
    let mut member = Member {
        wire,
        seen: Seen::default(),
        pid: None,
        sid: None,
        offset: None,
        number: 0,
        heard: Instant::now(),
    };
    assert!(member.connect().await);
    assert!(member.ask(r#"420["join","room"]"#, r#"430["ok"]"#).await);
    joined.set(joined.get() + 1);
    // Echoes of each kind: short, long, and in pieces.
    let payload = "ä".repeat([1, 300, 9_000][number % 3]);
    let mut id = 1;
    loop {
        let all = *upto.borrow();
        if all.is_some_and(|all| member.number >= all) {
            return member.seen;
        }
        let echo = format!(r#"42{id}["echo",{id},"{payload}"]"#);
        let answered = member.ask(&echo, &format!("43{id}[{id},")).await;
        if answered {
            member.seen.echoes += 1;
        } else {
            member.come_back(addr).await;
        }
        pass(ECHO_PAUSE).await;
        id += 1;
    }
}

/// Publishes 1, 2, 3 …; one whose ack did not come is published again with the same id, so it counts once. How many.
async fn publish(addr: SocketAddr, every: Duration, stop: watch::Receiver<bool>) -> u64 {
    let mut wire = None;
    let mut number = 1_u64;
    while !*stop.borrow() {
        let Some(mut open) = wire.take() else {
            pass(RETRY).await;
            let Some(mut fresh) = dial(addr).await else { continue };
            if fresh.try_send("40").await.is_ok() && matches!(fresh.next().await, Frame::Text(_)) {
                wire = Some(fresh);
            }
            continue;
        };
        let event = json!(["publish", "room", number, { "id": format!("n{number}") }]);
        if open.try_send(&format!("42{number}{event}")).await.is_err() {
            continue;
        }
        loop {
            match open.next().await {
                Frame::Text(text) if text == "2" => open.try_send("3").await.unwrap_or_default(),
                Frame::Text(text) if text.starts_with(&format!(r#"43{number}["ok""#)) => {
                    number += 1;
                    wire = Some(open);
                    break;
                }
                Frame::Text(other) => panic!("ack of {number}: {other}"),
                Frame::Binary(_) | Frame::Close(_) | Frame::Gone => break,
            }
        }
        pass(every).await;
    }
    number - 1
}
