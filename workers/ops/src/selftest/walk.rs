//! A polling session that goes from worker to worker: every request takes a fresh connection, the kernel chooses
//! whose it is, and Redis says afterwards which worker it was.

use crate::Context;
use crate::fleet::slot_of;
use crate::web::{Reply, Target, ask};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use store::{Inspector, Sid};

/// Rounds per worker, at most: with four workers the probability that one is left out is about 1 in 10⁷.
const ROUNDS_PER_WORKER: usize = 16;
/// No request takes longer on a fleet that works.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Ends a packet where another one follows.
const SEPARATOR: char = '\x1e';

/// Requests that a worker served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visits {
    pub(super) gets: u64,
    pub(super) posts: u64,
}

/// The session.
pub(super) struct Walk<'a> {
    context: &'a Context,
    target: &'a Target,
    /// None without Redis: then it is unknown which worker served.
    inspector: Option<Inspector>,
    sid: String,
    /// `/name,`, or nothing for the main namespace.
    namespace: String,
    room: String,
    creator: Option<String>,
    visits: BTreeMap<String, Visits>,
    published: u64,
    received: u64,
    acked: u64,
    times: Vec<Duration>,
}

impl<'a> Walk<'a> {
    /// Opens a session, joins the namespace and a room of its own.
    pub(super) async fn begin(
        context: &'a Context,
        target: &'a Target,
        inspector: Option<Inspector>,
    ) -> Result<Self, String> {
        let path = format!("{}?EIO=4&transport=polling", context.engine.path);
        let sid = ask(target, &path, None, ANSWER_PATIENCE).await?.sid()?;
        let namespace = context.engine.prefix();
        let mut walk = Self {
            context,
            target,
            inspector,
            sid,
            namespace,
            room: format!("selftest-{:016x}", fastrand::u64(..)),
            creator: None,
            visits: BTreeMap::new(),
            published: 0,
            received: 0,
            acked: 0,
            times: Vec::new(),
        };
        walk.creator = walk.stored_worker().await?;
        let connect = format!("40{}", walk.namespace);
        walk.post(&connect).await?;
        walk.poll_until(|packet| packet.starts_with(&connect)).await?;
        let join = json!([context.engine.join, walk.room]);
        walk.post(&format!("42{}0{join}", walk.namespace)).await?;
        let joined = format!("43{}0[\"ok\"]", walk.namespace);
        walk.poll_until(|packet| packet == joined).await?;
        Ok(walk)
    }

    pub(super) fn sid(&self) -> &str {
        &self.sid
    }

    /// The incarnation that opened it.
    pub(super) fn creator(&self) -> Option<&str> {
        self.creator.as_deref()
    }

    /// Who served how much so far.
    pub(super) const fn visits(&self) -> &BTreeMap<String, Visits> {
        &self.visits
    }

    pub(super) const fn published(&self) -> u64 {
        self.published
    }

    /// From publish to receipt.
    pub(super) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// Publishes and receives until every slot has served a GET and a POST of this session.
    pub(super) async fn visit_all(&mut self, slots: &[u16]) -> Result<(), String> {
        let most = ROUNDS_PER_WORKER * slots.len().max(1);
        for _ in 0..most {
            self.round().await?;
            if self.inspector.is_none() || self.missing(slots).is_empty() {
                return Ok(());
            }
        }
        let missing: Vec<String> = self.missing(slots).iter().map(ToString::to_string).collect();
        let slots = missing.join(", ");
        Err(format!(
            "after {most} rounds on fresh connections no worker of slot {slots} has served a GET and a POST"
        ))
    }

    fn missing(&self, slots: &[u16]) -> Vec<u16> {
        let served = |slot: &u16| {
            let mut all = Visits::default();
            for (worker, visits) in &self.visits {
                if slot_of(worker) == Some(*slot) {
                    all.gets += visits.gets;
                    all.posts += visits.posts;
                }
            }
            all.gets > 0 && all.posts > 0
        };
        slots.iter().copied().filter(|slot| !served(slot)).collect()
    }

    /// A poll on one connection, and a publish on another; until the message and its ack have come.
    async fn round(&mut self) -> Result<(), String> {
        self.published += 1;
        let number = self.published;
        let event = json!([self.context.engine.publish, self.room, number]);
        let packet = format!("42{}{number}{event}", self.namespace);
        let start = Instant::now();
        let (polled, posted) = tokio::join!(self.ask(None), self.ask(Some(&packet)));
        taken(&posted?)?;
        let mut pings = self.hear(&polled?)?;
        self.note_served(true, true).await?;
        while self.received < number || self.acked < number {
            self.answer(pings).await?;
            pings = self.poll().await?;
        }
        self.answer(pings).await?;
        self.times.push(start.elapsed());
        Ok(())
    }

