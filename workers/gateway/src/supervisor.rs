//! The worker's end of the control socket.

use crate::channel::Channel;
use boot::{Beat, ToSupervisor, ToWorker};
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, interval_at};
use tracing::debug;

/// The supervisor, at the other end of the control socket.
pub(crate) struct Supervisor(Channel);

impl Supervisor {
    /// Takes the inherited socket; needs a runtime.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Channel::new(fd).map(Self)
    }

    /// Sends a message. A supervisor that does not read is not waited for longer than a beat.
    pub(crate) async fn send(&self, message: &ToSupervisor) {
        let patience = Duration::from_millis(Beat::EVERY_MS);
        // Whether it is gone, the reading side finds out.
        let sent = tokio::time::timeout(patience, self.0.send(message, &[])).await;
        if !matches!(sent, Ok(Ok(()))) {
            debug!("control message not sent");
        }
    }

    /// Tells the supervisor, as long as it is polled, that Redis is not there, and why.
    pub(crate) async fn say_waiting(&self, mut reasons: watch::Receiver<String>) -> Infallible {
        let mut ticks = interval(Duration::from_millis(ToSupervisor::WAITING_EVERY_MS));
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = reasons.changed() => {}
            }
            let reason = reasons.borrow_and_update().clone();
            self.send(&ToSupervisor::Waiting { reason }).await;
        }
    }

    /// The next order, with its descriptors; nothing once the supervisor is gone.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> Option<(ToWorker, Vec<OwnedFd>)> {
        self.0.receive(buffer).await
    }
}

/// Ticks now, and then at the same times in all processes of this machine: the supervisor is awake once for all of its
/// workers, and each finds in the caches what the one before it has used.
pub(crate) fn in_step(every: Duration) -> Interval {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since_step = Duration::try_from(clock).unwrap_or_default().as_nanos() % every.as_nanos().max(1);
    let now = tokio::time::Instant::now();
    let since_step = Duration::from_nanos(u64::try_from(since_step).unwrap_or_default());
    let mut ticks = interval_at(now.checked_sub(since_step).unwrap_or(now), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
