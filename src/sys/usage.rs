//! What a process uses, read from `/proc`: also of one that hangs and says nothing any more.

use nix::unistd::{SysconfVar, sysconf};
use std::time::Duration;

/// CPU is measured over at least this time; the kernel counts in hundredths of a second.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// What a process uses; `None` before it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Thousandths of a CPU.
    pub(crate) cpu_permille: Option<u32>,
    /// Resident memory.
    pub(crate) rss_bytes: Option<u64>,
}

/// Measures one process again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    /// When, and how much CPU time it had used by then.
    last: Option<(Duration, Duration)>,
    usage: Usage,
}

impl Meter {
    pub(crate) const fn new() -> Self {
        Self {
            last: None,
            usage: Usage {
                cpu_permille: None,
                rss_bytes: None,
            },
        }
    }

    /// Looks, unless it has just done so; `now` is the time since any fixed moment.
    pub(crate) fn look(&mut self, pid: i32, now: Duration) {
        let due = self.last.is_none_or(|(at, _)| now.saturating_sub(at) >= WINDOW_MIN);
        if !due {
            return;
        }
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some(Stat { used, rss_bytes }) = parse(&text) else {
            return;
        };
        self.usage.rss_bytes = Some(rss_bytes);
        if let Some((at, before)) = self.last {
            let share = used.saturating_sub(before).as_micros() * 1_000 / (now - at).as_micros().max(1);
            self.usage.cpu_permille = u32::try_from(share).ok();
        }
        self.last = Some((now, used));
    }

    /// As of the last look.
    pub(crate) const fn usage(&self) -> Usage {
        self.usage
    }
}

struct Stat {
    used: Duration,
    rss_bytes: u64,
}

/// Of `/proc/<pid>/stat`, proc(5): `utime` and `stime` are the 14th and 15th field, `rss` the 24th.
fn parse(text: &str) -> Option<Stat> {
    // The name in the second field may hold anything, and ends with the last bracket.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    let pages: u64 = fields.nth(8)?.parse().ok()?;
    let unit = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let ticks = unit(SysconfVar::CLK_TCK).unwrap_or(100).max(1);
    let millis = (utime + stime).saturating_mul(1_000) / ticks;
    Some(Stat {
        used: Duration::from_millis(millis),
        rss_bytes: pages.saturating_mul(unit(SysconfVar::PAGE_SIZE)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_right_ones() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 9 1000000 3 18446744073709551615 1";
        let stat = parse(text).unwrap();
        assert_eq!(stat.used, Duration::from_secs(2));
        assert_eq!(stat.rss_bytes % 3, 0);
        assert!(parse("").is_none());
    }

    #[test]
    fn a_busy_process_uses_a_cpu() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut meter = Meter::new();
        meter.look(own, Duration::ZERO);
        assert_eq!(meter.usage().cpu_permille, None);
        assert!(meter.usage().rss_bytes.unwrap() > 100_000);
        let began = std::time::Instant::now();
        while began.elapsed() < WINDOW_MIN {
            std::hint::spin_loop();
        }
        meter.look(own, began.elapsed());
        assert!(meter.usage().cpu_permille.unwrap() > 50, "{meter:?}");
    }
}