    /// Takes an answer of a poll; answers how many pings were in it.
    fn hear(&mut self, reply: &Reply) -> Result<u32, String> {
        let mut pings = 0;
        let text = packets_of(reply)?;
        for packet in text.split(SEPARATOR) {
            if packet == "2" {
                pings += 1;
                continue;
            }
            let event = packet
                .strip_prefix("42")
                .and_then(|rest| rest.strip_prefix(self.namespace.as_str()));
            let ack = packet
                .strip_prefix("43")
                .and_then(|rest| rest.strip_prefix(self.namespace.as_str()));
            if let Some(event) = event {
                let args: Value = serde_json::from_str(event).unwrap_or_default();
                let name = args.get(0).and_then(Value::as_str);
                let number = args.get(1).and_then(Value::as_u64);
                if name != Some(self.context.engine.message.as_str()) || number != Some(self.received + 1) {
                    return Err(format!("message {} was to come, not {packet}", self.received + 1));
                }
                self.received += 1;
            } else if let Some(ack) = ack {
                let expected = format!("{}[\"ok\"]", self.acked + 1);
                if ack != expected {
                    return Err(format!(
                        "the ack of message {} was to come, not {packet}",
                        self.acked + 1
                    ));
                }
                self.acked += 1;
            } else {
                return Err(format!("an unexpected packet: {packet}"));
            }
        }
        Ok(pings)
    }

    async fn poll(&mut self) -> Result<u32, String> {
        let reply = self.ask(None).await?;
        let pings = self.hear(&reply)?;
        self.note_served(true, false).await?;
        Ok(pings)
    }

    async fn answer(&mut self, pings: u32) -> Result<(), String> {
        for _ in 0..pings {
            self.post("3").await?;
        }
        Ok(())
    }

    /// Polls until a packet is the one that is waited for; what comes before does not matter yet.
    async fn poll_until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
        loop {
            let reply = self.ask(None).await?;
            self.note_served(true, false).await?;
            for packet in packets_of(&reply)?.split(SEPARATOR) {
                if wanted(packet) {
                    return Ok(());
                }
                if packet == "2" {
                    self.post("3").await?;
                } else {
                    return Err(format!("the answer was {packet}"));
                }
            }
        }
    }

    async fn post(&mut self, packet: &str) -> Result<(), String> {
        let reply = self.ask(Some(packet)).await?;
        taken(&reply)?;
        self.note_served(false, true).await
    }

    /// Asks Redis which workers served the latest GET and POST.
    async fn note_served(&mut self, get: bool, post: bool) -> Result<(), String> {
        let (Some(inspector), Ok(sid)) = (&self.inspector, Sid::parse(&self.sid)) else {
            return Ok(());
        };
        let served = inspector.served(&sid).await.map_err(|error| error.to_string())?;
        if let Some(worker) = served.get.filter(|_| get) {
            self.visits.entry(worker).or_default().gets += 1;
        }
        if let Some(worker) = served.post.filter(|_| post) {
            self.visits.entry(worker).or_default().posts += 1;
        }
        Ok(())
    }

    async fn stored_worker(&self) -> Result<Option<String>, String> {
        let Some(inspector) = &self.inspector else {
            return Ok(None);
        };
        let sid = Sid::parse(&self.sid).map_err(|_| format!("{:?} is no sid", self.sid))?;
        let record = inspector.session(&sid).await.map_err(|error| error.to_string())?;
        match record {
            Some(record) => Ok(Some(record.worker)),
            None => Err(format!(
                "session {sid} is not in Redis: another fleet listens at this address, or it uses another Redis or prefix"
            )),
        }
    }

    /// Leaves, as a client does.
    pub(super) async fn end(&self) -> Result<(), String> {
        let reply = self.ask(Some("1")).await?;
        taken(&reply)?;
        let (Some(inspector), Ok(sid)) = (&self.inspector, Sid::parse(&self.sid)) else {
            return Ok(());
        };
        match inspector.session(&sid).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("its key is still there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn ask(&self, body: Option<&str>) -> Result<Reply, String> {
        let path = format!("{}?EIO=4&transport=polling&sid={}", self.context.engine.path, self.sid);
        ask(self.target, &path, body, ANSWER_PATIENCE).await
    }
}

/// A POST that was taken.
fn taken(reply: &Reply) -> Result<(), String> {
    if reply.status == 200 && reply.text() == "ok" {
        Ok(())
    } else {
        Err(format!("a POST was answered with {}", reply.summary()))
    }
}

fn packets_of(reply: &Reply) -> Result<String, String> {
    if reply.status == 200 {
        Ok(reply.text())
    } else {
        Err(format!("a poll was answered with {}", reply.summary()))
    }
}
