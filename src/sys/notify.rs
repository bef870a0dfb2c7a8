//! sd_notify: what systemd is told. Without `NOTIFY_SOCKET` nothing happens.

use sd_notify::NotifyState;
use std::time::Duration;
use tracing::warn;

/// The supervisor's line to systemd.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// How often the watchdog is to be fed: half of `WATCHDOG_USEC`.
    pub(crate) watchdog_every: Option<Duration>,
}

impl Notifier {
    /// Reads the environment.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        Self {
            watchdog_every: sd_notify::watchdog_enabled().map(|limit| limit / 2),
        }
    }

    /// The fleet serves; also the end of a reload, good or bad (there is no verb for a bad one).
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload began.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
            Err(error) => warn!(%error, "monotonic clock cannot be read"),
        }
    }

    /// The fleet is in another state now.
    pub(crate) fn state(&self, state: &str) {
        self.tell(&[NotifyState::Status(state)]);
    }

    /// The supervisor stops, and may take so long: systemd waits for it, whatever `TimeoutStopSec=` is.
    pub(crate) fn stopping(&self, budget: Duration) {
        let budget = u32::try_from(budget.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(budget),
            NotifyState::Status("draining"),
        ]);
    }

    /// The loop runs.
    pub(crate) fn feed_watchdog(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    #[expect(clippy::unused_self, reason = "whoever speaks to systemd holds the line")]
    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            warn!(%error, "systemd not notified");
        }
    }
}
