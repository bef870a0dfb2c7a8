//! Well-behaved clients of a server, on a thread of their own so that what an attack costs the test is not taken for the
//! server's time.

use crate::harness::{Poller, Request, Wire, ask, ms, pass, soon};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Clients that publish to themselves over a WebSocket, and between two messages.
const TALKERS: usize = 4;
const TALK_PAUSE: Duration = ms(8);
/// Between two events of a client that polls, two returns of one that travels, two looks at the readiness.
const POLL_PAUSE: Duration = ms(15);
const AWAY: Duration = ms(30);
const READY_PAUSE: Duration = ms(50);

/// How long an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wait {
    /// What the worker and its Redis did meanwhile (CPU time): what stood in the queue before it. It is the same on a busy
    /// machine.
    pub(crate) work: Duration,
    /// By the clock.
    pub(crate) wall: Duration,
}

/// What they saw since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From an event to its ack and its message, through Redis, the log and back.
    pub(crate) answers: Vec<Wait>,
    /// From a new connection to all that was missed. None was a new session.
    pub(crate) returns: Vec<Duration>,
    /// What must not happen to them.
    pub(crate) faults: Vec<String>,
}

impl Seen {
    /// What 99 of 100 answers did not exceed, each of both.
    pub(crate) fn p99(&self) -> Wait {
        let of = |span: fn(&Wait) -> Duration| {
            let mut all: Vec<Duration> = self.answers.iter().map(span).collect();
            all.sort_unstable();
            all[(all.len() * 99).div_ceil(100) - 1]
        };
        Wait {
            work: of(|wait| wait.work),
            wall: of(|wait| wait.wall),
        }
    }
}

/// The processes whose work counts.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) worker: u32,
    pub(crate) redis: u32,
}

impl Served {
    /// CPU time of both since they began: of their main threads, which do all that clients wait for.
    fn work(self) -> Duration {
        let of = |pid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
            Duration::from_nanos(nanos.unwrap_or_default())
        };
        of(self.worker) + of(self.redis)
    }

    fn begin(self) -> Begun {
        Begun {
            served: self,
            work: self.work(),
            wall: Instant::now(),
        }
    }
}

/// An answer that is awaited.
struct Begun {
    served: Served,
    work: Duration,
    wall: Instant,
}

impl Begun {
    fn answered(self, seen: &Shared) {
        let wait = Wait {
            work: self.served.work().saturating_sub(self.work),
            wall: self.wall.elapsed(),
        };
        lock(seen).answers.push(wait);
    }
}

type Shared = Arc<Mutex<Seen>>;

/// The clients.
pub(crate) struct Beside {
    seen: Shared,
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Beside {
    /// Has them begin.
    pub(crate) fn start(served: Served) -> Self {
        let addr = served.addr;
        let seen = Shared::default();
        let (stop, stopped) = oneshot::channel();
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let clients = LocalSet::new();
            for number in 0..TALKERS {
                clients.spawn_local(talk(served, number, shared.clone()));
            }
            clients.spawn_local(poll(served, shared.clone()));
            clients.spawn_local(travel(addr, shared.clone()));
            clients.spawn_local(look(addr, shared.clone()));
            // They end with it. What panics says so, and its answers are missed.
            runtime.expect("a runtime").block_on(clients.run_until(stopped)).ok();
        });
        Self {
            seen,
            thread: Some(thread),
            stop: Some(stop),
        }
    }

    /// What they saw since the last time.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *lock(&self.seen))
    }

    /// How many answers they had since the last time.
    pub(crate) fn count(&self) -> usize {
        lock(&self.seen).answers.len()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Why it ended has been said.
            thread.join().ok();
        }
    }
}

fn lock(seen: &Shared) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fault(seen: &Shared, what: String) {
    lock(seen).faults.push(what);
}

const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket&recovery=true";

