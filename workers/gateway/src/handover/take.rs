//! The worker that takes connections.

use super::unit::{take_token, unpack};
use super::{FromGiver, FromTaker, Hello, fault};
use crate::channel::Channel;
use crate::worker::Worker;
use crate::ws::{Arrival, Claim};
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tracing::{debug, info, warn};

/// Takes what the other side gives, until it hangs up.
pub(crate) async fn take(worker: Rc<Worker>, channel: Rc<Channel>) {
    let mut buffer = vec![0; boot::MESSAGE_BYTES_MAX];
    let mut taken = 0;
    // Storing is work, and meanwhile others would be still: it begins when all have come. Nobody waits for it but who
    // joins or leaves a room. Dropped when the other side is gone.
    let (may_store, storing) = watch::channel(false);
    while let Some((message, descriptors)) = channel.receive(&mut buffer).await {
        let answer = match message {
            FromGiver::Hello(_) => FromTaker::Hello(Hello::of(&worker)),
            FromGiver::Done => {
                may_store.send_replace(true);
                continue;
            }
            FromGiver::Unit { sockets } => match unit(&worker, &channel, &storing, sockets, descriptors).await {
                Ok(()) => {
                    taken += sockets;
                    worker.metrics.taken.add(sockets as u64);
                    FromTaker::Owned
                }
                Err(why) => {
                    warn!(why, sockets, "connections refused");
                    FromTaker::Refused { why }
                }
            },
        };
        if let Err(error) = channel.send(&answer, &[]).await {
            // What is ours stays ours.
            debug!(%error, "the worker that gives connections is gone");
        }
    }
    info!(taken, "connections taken over");
}

async fn unit(
    worker: &Rc<Worker>,
    channel: &Rc<Channel>,
    may: &watch::Receiver<bool>,
    sockets: usize,
    descriptors: Vec<OwnedFd>,
) -> Result<(), String> {
    fault::pass("take.received");
    // The kernel drops what this process has no numbers for.
    if descriptors.len() != sockets + 2 {
        return Err(format!("{} of {} descriptors came", descriptors.len(), sockets + 2));
    }
    let mut descriptors = descriptors.into_iter();
    let (Some(token), Some(states)) = (descriptors.next(), descriptors.next()) else {
        return Err("no token".to_owned());
    };
    let states = unpack(states).map_err(|error| format!("states not understood: {error}"))?;
    if states.len() != sockets {
        return Err(format!("{} states of {sockets}", states.len()));
    }
    let mut arrivals = Vec::with_capacity(sockets);
    for (fd, (portrait, luggage)) in descriptors.zip(states) {
        let tcp = TcpStream::from_std(StdTcpStream::from(fd)).map_err(|error| format!("socket not usable: {error}"))?;
        arrivals.push(Arrival::new(worker, tcp, portrait, luggage).await);
    }
    fault::pass("take.rebuilt");
    if !take_token(&token).map_err(|error| format!("token not usable: {error}"))? {
        return Err("too late".to_owned());
    }
    fault::pass("take.owned");
    let (done, mut stored) = mpsc::channel(1);
    for arrival in arrivals {
        let (from, may, done) = (channel.clone(), may.clone(), done.clone());
        arrival.adopt(worker, Claim { from, may, done });
    }
    drop(done);
    // Each has its first turn before we say so.
    yield_now().await;
    fault::pass("take.live");
    let (worker, channel) = (worker.clone(), channel.clone());
    tokio::task::spawn_local(async move {
        // Nobody sends: it ends when the last claim is done.
        while stored.recv().await.is_some() {}
        worker.moved.notify_one();
        yield_now().await;
        if let Err(error) = channel.send(&FromTaker::Stored, &[]).await {
            debug!(%error, "the worker that gave connections is gone");
        }
    });
    Ok(())
}
