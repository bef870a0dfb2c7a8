//! The timers of one connection in one `Sleep`: ping, pong, and the first namespace.

use crate::sockets::KeepAliveState;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What the time has come for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
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
pub(super) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    state: State,
    settle_by: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl KeepAlive {
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

    /// As another worker left it.
    pub(super) fn resumed(state: &KeepAliveState) -> Self {
        let ms = Duration::from_millis;
        let settle_in = state.settle_ms.map(ms);
        let mut keep_alive = Self::new(
            ms(state.interval_ms),
            ms(state.timeout_ms),
            Some(ms(state.next_ms)),
            settle_in,
        );
        if let (true, State::Resting { until }) = (state.pinged, &keep_alive.state) {
            keep_alive.state = State::Pong { by: *until };
        }
        keep_alive
    }

    /// For another worker.
    pub(super) fn state(&self) -> KeepAliveState {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let now = Instant::now();
        let (pinged, next) = match self.state {
            State::Pong { by } => (true, by),
            State::Resting { until } => (false, until),
        };
        KeepAliveState {
            interval_ms: ms(self.interval),
            timeout_ms: ms(self.timeout),
            pinged,
            next_ms: ms(next.saturating_duration_since(now)),
            settle_ms: self.settle_by.map(|by| ms(by.saturating_duration_since(now))),
        }
    }

    /// A pong came: the next ping is due an interval from now. An unsolicited pong is harmless.
    pub(super) fn pong(&mut self) {
        if let State::Pong { .. } = self.state {
            self.state = State::Resting {
                until: Instant::now() + self.interval,
            };
            self.rearm();
        }
    }

    /// The pong may have come and could not be read: the client has its time once more.
    pub(super) fn extend(&mut self) {
        if let State::Pong { .. } = self.state {
            self.state = State::Pong {
                by: Instant::now() + self.timeout,
            };
            self.rearm();
        }
    }

    /// What the time has come for. The deadlines stand in the state, not in the `Sleep`: none is lost when the task is
    /// late.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.settle_by.is_some_and(|by| by <= now) {
                self.settle_by = None;
                self.rearm();
                return Poll::Ready(Due::Unsettled);
            }
            match self.state {
                State::Pong { by } if by <= now => return Poll::Ready(Due::Late),
                State::Resting { until } if until <= now => {
                    self.state = State::Pong { by: now + self.timeout };
                    self.rearm();
                    return Poll::Ready(Due::Ping);
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
    async fn pings_come_when_they_are_due() {
        let ms = Duration::from_millis;
        let begun = Instant::now();
        let mut keep_alive = KeepAlive::new(ms(300), ms(200), None, Some(ms(100)));
        assert_eq!(poll_fn(|cx| keep_alive.poll_due(cx)).await, Due::Unsettled);
        assert_eq!(poll_fn(|cx| keep_alive.poll_due(cx)).await, Due::Ping);
        assert_eq!(begun.elapsed(), ms(300));
        tokio::time::advance(ms(50)).await;
        keep_alive.pong();
        assert_eq!(poll_fn(|cx| keep_alive.poll_due(cx)).await, Due::Ping);
        assert_eq!(begun.elapsed(), ms(650));
        assert_eq!(poll_fn(|cx| keep_alive.poll_due(cx)).await, Due::Late);
        assert_eq!(begun.elapsed(), ms(850));
    }

    #[tokio::test(start_paused = true)]
    async fn a_keep_alive_goes_on_elsewhere() {
        let ms = Duration::from_millis;
        let begun = Instant::now();
        let first = KeepAlive::new(ms(300), ms(200), None, None);
        tokio::time::advance(ms(100)).await;
        let mut second = KeepAlive::resumed(&first.state());
        assert_eq!(poll_fn(|cx| second.poll_due(cx)).await, Due::Ping);
        assert_eq!(begun.elapsed(), ms(300));
        tokio::time::advance(ms(50)).await;
        let mut third = KeepAlive::resumed(&second.state());
        assert_eq!(poll_fn(|cx| third.poll_due(cx)).await, Due::Late);
        assert_eq!(begun.elapsed(), ms(500));
    }
}