/// A client in a namespace, and the answer to its CONNECT.
async fn client(addr: SocketAddr, auth: &Value) -> (Wire, Value, Vec<Value>) {
    let mut wire = Wire::dial(addr, SOCKET, &[]).await.expect("a WebSocket");
    assert!(wire.text().await.starts_with("0{"));
    wire.send(&format!("40{auth}")).await;
    let mut missed = Vec::new();
    loop {
        let packet = wire.data().await;
        if let Some(answer) = packet.strip_prefix("40") {
            return (wire, serde_json::from_str(answer).expect("JSON"), missed);
        }
        let event = packet.strip_prefix("42").expect("an event");
        missed.push(serde_json::from_str(event).expect("JSON"));
    }
}

/// Publishes to a room of its own; returns the event, with its offset.
async fn publish(wire: &mut Wire, room: &str, number: u64) -> Value {
    let event = json!(["publish", room, number]);
    wire.send(&format!("42{number}{event}")).await;
    let (ack, mut acked, mut heard) = (format!(r#"43{number}["ok"]"#), false, None);
    loop {
        let packet = wire.data().await;
        if packet == ack {
            acked = true;
        } else {
            let event: Value = serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON");
            assert_eq!(event[1], number, "{event}");
            heard = Some(event);
        }
        if acked && let Some(event) = heard.take_if(|_| acked) {
            return event;
        }
    }
}

async fn talk(served: Served, number: usize, seen: Shared) {
    let room = format!("talk {number}");
    let (mut wire, ..) = client(served.addr, &json!({})).await;
    assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
    for number in 1.. {
        let begun = served.begin();
        publish(&mut wire, &room, number).await;
        begun.answered(&seen);
        pass(TALK_PAUSE).await;
    }
}

async fn poll(served: Served, seen: Shared) {
    let poller = Poller::open_at(served.addr, "/socket.io/").await;
    poller.connect().await;
    for number in 1.. {
        let begun = served.begin();
        assert_eq!(poller.call(number, &json!(["echo", number])).await, json!([number]));
        begun.answered(&seen);
        pass(POLL_PAUSE).await;
    }
}

/// Loses its connection again and again; what is published meanwhile reaches it when it comes back.
async fn travel(addr: SocketAddr, seen: Shared) {
    let (mut friend, ..) = client(addr, &json!({})).await;
    let (mut wire, answer, _) = client(addr, &json!({})).await;
    assert_eq!(wire.call(0, &json!(["join", "travel"])).await, json!(["ok"]));
    let (mut sid, mut pid) = (answer["sid"].clone(), answer["pid"].clone());
    let mut offset = publish(&mut wire, "travel", 1).await[2].clone();
    for number in 2.. {
        drop(wire);
        pass(AWAY).await;
        assert_eq!(
            friend.call(number, &json!(["publish", "travel", number])).await,
            json!(["ok"])
        );
        let began = Instant::now();
        let auth = json!({ "pid": pid, "offset": offset });
        let (back, answer, mut missed) = client(addr, &auth).await;
        wire = back;
        if answer["sid"] != sid {
            fault(&seen, format!("return {number} was a new session"));
            (sid, pid) = (answer["sid"].clone(), answer["pid"].clone());
            assert_eq!(wire.call(0, &json!(["join", "travel"])).await, json!(["ok"]));
            offset = publish(&mut wire, "travel", number).await[2].clone();
            continue;
        }
        while missed.is_empty() {
            let packet = wire.data().await;
            missed.push(serde_json::from_str(packet.strip_prefix("42").expect("an event")).expect("JSON"));
        }
        lock(&seen).returns.push(began.elapsed());
        if missed.len() != 1 || missed[0][1] != number {
            fault(&seen, format!("return {number} brought {missed:?}"));
        }
        offset = missed[0][2].clone();
    }
}

async fn look(addr: SocketAddr, seen: Shared) {
    loop {
        let ready = soon("readiness", ask(addr, Request::get("/api/ready"))).await;
        match ready {
            Ok(reply) if reply.status == 200 => {}
            other => fault(&seen, format!("readiness: {other:?}")),
        }
        pass(READY_PAUSE).await;
    }
}
