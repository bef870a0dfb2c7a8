//! The worker that takes connections.

use super::unit::{take_token, unpack};
use super::{FromGiver, FromTaker, Hello, fault};
use crate::channel::Channel;
use crate::http;
use crate::lifecycle::{Held, IdlePolicy};
use crate::sockets::Buffers;
use crate::worker::Worker;
use crate::ws::{Claim, RestoredConnection};
use serde::de::DeserializeOwned;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

/// How long connections between two requests may take to make way; the other side waits ten times as long for an answer.
const ROOM_PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks.
const ROOM_LOOK: Duration = Duration::from_millis(2);

/// Takes what the other side gives, until it hangs up.
pub(crate) async fn take(worker: Rc<Worker>, channel: Rc<Channel>) {
    let mut buffer = vec![0; boot::MESSAGE_BYTES_MAX];
    let mut taken = 0;
    // Storing is work, and meanwhile others would be still: it begins when all have come. Only a client that
    // joins or leaves a room waits for it. Dropped when the other side is gone.
    let (may_store, storing) = watch::channel(false);
    while let Some((message, descriptors)) = channel.receive(&mut buffer).await {
        let answer = match message {
            FromGiver::Hello(_) => FromTaker::Hello(Hello::of(&worker)),
            FromGiver::Done => {
                may_store.send_replace(true);
                continue;
            }
            FromGiver::Unit { sockets } => {
                let unit = websockets(&worker, &channel, &storing, sockets, descriptors).await;
                if unit.is_ok() {
                    taken += sockets;
                    worker.metrics.taken.add(sockets as u64);
                }
                verdict(unit)
            }
            FromGiver::Idle { sockets } => verdict(idle(&worker, sockets, descriptors).await),
        };
        if let Err(error) = channel.send(&answer, &[]).await {
            // What is ours stays ours.
            debug!(%error, "worker that hands connections over is gone");
        }
    }
    info!(taken, "connections taken over");
}

fn verdict(unit: Result<(), String>) -> FromTaker {
    match unit {
        Ok(()) => FromTaker::Owned,
        Err(why) => {
            warn!(why, "connections refused");
            FromTaker::Refused { why }
        }
    }
}

/// What belongs to a unit: its token, and each connection with its state.
struct ReceivedUnit<P> {
    token: OwnedFd,
    connections: Vec<(TcpStream, P, Buffers)>,
}

impl<P: DeserializeOwned> ReceivedUnit<P> {
    fn open(sockets: usize, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        // The kernel drops what this process has no numbers for.
        if descriptors.len() != sockets + 2 {
            return Err(too_few(descriptors.len(), sockets + 2));
        }
        let mut descriptors = descriptors.into_iter();
        let (Some(token), Some(states)) = (descriptors.next(), descriptors.next()) else {
            return Err("no token".to_owned());
        };
        let states = unpack(states).map_err(|error| format!("states not understood: {error}"))?;
        if states.len() != sockets {
            return Err(format!("{} states of {sockets}", states.len()));
        }
        let connections = descriptors.zip(states).map(|(fd, (state, buffers))| {
            let tcp =
                TcpStream::from_std(StdTcpStream::from(fd)).map_err(|error| format!("socket not usable: {error}"))?;
            Ok((tcp, state, buffers))
        });
        let connections = connections.collect::<Result<_, String>>()?;
        Ok(Self { token, connections })
    }
}

/// Why a unit is refused whose descriptors did not all fit, for the logs of both workers.
fn too_few(came: usize, sent: usize) -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    format!(
        "the receiving worker got {came} of {sent} descriptors: it has reached its limit of open files (RLIMIT_NOFILE {limit}); \
         raise LimitNOFILE of the unit, or `ulimit -Hn`, and restart the supervisor"
    )
}

/// Room for a unit. Its descriptors have come and are of the reserve, which holds one unit: a worker that is full takes one
/// beyond its limit, and those of its connections that are between two requests make way for the next one.
async fn make_room(worker: &Worker, sockets: usize) -> Result<(), String> {
    let deadline = Instant::now() + ROOM_PATIENCE;
    let sockets = sockets as u64;
    if worker.has_room(sockets) {
        return Ok(());
    }
    let shed = |from: fn(&IdlePolicy) -> bool, to: IdlePolicy| {
        worker.lifecycle.idle_policy.send_if_modified(|idle_policy| {
            let is_so = from(idle_policy);
            if is_so {
                *idle_policy = to;
            }
            is_so
        })
    };
    let sheds = shed(|idle_policy| matches!(idle_policy, IdlePolicy::Stay), IdlePolicy::Shed);
    while !worker.has_room(sockets) && Instant::now() < deadline {
        sleep(ROOM_LOOK).await;
    }
    if sheds {
        shed(|idle_policy| matches!(idle_policy, IdlePolicy::Shed), IdlePolicy::Stay);
    }
    if worker.has_room(sockets.saturating_sub(boot::descriptors::HANDOVER_UNIT)) {
        Ok(())
    } else {
        Err("no room for them".to_owned())
    }
}

/// They are ours, or another process was quicker.
fn own(token: &OwnedFd) -> Result<(), String> {
    match take_token(token) {
        Ok(true) => Ok(()),
        Ok(false) => Err("too late".to_owned()),
        Err(error) => Err(format!("token not usable: {error}")),
    }
}

async fn websockets(
    worker: &Rc<Worker>,
    channel: &Rc<Channel>,
    may: &watch::Receiver<bool>,
    sockets: usize,
    descriptors: Vec<OwnedFd>,
) -> Result<(), String> {
    fault::pass("take.received");
    let ReceivedUnit { token, connections } = ReceivedUnit::open(sockets, descriptors)?;
    make_room(worker, sockets).await?;
    let mut restored = Vec::with_capacity(sockets);
    for (tcp, state, buffers) in connections {
        restored.push(RestoredConnection::new(worker, tcp, state, buffers).await);
    }
    fault::pass("take.rebuilt");
    own(&token)?;
    fault::pass("take.owned");
    let (done, mut stored) = mpsc::channel(1);
    for connection in restored {
        let (from, may, done) = (channel.clone(), may.clone(), done.clone());
        connection.adopt(worker, Claim { from, may, done });
    }
    drop(done);
    // Each has its first turn before we say so.
    yield_now().await;
    fault::pass("take.live");
    let (worker, channel) = (worker.clone(), channel.clone());
    tokio::task::spawn_local(async move {
        // Nothing is sent any more: it ends when the last claim is done.
        while stored.recv().await.is_some() {}
        worker.lifecycle.moved.notify_one();
        yield_now().await;
        if let Err(error) = channel.send(&FromTaker::Stored, &[]).await {
            debug!(%error, "worker that handed connections over is gone");
        }
    });
    Ok(())
}

/// HTTP connections between two requests.
async fn idle(worker: &Rc<Worker>, sockets: usize, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    fault::pass("take.received");
    let ReceivedUnit { token, connections } = ReceivedUnit::<bool>::open(sockets, descriptors)?;
    make_room(worker, sockets).await?;
    fault::pass("take.rebuilt");
    own(&token)?;
    fault::pass("take.owned");
    for (tcp, asked, Buffers { unread, .. }) in connections {
        match tcp.peer_addr() {
            Ok(peer) => http::admit(worker, Held { tcp, unread, asked }, peer),
            // Its client has gone meanwhile.
            Err(error) => debug!(%error, "idle connection is gone"),
        }
    }
    // Each has its first turn before we say so.
    yield_now().await;
    fault::pass("take.live");
    Ok(())
}
