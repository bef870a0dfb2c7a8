//! The timers of one connection in one `Sleep`: ping, pong, and the first namespace.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What the time has come for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a ping.
    Ping,
    /// The pong did not come.
    Late,
    /// A client without a namespace has had its time.
    Unsettled,
}

/// What the heartbeat waits for.
enum State {
    Pong { by: Instant },
    Resting { until: Instant },
}

/// See the module.
pub(super) struct Heart {
    interval: Duration,
    timeout: Duration,
    state: State,
    settle_by: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Heart {
    /// The first ping is due an interval from now, or in `ping_in` for a session that has moved here.
    pub(super) fn new(
        interval: Duration,
        timeout: Duration,
        ping_in: Option<Duration>,
        settle_in: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        let until = now + ping_in.unwrap_or(interval);
        let settle_by = settle_in.map(|d| now + d);
        let first = settle_by.map_or(until, |settle| settle.min(until));
        Self {
            interval,
            timeout,
            state: State::Resting { until },
            settle_by,
            sleep: Box::pin(sleep_until(first)),
        }
    }

    /// A pong came: the next ping is due an interval from now. One that nobody asked for is harmless.
    pub(super) fn pong(&mut self) {
        if let State::Pong { .. } = self.state {
            self.state = State::Resting {
                until: Instant::now() + self.interval,
            };
            self.rearm();
        }
    }

    /// Milliseconds from now to the deadlines are kept by the state, so that no beat is lost when the
    /// task is late.
    pub(super) fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.settle_by.is_some_and(|by| by <= now) {
                self.settle_by = None;
                self.rearm();
                return Poll::Ready(Beat::Unsettled);
            }
            match self.state {
                State::Pong { by } if by <= now => return Poll::Ready(Beat::Late),
                State::Resting { until } if until <= now => {
                    self.state = State::Pong { by: now + self.timeout };
                    self.rearm();
                    return Poll::Ready(Beat::Ping);
                }
                State::Pong { .. } | State::Resting { .. } => self.rearm(),
            }
        }
    }

    fn rearm(&mut self) {
        let next = match self.state {
            State::Pong { by } => by,
            State::Resting { until } => until,
        };
        let next = self.settle_by.map_or(next, |settle| settle.min(next));
        self.sleep.as_mut().reset(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn beats_come_when_they_are_due() {
        let ms = Duration::from_millis;
        let begun = Instant::now();
        let mut heart = Heart::new(ms(300), ms(200), None, Some(ms(100)));
        assert_eq!(poll_fn(|cx| heart.poll_beat(cx)).await, Beat::Unsettled);
        assert_eq!(poll_fn(|cx| heart.poll_beat(cx)).await, Beat::Ping);
        assert_eq!(begun.elapsed(), ms(300));
        tokio::time::advance(ms(50)).await;
        heart.pong();
        assert_eq!(poll_fn(|cx| heart.poll_beat(cx)).await, Beat::Ping);
        assert_eq!(begun.elapsed(), ms(650));
        assert_eq!(poll_fn(|cx| heart.poll_beat(cx)).await, Beat::Late);
        assert_eq!(begun.elapsed(), ms(850));
    }
}
