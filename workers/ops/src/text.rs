//! How things look in text.

use std::fmt;
use std::time::Duration;

/// `12 s`, `5 min 3 s`, `3 h 12 min`, `4 d 2 h`.
#[must_use]
pub fn age(age: Duration) -> String {
    let (s, min, h) = (age.as_secs(), age.as_secs() / 60, age.as_secs() / 3_600);
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{min} min {} s", s % 60),
        3_600..86_400 => format!("{h} h {} min", min % 60),
        _ => format!("{} d {} h", h / 24, h % 24),
    }
}

/// A moment in milliseconds since 1970, as `2026-11-25 22:48:53.123`, UTC.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub u64);

impl Clock {
    /// `22:48:53.123`
    #[must_use]
    pub fn time(self) -> String {
        let (ms, s) = (self.0 % 1_000, self.0 / 1_000);
        format!("{:02}:{:02}:{:02}.{ms:03}", s / 3_600 % 24, s / 60 % 60, s % 60)
    }

    /// `2026-11-25`. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": `civil_from_days`.
    #[must_use]
    pub fn date(self) -> String {
        let days = self.0 / 86_400_000 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        // Years begin in March.
        let month = (5 * of_year + 2) / 153;
        let of_month = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        format!("{year:04}-{month:02}-{of_month:02}")
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.date(), self.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, expect) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_868_799_000, "2000-02-29 23:59:59.000"),
            (1_795_647_533_123, "2026-11-25 22:58:53.123"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
        ] {
            assert_eq!(Clock(ms).to_string(), expect);
        }
    }

    #[test]
    fn ages_are_short() {
        for (s, expect) in [
            (5, "5 s"),
            (65, "1 min 5 s"),
            (7_300, "2 h 1 min"),
            (180_000, "2 d 2 h"),
        ] {
            assert_eq!(age(Duration::from_secs(s)), expect);
        }
    }
}
