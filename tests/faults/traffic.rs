//! Sessions that go on all the time, as stock clients would: a poll always pending, an echo now
//! and then. They tell what went wrong, and when it began.

use crate::harness::{Poller, Reply, Server, ms, pass, within};
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// An ack that takes longer was lost.
const ACK_LIMIT: Duration = Duration::from_secs(20);
/// Between a request without an answer and the next.
const RETRY_AFTER: Duration = ms(250);
/// A connection that was cut is seen to be cut by then.
const SEEN_BY: Duration = ms(1000);
/// Packets between the poll and the rest of a session.
const INBOX: usize = 64;

/// Polling sessions under way.
pub(crate) struct Traffic {
    sessions: Vec<JoinHandle<SessionReport>>,
    stop: Arc<AtomicBool>,
}

/// What became of one session.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "shown when a test fails")]
pub(crate) struct SessionReport {
    pub(crate) sid: String,
    /// Echoes that came back.
    pub(crate) echoes: u64,
    /// Requests without an answer.
    pub(crate) breaks: Vec<Break>,
    /// Why it could not go on.
    pub(crate) fatal: Option<String>,
}

/// A request without an answer: refused, reset, or ended.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
pub(crate) struct Break {
    /// When the request began.
    pub(crate) began: Instant,
    /// When that was seen.
    pub(crate) ended: Instant,
    pub(crate) what: String,
}

impl Traffic {
    /// Opens `count` sessions and keeps them busy, each with a pause of 0.2 to 0.8 s between echoes.
    pub(crate) async fn start(server: &Server, count: usize, seed: u64) -> Self {
        eprintln!("traffic: seed {seed}");
        let stop = Arc::new(AtomicBool::new(false));
        let mut sessions = Vec::with_capacity(count);
        for number in 0..count {
            let poller = Poller::open(server).await;
            poller.connect().await;
            let rng = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
            sessions.push(tokio::spawn(session(poller, rng, Arc::clone(&stop))));
        }
        Self { sessions, stop }
    }

    /// Lets every session finish what it waits for, proves that it lives, and tells.
    pub(crate) async fn finish(self) -> Vec<SessionReport> {
        self.stop.store(true, Ordering::Relaxed);
        let all = futures_util::future::join_all(self.sessions);
        let reports = within(Duration::from_secs(60), "the sessions' end", all).await;
        reports
            .into_iter()
            .map(|report| report.expect("a session's task"))
            .collect()
    }
}

/// Every session went on: nothing was answered wrongly, and no ack was lost or doubled.
#[track_caller]
pub(crate) fn assert_alive(reports: &[SessionReport]) {
    let dead: Vec<&SessionReport> = reports.iter().filter(|report| report.fatal.is_some()).collect();
    let shown = dead.get(..dead.len().min(5)).unwrap_or_default();
    assert!(
        dead.is_empty(),
        "{} of {} sessions died: {shown:#?}",
        dead.len(),
        reports.len()
    );
    assert!(reports.iter().all(|report| report.echoes > 0), "no traffic");
}

/// Every request had an answer, but for those in flight when a worker died: begun before it was
/// dead, and cut then. `troubles` are the times from which and by which one was dead.
#[track_caller]
pub(crate) fn assert_unbroken(reports: &[SessionReport], troubles: &[(Instant, Instant)]) {
    let excused = |fault: &Break| {
        let in_flight = |(hit, dead): &(Instant, Instant)| {
            fault.began <= *dead && *hit <= fault.ended && fault.ended <= *dead + SEEN_BY
        };
        troubles.iter().any(in_flight)
    };
    let breaks = reports.iter().flat_map(|report| &report.breaks);
    let unexcused: Vec<&Break> = breaks.filter(|fault| !excused(fault)).collect();
    assert!(unexcused.is_empty(), "requests without an answer: {unexcused:#?}");
}

