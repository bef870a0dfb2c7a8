//! The worker that gives its connections away.

use super::unit::{CONNECTIONS_MAX, Frozen, UNIT_BUFFERS_BYTES_MAX, pack, take_token, token};
use super::{FromGiver, FromTaker, Hello, fault};
use crate::channel::Channel;
use crate::lifecycle::{Idle, IdlePolicy, Successor};
use crate::metrics::Stayed;
use crate::sockets::{FrozenConnection, Socket};
use crate::worker::Worker;
use boot::Handover;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

/// The other worker answers a unit, or says hello, within this time; after it, what it does not own stays here.
/// It is the longest that a client can notice of a worker that hangs in the middle.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// How long the connections of a unit wait for each other to get quiet: at first, and when asked again.
const QUIET_PATIENCE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
/// Between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(5);
/// Idle HTTP connections that move at most; others close after their next answer.
const IDLE_MAX: usize = 65_536;
/// What is not quiet by then stays.
const GIVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a worker whose successor died waits for another one.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(2);
/// How long the other worker may take to store what it got.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// A handover in progress.
pub(crate) struct Handoff {
    worker: Rc<Worker>,
    successors: Vec<Successor>,
    /// Messages of successors are read into it.
    buffer: Vec<u8>,
    /// Units that their successor has not stored yet, by successor.
    unstored: Vec<(Rc<Channel>, usize)>,
    /// The last successor has died.
    bereft: bool,
    /// Why the other worker takes no more connections.
    refused: Option<String>,
    report: Handover,
    began: Instant,
}

/// Gives as many as are wanted, and waits until they are stored.
pub(crate) async fn give(worker: &Rc<Worker>, successors: Vec<Successor>) -> Handover {
    let mut handoff = Handoff::begin(worker, successors).await;
    handoff.give_all().await;
    handoff.finish().await
}

impl Handoff {
    /// Asks the successors whether they understand us.
    pub(crate) async fn begin(worker: &Rc<Worker>, successors: Vec<Successor>) -> Self {
        let mut handoff = Self {
            worker: worker.clone(),
            successors: Vec::new(),
            buffer: vec![0; boot::MESSAGE_BYTES_MAX],
            unstored: Vec::new(),
            bereft: false,
            refused: None,
            report: Handover::default(),
            began: Instant::now(),
        };
        handoff.greet_all(successors).await;
        fault::pass("give.greeted");
        handoff
    }

    async fn greet_all(&mut self, successors: Vec<Successor>) {
        for mut successor in successors {
            match self.greet(&successor.channel).await {
                Ok(theirs) => {
                    successor.takes_idle = theirs.takes_idle;
                    self.successors.push(successor);
                }
                Err(why) => self.refuse(why, &successor.channel),
            }
        }
        // Taken from the end: the first comes first.
        self.successors.reverse();
    }

    /// After the death of all successors: whether there is another.
    async fn find_successor(&mut self) -> bool {
        if !self.bereft || self.worker.lifecycle.orphan.get() {
            return false;
        }
        self.bereft = false;
        let deadline = Instant::now() + SUCCESSOR_PATIENCE;
        while !self.is_open() {
            let successors = self.worker.lifecycle.successors.take();
            self.greet_all(successors).await;
            if !self.is_open()
                && timeout_at(deadline, self.worker.lifecycle.successor_came.notified())
                    .await
                    .is_err()
            {
                return false;
            }
        }
        true
    }

    async fn greet(&mut self, channel: &Channel) -> Result<Hello, String> {
        let ours = Hello::of(&self.worker);
        let said = channel.send(&FromGiver::Hello(ours.clone()), &[]).await;
        said.map_err(|error| format!("the other worker is gone: {error}"))?;
        let answer = timeout(ANSWER_PATIENCE, channel.receive(&mut self.buffer)).await;
        match answer {
            Ok(Some((FromTaker::Hello(theirs), _))) => match ours.refuses(&theirs) {
                None => Ok(theirs),
                Some(why) => Err(why.to_owned()),
            },
            Ok(Some(_)) => Err("the other worker talks out of turn".to_owned()),
            Ok(None) => Err("the other worker is gone".to_owned()),
            Err(_) => Err("the other worker does not answer".to_owned()),
        }
    }

