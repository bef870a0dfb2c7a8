//! How fast one client may send: a token bucket of events and one of bytes (`limits.events_per_second`,
//! `limits.bytes_per_second`). Who is over it loses nothing: it is read later, so that TCP holds it back.

use boot::Limits;
use std::time::Duration;
use tokio::time::Instant;

/// What a socket may send at once after a pause, as a multiple of its rates. A page that sends all it has collected is no attack.
const BURST: Duration = Duration::from_secs(2);
/// A shorter pause is not worth a timer: the debt is paid with the next one.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// A POST that costs less is not held back: its round trip takes as long.
const POST_PAUSE_MIN: Duration = Duration::from_millis(1);

/// The packets of one POST are divided by this (Engine.IO protocol 4, "HTTP long-polling").
const SEPARATOR: u8 = 0x1e;

/// How long events and bytes take at the rate that is allowed; zero, if there is none.
fn cost(limits: &Limits, events: usize, bytes: usize) -> (Duration, Duration) {
    (at(limits.events_per_second, events), at(limits.bytes_per_second, bytes))
}

fn at(per_second: u64, count: usize) -> Duration {
    let nanos = (count as u64).saturating_mul(1_000_000_000).checked_div(per_second);
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// How long a POST waits before it is acted on. Nothing is remembered of it, since the next one may go to another worker; POSTs
/// of a session come one after the other, so that each costs its own time.
pub(crate) fn pause_of_post(limits: &Limits, body: &str) -> Option<Duration> {
    let packets = 1 + body.bytes().filter(|byte| *byte == SEPARATOR).count();
    let (events, bytes) = cost(limits, packets, body.len());
    Some(events.max(bytes)).filter(|pause| *pause >= POST_PAUSE_MIN)
}

/// What one WebSocket has sent lately: for each rate, when all of it would have been sent at that rate.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    events: Option<Instant>,
    bytes: Option<Instant>,
}

impl Rate {
    /// Counts a message; for how long nothing more is read, if it was too fast.
    pub(crate) fn take(&mut self, limits: &Limits, bytes: usize, now: Instant) -> Option<Duration> {
        let (event, bytes) = cost(limits, 1, bytes);
        let pause = spend(&mut self.events, event, now).max(spend(&mut self.bytes, bytes, now));
        Some(pause).filter(|pause| *pause >= PAUSE_MIN)
    }
}

/// Spends from a bucket; how long it takes until that is there.
fn spend(paid: &mut Option<Instant>, cost: Duration, now: Instant) -> Duration {
    // An idle bucket fills up to the burst, and no further.
    let from = paid.map_or(now, |paid| paid.max(now));
    let upto = from + cost;
    // What was taken ahead of time is the burst.
    let ahead = upto.saturating_duration_since(now);
    *paid = Some(upto);
    ahead.saturating_sub(BURST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(events_per_second: u64, bytes_per_second: u64) -> Limits {
        Limits {
            connections_max: 1,
            buffers_bytes_max: 1,
            handshakes_max: 1,
            outbox_bytes_max: 1,
            ws_read_buffer_bytes: 1,
            events_per_second,
            bytes_per_second,
        }
    }

    /// Sends as fast as allowed for this long; returns the number of messages.
    fn sent(limits: &Limits, bytes: usize, span: Duration) -> u64 {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let (mut now, mut count) = (start, 0);
        while now < start + span && count < 1_000_000 {
            now += rate.take(limits, bytes, now).unwrap_or_default();
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let span = Duration::from_secs(10);
        // By events, by bytes, and by whatever is less.
        for (limits, bytes, most) in [
            (limits(100, 0), 1_000_000, 1_200),
            (limits(0, 100_000), 1_000, 1_200),
            (limits(100, 1_000_000), 100, 1_200),
            (limits(1_000_000, 100_000), 1_000, 1_200),
        ] {
            let count = sent(&limits, bytes, span);
            assert!((most - 5..=most + 5).contains(&count), "{count}");
        }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(sent(&limits(0, 0), 1_000_000, Duration::from_secs(1)), 1_000_000);
    }

    #[test]
    fn an_idle_bucket_has_one_burst() {
        let (limits, mut rate, start) = (limits(100, 0), Rate::default(), Instant::now());
        let mut burst = |now| (0..1_000).take_while(|_| rate.take(&limits, 1, now).is_none()).count();
        let first = burst(start);
        assert_eq!(first, 200);
        assert_eq!(burst(start + Duration::from_secs(3_600)), first);
    }

    #[test]
    fn one_large_message_is_paid_for_afterwards() {
        let (limits, mut rate, now) = (limits(0, 1_000), Rate::default(), Instant::now());
        assert_eq!(rate.take(&limits, 5_000, now), Some(Duration::from_secs(3)));
        assert_eq!(
            rate.take(&limits, 1_000, now + Duration::from_secs(3)),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn a_post_costs_its_own_time() {
        let limits = limits(100, 1_000);
        assert_eq!(pause_of_post(&limits, "2"), Some(Duration::from_millis(10)));
        assert_eq!(
            pause_of_post(&limits, "2\u{1e}2\u{1e}2"),
            Some(Duration::from_millis(30))
        );
        assert_eq!(
            pause_of_post(&limits, &"x".repeat(500)),
            Some(Duration::from_millis(500))
        );
        let generous = self::limits(10_000, 16 << 20);
        assert_eq!(pause_of_post(&generous, "42[\"echo\",1]"), None);
        assert_eq!(pause_of_post(&self::limits(0, 0), &"x".repeat(500)), None);
    }
}