async fn session(poller: Poller, rng: fastrand::Rng, stop: Arc<AtomicBool>) -> SessionReport {
    let report = SessionReport {
        sid: poller.sid.clone(),
        ..SessionReport::default()
    };
    let (packets, inbox) = mpsc::channel(INBOX);
    let session = Session {
        poller,
        report: Mutex::new(report),
        posting: Mutex::new(()),
    };
    // Whichever ends first ends the other: the poll on a fault, the echoes when all is done.
    tokio::select! {
        () = session.poll(packets) => (),
        () = session.echo(inbox, rng, &stop) => (),
    }
    session.report.into_inner()
}

struct Session {
    poller: Poller,
    report: Mutex<SessionReport>,
    /// POSTs must not overlap.
    posting: Mutex<()>,
}

impl Session {
    /// Always has a poll pending; hands out packets, and answers pings.
    async fn poll(&self, packets: mpsc::Sender<String>) {
        loop {
            let began = Instant::now();
            let reply = match self.poller.try_get().await {
                Ok(reply) => reply,
                Err(fault) => {
                    self.broke(began, "poll", &fault).await;
                    pass(RETRY_AFTER).await;
                    continue;
                }
            };
            if reply.status != 200 {
                return self.die("poll", &reply).await;
            }
            for packet in reply.text().split('\x1e') {
                match packet {
                    "6" => (),
                    "2" => self.post("3").await,
                    "1" => return self.die("poll", &reply).await,
                    other if packets.send(other.to_owned()).await.is_err() => return,
                    _ => (),
                }
            }
        }
    }

    /// Echoes with pauses, and one last one after the stop.
    async fn echo(&self, mut inbox: mpsc::Receiver<String>, mut rng: fastrand::Rng, stop: &AtomicBool) {
        let mut next = 0_u64;
        let mut doubtful = Vec::new();
        loop {
            let last = stop.load(Ordering::Relaxed);
            let breaks = self.report.lock().await.breaks.len();
            self.post(&format!("42{next}{}", json!(["echo", next]))).await;
            let outcome = tokio::select! {
                outcome = acked(&mut inbox, next, &mut doubtful) => outcome,
                // The request or the answer that was cut may have carried it.
                () = self.broken_since(breaks) => Ok(false),
            };
            match outcome {
                Ok(true) => {
                    self.report.lock().await.echoes += 1;
                    if last {
                        return;
                    }
                }
                Ok(false) => doubtful.push(next),
                Err(fault) => {
                    self.report.lock().await.fatal.get_or_insert(fault);
                    return;
                }
            }
            next += 1;
            pass(ms(rng.u64(200..800))).await;
        }
    }

    async fn broken_since(&self, count: usize) {
        while self.report.lock().await.breaks.len() == count {
            pass(ms(20)).await;
        }
    }

    async fn post(&self, body: &str) {
        let _turn = self.posting.lock().await;
        let began = Instant::now();
        match self.poller.try_post(body).await {
            Ok(reply) if reply.pair() == (200, "ok") => (),
            Ok(reply) => self.die("post", &reply).await,
            Err(fault) => self.broke(began, "post", &fault).await,
        }
    }

    async fn broke(&self, began: Instant, what: &str, fault: &io::Error) {
        let what = format!("{what}: {fault}");
        let ended = Instant::now();
        self.report.lock().await.breaks.push(Break { began, ended, what });
    }

    async fn die(&self, what: &str, reply: &Reply) {
        let body = String::from_utf8_lossy(&reply.body);
        let fault = format!("{what} answered with {} {body}", reply.status);
        self.report.lock().await.fatal.get_or_insert(fault);
    }
}

/// Waits for an ack; before it, acks of doubtful echoes may come, each once.
async fn acked(inbox: &mut mpsc::Receiver<String>, id: u64, doubtful: &mut Vec<u64>) -> Result<bool, String> {
    loop {
        let packet = tokio::time::timeout(ACK_LIMIT, inbox.recv()).await;
        let Ok(Some(packet)) = packet else {
            return Err(format!("no ack of {id} in {ACK_LIMIT:?}"));
        };
        if packet == format!("43{id}[{id}]") {
            return Ok(true);
        }
        let known = doubtful.iter().position(|id| packet == format!("43{id}[{id}]"));
        let Some(known) = known else {
            return Err(format!("{packet} instead of the ack of {id}"));
        };
        // Its forerunners were lost for good: acks come in order.
        doubtful.drain(..=known);
    }
}