    fn refuse(&mut self, why: String, channel: &Channel) {
        warn!(why, "connections not handed over");
        self.bereft = channel.is_closed();
        self.refused = Some(why);
    }

    /// Whether any worker takes more.
    pub(crate) fn is_open(&self) -> bool {
        !self.successors.is_empty()
    }

    /// Gives everything that can move, until the successors have enough.
    pub(crate) async fn give_all(&mut self) {
        let mut deadline = self.began + GIVE_PATIENCE;
        let mut patience = QUIET_PATIENCE.into_iter();
        let mut wait = patience.next().unwrap_or_default();
        loop {
            let sockets = self.sockets();
            let before = self.report.moved;
            self.round(&sockets, wait).await;
            let moved = self.report.moved - before;
            if moved == sockets.len() as u64 || Instant::now() > deadline {
                break;
            }
            if !self.is_open() {
                if !self.find_successor().await {
                    break;
                }
                deadline = Instant::now() + GIVE_PATIENCE;
            }
            wait = patience.next().unwrap_or(wait);
            sleep(ROUND_PAUSE).await;
        }
        for socket in self.sockets() {
            let (why, reason) = match &self.refused {
                Some(why) if !self.is_open() => (why.as_str(), Stayed::Refused),
                _ => socket.why_it_stays(),
            };
            if self.is_open() || self.refused.is_some() {
                self.worker.metrics.stayed.one(reason);
                *self.report.stayed.entry(why.to_owned()).or_default() += 1;
            }
        }
        self.report.took_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Handover { moved, took_us, .. } = self.report;
        let stayed = self.report.stayed();
        info!(moved, stayed, took_us, reasons = ?self.report.stayed, "connections handed over");
    }

    fn sockets(&self) -> Vec<Rc<dyn Socket>> {
        let sockets = self.worker.sockets.borrow();
        let all = sockets.iter().map(|(_, socket)| socket);
        all.filter(|socket| socket.can_move()).cloned().collect()
    }

    /// Gives the connections that came later, with as much patience as the others met, and those that come meanwhile.
    pub(crate) async fn give_late(&mut self, late: &[Rc<dyn Socket>]) {
        let deadline = Instant::now() + GIVE_PATIENCE;
        let [_, wait] = QUIET_PATIENCE;
        while self.is_open() && Instant::now() < deadline && late.iter().any(|socket| socket.can_move()) {
            let sockets = self.sockets();
            self.round(&sockets, wait).await;
            sleep(ROUND_PAUSE).await;
        }
    }

    /// Gives once what is quiet within `wait`.
    async fn round(&mut self, mut sockets: &[Rc<dyn Socket>], wait: Duration) {
        while let (Some(successor), false) = (self.successors.last(), sockets.is_empty()) {
            let most = usize::try_from(successor.most).unwrap_or(usize::MAX);
            let count = CONNECTIONS_MAX.min(most).min(sockets.len());
            let (unit, rest) = sockets.split_at(count);
            let channel = successor.channel.clone();
            match self.unit(&channel, unit, wait).await {
                Ok(moved) => {
                    if let Some(successor) = self.successors.last_mut() {
                        successor.most = successor.most.saturating_sub(moved);
                        if successor.most == 0 {
                            self.successors.pop();
                        }
                    }
                }
                Err(why) => {
                    self.successors.pop();
                    self.refuse(why, &channel);
                }
            }
            sockets = rest;
        }
    }

