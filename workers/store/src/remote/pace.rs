//! The pace of group commit: what keeps batches from being small when there are many.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tracing::debug;

/// Between the answer to a batch and the next batch, for each worker that a batch is pushed to.
///
/// A batch wakes every worker, and costs Redis a write for it, whether it holds one entry or eight. What is published
/// after a pause goes out at once.
const PAUSE_PER_READER: Duration = Duration::from_micros(125);
/// Shortest and longest pause.
const PAUSE_MIN: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Spaces batches.
///
/// A timer of its own, because those of tokio have a granularity of a millisecond.
#[derive(Debug)]
pub(super) struct Pace {
    /// None if the system has no timer for us: then batches are not spaced.
    timer: Option<Timer>,
    answered: Option<Instant>,
    pause: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            timer: Timer::new().ok(),
            answered: None,
            pause: PAUSE_MIN,
        }
    }

    /// A batch was answered, and pushed to this many workers, if that is known.
    pub(super) fn answered(&mut self, readers: Option<u32>) {
        self.answered = Some(Instant::now());
        if let Some(readers) = readers {
            self.pause = PAUSE_PER_READER.saturating_mul(readers).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }

    /// Returns when the next batch may go.
    pub(super) async fn turn(&self) {
        let (Some(timer), Some(answered)) = (&self.timer, self.answered) else {
            return;
        };
        let left = self.pause.saturating_sub(answered.elapsed());
        if !left.is_zero()
            && let Err(error) = timer.wait(left).await
        {
            debug!(%error, "pause between batches not made");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_readers_make_longer_pauses() {
        let mut pace = Pace {
            timer: None,
            answered: None,
            pause: PAUSE_MIN,
        };
        let cases = [
            (None, 500),
            (Some(0), 500),
            (Some(4), 500),
            (Some(8), 1000),
            (None, 1000),
        ];
        for (readers, micros) in cases
            .into_iter()
            .chain([(Some(16), 2000), (Some(u32::MAX), 2000), (Some(1), 500)])
        {
            pace.answered(readers);
            assert_eq!(pace.pause, Duration::from_micros(micros), "{readers:?}");
        }
    }
}
