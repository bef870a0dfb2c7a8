//! Members and publishers of a chaos run. Members behave like the official client with connection state recovery: they
//! keep `pid` and the last offset, offer them when they reconnect, and back off with jitter.

use crate::chaos_run::{Options, Run};
use crate::common::seconds;
use crate::sequence::Mark;
use crate::sio;
use crate::sio::{Connection, Packet, parse};
use crate::target::{Outcome, Target};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// How long a publisher goes on with a message after the end of the run.
const LAST_MESSAGE_MAX: Duration = Duration::from_secs(10);
/// A member that has joined waits for events only.
const NO_TIMEOUT: Duration = Duration::from_secs(3600);

/// What a client keeps of its session for the next connection.
#[derive(Default)]
struct Memory {
    sid: Option<String>,
    pid: Option<String>,
    offset: Option<String>,
}

/// Exponential back-off, randomized by half.
struct Backoff {
    ms: u64,
    max_ms: u64,
}

impl Backoff {
    fn new(options: &Options) -> Self {
        Self {
            ms: options.backoff_ms.max(1),
            max_ms: options.backoff_max_ms.max(1),
        }
    }

    async fn wait(&mut self) {
        sleep(Duration::from_millis(self.ms / 2 + fastrand::u64(0..=self.ms))).await;
        self.ms = (self.ms * 2).min(self.max_ms);
    }
}

/// Connects until it works, and counts what failed.
async fn dial(run: &Run, target: &Target, options: &Options, memory: &Memory) -> Connection {
    let mut auth = options.common.auth.clone();
    if let Some(pid) = &memory.pid {
        let auth = auth.get_or_insert_with(|| json!({}));
        auth["pid"] = json!(pid);
        if let Some(offset) = &memory.offset {
            auth["offset"] = json!(offset);
        }
    }
    let mut backoff = Backoff::new(options);
    loop {
        run.counters.borrow_mut().connect_attempts += 1;
        match sio::connect(target, auth.as_ref()).await {
            Ok(connection) => return connection,
            Err(error) => *run.counters.borrow_mut().failed_attempts.entry(error).or_default() += 1,
        }
        backoff.wait().await;
    }
}

pub(crate) async fn member_loop(number: usize, run: &Run, target: &Target, options: &Options) {
    let mut memory = Memory::default();
    let mut down_since: Option<Instant> = None;
    loop {
        let mut connection = dial(run, target, options, &memory).await;
        let is_recovered = memory.sid.as_deref() == Some(connection.sid.as_str());
        if memory.sid.is_some() {
            let mut counters = run.counters.borrow_mut();
            if is_recovered {
                counters.recovered += 1;
            } else {
                counters.lost_sessions += 1;
            }
        }
        if !is_recovered {
            memory.offset = None;
        }
        memory.sid = Some(connection.sid.clone());
        memory.pid = connection.pid.clone();
        let ended = listen(
            number,
            &mut connection,
            is_recovered,
            &mut memory,
            &mut down_since,
            run,
            options,
        )
        .await;
        down_since.get_or_insert_with(Instant::now);
        run.members.borrow_mut()[number].is_online = false;
        {
            let mut counters = run.counters.borrow_mut();
            counters.disconnects += 1;
            *counters.disconnect_kinds.entry(ended).or_default() += 1;
        }
        // Clients do not all come back in the same instant.
        Backoff::new(options).wait().await;
    }
}

/// Receives until the connection ends, and returns why. A recovered session is still in its room; a new one has to
/// join again.
async fn listen(
    number: usize,
    connection: &mut Connection,
    is_recovered: bool,
    memory: &mut Memory,
    down_since: &mut Option<Instant>,
    run: &Run,
    options: &Options,
) -> String {
    let room = number % options.rooms;
    let join = format!("420[\"{}\",\"room-{room}\"]", options.common.ev_join);
    let mut has_joined = is_recovered;
    if !has_joined && let Err(error) = connection.socket.send(join.clone()).await {
        return error;
    }
    loop {
        if has_joined {
            run.members.borrow_mut()[number].is_online = true;
            if let Some(since) = down_since.take() {
                let downtime = since.elapsed().as_millis() as u64;
                run.counters.borrow_mut().downtime_ms.push(downtime);
            }
        }
        let patience = if has_joined {
            NO_TIMEOUT
        } else {
            seconds(options.ack_timeout)
        };
        let text = match timeout(patience, connection.socket.receive()).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return error,
            Err(_) if has_joined => continue,
            Err(_) => {
                run.counters.borrow_mut().join_retries += 1;
                if let Err(error) = connection.socket.send(join.clone()).await {
                    return error;
                }
                continue;
            }
        };
        match parse(&text) {
            Packet::Ack(0, _) => has_joined = true,
            Packet::Event(array) => {
                run.deliver(options, number, room, array);
                if memory.pid.is_some() {
                    memory.offset = offset(array).or(memory.offset.take());
                }
            }
            Packet::Ack(..) | Packet::Other => {}
        }
    }
}