    /// Gives what is quiet within `wait` of these; how many.
    async fn unit(&mut self, channel: &Rc<Channel>, asked: &[Rc<dyn Socket>], wait: Duration) -> Result<u64, String> {
        let began = Instant::now();
        let frozen = freeze(asked, wait).await;
        if frozen.is_empty() {
            return Ok(0);
        }
        let sockets = frozen.len();
        let (moved, answer) = self.pass(channel, frozen, FromGiver::Unit { sockets }).await?;
        self.report.moved += moved;
        if moved > 0 {
            self.worker.metrics.moved.add(moved);
            self.worker
                .metrics
                .freeze
                .observe_all(began.elapsed().as_secs_f64(), moved);
            self.report.freeze.note(began.elapsed(), moved);
            match self.unstored.iter_mut().find(|(known, _)| Rc::ptr_eq(known, channel)) {
                Some((_, units)) => *units += 1,
                None => self.unstored.push((channel.clone(), 1)),
            }
        }
        answer.map(|()| moved)
    }

    /// Gives the HTTP connections that are between two requests: a request that is on its way finds a worker, and no
    /// client has to connect again. A connection that is not given closes with its next answer.
    pub(crate) async fn give_idle(&mut self) {
        let Some(successor) = self.successors.iter().rev().find(|successor| successor.takes_idle) else {
            return;
        };
        let channel = successor.channel.clone();
        let mut idle = self.lift_idle().await;
        let mut given = 0;
        while !idle.is_empty() {
            let rest = idle.split_off(CONNECTIONS_MAX.min(idle.len()));
            let unit = std::mem::replace(&mut idle, rest);
            let sockets = unit.len();
            let passed = self.pass(&channel, unit, FromGiver::Idle { sockets }).await;
            given += passed.as_ref().map_or(0, |(moved, _)| *moved);
            if let Err(why) = passed.and_then(|(_, answer)| answer) {
                self.successors
                    .retain(|successor| !Rc::ptr_eq(&successor.channel, &channel));
                self.refuse(why, &channel);
                break;
            }
        }
        let stayed = idle.len();
        idle.into_iter().for_each(Frozen::thaw);
        info!(given, stayed, "idle HTTP connections handed over");
    }

    /// The connections that are between two requests now, taken from the tasks that serve them.
    async fn lift_idle(&self) -> Vec<Idle> {
        let open = usize::try_from(self.worker.counters.connections.get()).unwrap_or(usize::MAX);
        let (tell, mut told) = mpsc::channel(open.clamp(1, IDLE_MAX));
        self.worker.lifecycle.idle_policy.send_replace(IdlePolicy::Move(tell));
        let [wait, _] = QUIET_PATIENCE;
        let deadline = Instant::now() + wait;
        let mut idle = Vec::new();
        while idle.len() < open
            && let Ok(Some(one)) = timeout_at(deadline, told.recv()).await
        {
            idle.push(one);
        }
        self.worker.lifecycle.idle_policy.send_replace(IdlePolicy::Stay);
        told.close();
        while let Ok(one) = told.try_recv() {
            idle.push(one);
        }
        idle
    }

    /// Sends a unit, and finds out which process owns it then: how many the successor has, and what it said.
    async fn pass<F: Frozen>(
        &mut self,
        channel: &Rc<Channel>,
        connections: Vec<F>,
        message: FromGiver,
    ) -> Result<(u64, Result<(), String>), String> {
        let unit = Unit::new(connections)?;
        fault::pass("give.frozen");
        let answer = match unit.send(channel, &message).await {
            Ok(()) => {
                fault::pass("give.sent");
                self.answer(channel).await
            }
            Err(error) => Err(format!("not sent: {error}")),
        };
        fault::pass("give.answered");
        let moved = match answer {
            Ok(()) => unit.depart(),
            Err(_) => unit.settle(),
        };
        Ok((moved, answer))
    }

    /// What the successor says about the unit that was just sent.
    async fn answer(&mut self, channel: &Rc<Channel>) -> Result<(), String> {
        let deadline = Instant::now() + ANSWER_PATIENCE;
        loop {
            match timeout_at(deadline, channel.receive(&mut self.buffer)).await {
                Ok(Some((FromTaker::Owned, _))) => return Ok(()),
                Ok(Some((FromTaker::Refused { why }, _))) => return Err(why),
                Ok(Some((FromTaker::Stored, _))) => self.stored(channel),
                Ok(Some((FromTaker::Hello(_), _))) => {}
                Ok(None) => return Err("the other worker is gone".to_owned()),
                Err(_) => return Err("the other worker does not answer".to_owned()),
            }
        }
    }

