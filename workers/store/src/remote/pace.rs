//! The pace of group commit: what keeps batches from being small when there are many.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tracing::debug;

/// Shortest time between the answer to a batch and the next batch.
///
/// A batch costs Redis nearly the same whether it holds one entry or eight, and every worker once more when it is
/// pushed. What is published after a pause goes out at once.
const BATCH_PAUSE: Duration = Duration::from_micros(500);

/// Spaces batches by [`BATCH_PAUSE`].
///
/// A timer of its own, because those of tokio have a granularity of a millisecond.
#[derive(Debug)]
pub(super) struct Pace {
    /// None if the system has no timer for us: then batches are not spaced.
    timer: Option<Timer>,
    answered: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            timer: Timer::new().ok(),
            answered: None,
        }
    }

    /// A batch was answered.
    pub(super) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// Returns when the next batch may go.
    pub(super) async fn turn(&self) {
        let (Some(timer), Some(answered)) = (&self.timer, self.answered) else {
            return;
        };
        let left = BATCH_PAUSE.saturating_sub(answered.elapsed());
        if !left.is_zero()
            && let Err(error) = timer.wait(left).await
        {
            debug!(%error, "batches are not spaced");
        }
    }
}

/// A timer, and the same as something that tokio can wait for.
#[derive(Debug)]
struct Timer {
    timer: TimerFd,
    expiry: AsyncFd<OwnedFd>,
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[expect(
            deprecated,
            reason = "what replaces it asks for unsafe code; an `OwnedFd` stays open"
        )]
        let expiry = AsyncFd::new(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, expiry })
    }

    async fn wait(&self, left: Duration) -> io::Result<()> {
        let once = Expiration::OneShot(TimeSpec::from(left));
        self.timer.set(once, TimerSetTimeFlags::empty())?;
        loop {
            let mut ready = self.expiry.readable().await?;
            match ready.try_io(|_| self.timer.wait().map_err(io::Error::from)) {
                Ok(done) => return done,
                Err(_not_yet) => {}
            }
        }
    }
}
