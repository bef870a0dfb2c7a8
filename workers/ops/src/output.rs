//! How reports look: as those of the guide, with plain marks where the terminal knows no others.

use std::time::Duration;

/// Exit code without a Redis, where one is needed (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// Exit code for a command line that makes no sense (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;

/// Width of the lines that frame a report.
const RULE_WIDTH: usize = 80;

/// What may be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Letters and signs of all the world.
    Unicode,
    /// ASCII.
    Plain,
}

impl Script {
    /// By the locale: the first of `LC_ALL`, `LC_CTYPE` and `LANG` that says something.
    pub(crate) fn of_locale() -> Self {
        let named = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        Self::of(named.as_deref().unwrap_or_default())
    }

    fn of(locale: &str) -> Self {
        let locale = locale.to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Self::Unicode
        } else {
            Self::Plain
        }
    }

    /// Good, or not.
    pub(crate) const fn mark(self, good: bool) -> &'static str {
        match (self, good) {
            (Self::Unicode, true) => "✅",
            (Self::Unicode, false) => "❌",
            (Self::Plain, true) => "[ok]",
            (Self::Plain, false) => "[FAILED]",
        }
    }

    /// A sign before a text, if signs may be printed.
    pub(crate) fn sign(self, sign: &str, text: &str) -> String {
        match self {
            Self::Unicode => format!("{sign} {text}"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// The line that frames a report.
pub(crate) fn rule() -> String {
    "=".repeat(RULE_WIDTH)
}

/// `0.42`: milliseconds.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1000.0)
}

/// `2.4 s`, `3 min`, `2 d 4 h`: to read, not to reckon with.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1.2M`, as Redis writes amounts of memory.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut amount = count as f64;
    for unit in ["B", "K", "M", "G"] {
        if amount < 1024.0 {
            return if unit == "B" {
                format!("{count}B")
            } else {
                format!("{amount:.2}{unit}")
            };
        }
        amount /= 1024.0;
    }
    format!("{amount:.2}T")
}

/// `1 worker`, `2 workers`.
pub(crate) fn count(number: impl Into<u64>, one: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_utf8_locale_gets_signs() {
        assert_eq!(Script::of("de_DE.UTF-8"), Script::Unicode);
        assert_eq!(Script::of("C.utf8"), Script::Unicode);
        assert_eq!(Script::of("C"), Script::Plain);
        assert_eq!(Script::of(""), Script::Plain);
        assert_eq!(Script::Plain.sign("🎉", "done"), "done");
    }

    #[test]
    fn amounts_are_for_people() {
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1_258_291), "1.20M");
        assert_eq!(bytes(1 << 42), "4.00T");
        assert_eq!(span(Duration::from_millis(2_400)), "2.4 s");
        assert_eq!(span(Duration::from_secs(187_000)), "2 d 3 h");
        assert_eq!(count(1_u64, "worker"), "1 worker");
        assert_eq!(millis(Duration::from_micros(421)), "0.42");
    }
}