    fn stored(&mut self, channel: &Rc<Channel>) {
        if let Some((_, units)) = self.unstored.iter_mut().find(|(known, _)| Rc::ptr_eq(known, channel)) {
            *units = units.saturating_sub(1);
        }
    }

    /// What has moved is stored as the other worker's before this one may be declared dead; the report.
    pub(crate) async fn finish(&mut self) -> Handover {
        let deadline = Instant::now() + STORE_PATIENCE;
        for (channel, mut units) in std::mem::take(&mut self.unstored) {
            if units > 0 && channel.send(&FromGiver::Done, &[]).await.is_err() {
                continue;
            }
            while units > 0 {
                match timeout_at(deadline, channel.receive::<FromTaker>(&mut self.buffer)).await {
                    Ok(Some((FromTaker::Stored, _))) => units -= 1,
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        warn!(units, "moved connections not stored yet");
                        break;
                    }
                }
            }
        }
        self.report.clone()
    }
}

/// Frozen connections. Unless they depart, the token decides which process owns them: also if the task that
/// deals with them is cancelled.
struct Unit<F: Frozen> {
    connections: Vec<F>,
    token: OwnedFd,
}

impl<F: Frozen> Unit<F> {
    fn new(connections: Vec<F>) -> Result<Self, String> {
        match token() {
            Ok(token) => Ok(Self { connections, token }),
            Err(error) => {
                connections.into_iter().for_each(Frozen::thaw);
                Err(format!("no token: {error}"))
            }
        }
    }

    async fn send(&self, channel: &Channel, message: &FromGiver) -> io::Result<()> {
        let states = pack(&self.connections)?;
        let sockets = self.connections.iter().map(Frozen::socket);
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let mut descriptors = vec![self.token.as_fd(), states.as_fd()];
        descriptors.extend(sockets.iter().map(AsFd::as_fd));
        timeout(ANSWER_PATIENCE, channel.send(message, &descriptors)).await?
    }

    /// They are the other worker's; how many.
    fn depart(mut self) -> u64 {
        let connections = std::mem::take(&mut self.connections);
        let count = connections.len();
        connections.into_iter().for_each(Frozen::depart);
        count as u64
    }

    /// There was no good answer: back, if they are not the other worker's by now; how many that has.
    fn settle(mut self) -> u64 {
        if matches!(take_token(&self.token), Ok(true)) {
            std::mem::take(&mut self.connections).into_iter().for_each(Frozen::thaw);
            return 0;
        }
        self.depart()
    }
}

impl<F: Frozen> Drop for Unit<F> {
    fn drop(&mut self) {
        let connections = std::mem::take(&mut self.connections);
        if connections.is_empty() {
            return;
        }
        if matches!(take_token(&self.token), Ok(true)) {
            connections.into_iter().for_each(Frozen::thaw);
        } else {
            connections.into_iter().for_each(Frozen::depart);
        }
    }
}

/// Those of the connections that get quiet in time, frozen.
async fn freeze(asked: &[Rc<dyn Socket>], wait: Duration) -> Vec<FrozenConnection> {
    let (tell, mut told) = mpsc::channel(asked.len().max(1));
    for connection in asked {
        connection.ask(tell.clone());
    }
    drop(tell);
    let deadline = Instant::now() + wait;
    let (mut frozen, mut bytes) = (Vec::new(), 0);
    while let Ok(Some(one)) = timeout_at(deadline, told.recv()).await {
        let one: FrozenConnection = one;
        bytes += one.buffers.unread.len() + one.buffers.unsent.len();
        if bytes > UNIT_BUFFERS_BYTES_MAX && !frozen.is_empty() {
            one.thaw();
            break;
        }
        frozen.push(one);
    }
    asked.iter().for_each(|connection| connection.cancel_move());
    told.close();
    while let Ok(one) = told.try_recv() {
        one.thaw();
    }
    frozen
}