/// The offset of an event: its last argument, a string, after name and payload.
fn offset(array: &str) -> Option<String> {
    match serde_json::from_str::<Vec<Value>>(array).ok()?.as_slice() {
        [_, _, .., Value::String(offset)] => Some(offset.clone()),
        _ => None,
    }
}

/// Publishes at its share of the rate. Each message is sent again until it is acked.
pub(crate) async fn publisher_loop(number: usize, run: &Run, target: &Target, options: &Options) {
    let step = Duration::from_secs_f64(options.publishers as f64 / options.rate.max(0.001));
    let mut publisher = Publisher {
        connection: None,
        next_id: 0,
        run,
        target,
        options,
    };
    let mut due = Instant::now();
    for room in (0..options.rooms).cycle().skip(number % options.rooms) {
        if run.stop.get() {
            return;
        }
        publisher.wait_until(due).await;
        due += step;
        let sequence = run.acked.borrow()[number][room];
        let mark = Mark {
            publisher: number,
            room,
            sequence,
            sent_us: run.stats.now_us(),
        };
        if !publisher.publish(&mark).await {
            run.counters.borrow_mut().unacked += 1;
            return;
        }
        run.acked.borrow_mut()[number][room] += 1;
        run.counters.borrow_mut().published += 1;
    }
}

struct Publisher<'a> {
    connection: Option<Connection>,
    next_id: u64,
    run: &'a Run,
    target: &'a Target,
    options: &'a Options,
}

impl Publisher<'_> {
    /// Waits for the time of the next message; heartbeats are answered meanwhile.
    async fn wait_until(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match &mut self.connection {
                Some(connection) => {
                    if let Ok(Err(error)) = timeout(left, connection.socket.receive()).await {
                        self.lose(&error);
                    }
                }
                None => sleep(left).await,
            }
        }
    }

    /// Sends until it is acked; false if the run ended before.
    async fn publish(&mut self, mark: &Mark) -> bool {
        let text = mark.text(self.options.payload);
        let arguments = format!(
            "[\"{}\",\"room-{}\",\"{text}\"]",
            self.options.common.ev_publish, mark.room
        );
        let started = Instant::now();
        for attempt in 0u64.. {
            if attempt > 0 {
                self.run.counters.borrow_mut().retries += 1;
                let key = (mark.publisher, mark.room, mark.sequence);
                self.run.retried.borrow_mut().insert(key);
            }
            if self.run.stop.get() && started.elapsed() > LAST_MESSAGE_MAX {
                return false;
            }
            if self.connection.is_none() {
                let fresh = dial(self.run, self.target, self.options, &Memory::default()).await;
                self.connection = Some(fresh);
            }
            match timeout(seconds(self.options.ack_timeout), self.send(&arguments)).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => self.lose(&error),
                Err(_) => {}
            }
        }
        false
    }

    /// Sends the message once and waits for its ack.
    async fn send(&mut self, arguments: &str) -> Outcome<()> {
        self.next_id += 1;
        let connection = self.connection.as_mut().ok_or("not connected")?;
        connection.socket.send(format!("42{}{arguments}", self.next_id)).await?;
        connection.socket.ack(self.next_id).await
    }

    fn lose(&mut self, kind: &str) {
        self.connection = None;
        let mut counters = self.run.counters.borrow_mut();
        counters.publisher_disconnects += 1;
        let kind = format!("publisher {kind}");
        *counters.disconnect_kinds.entry(kind).or_default() += 1;
    }
}
