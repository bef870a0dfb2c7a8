//! Positions in the ordered log.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// A position in the log: the id of an entry in the Redis Stream, and what clients get as their
/// offset. Ordered. `seq` is dense within an epoch, so that a gap shows at once; a new epoch
/// begins when Redis lost its data, so that an offset of the lost log is never mistaken for one
/// of the new log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    epoch: u64,
    seq: u64,
}

impl Offset {
    /// Before every entry of every log.
    pub const ZERO: Self = Self { epoch: 0, seq: 0 };

    /// The position `seq` (from 1) of the log begun at `epoch` (milliseconds since 1970).
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Which log: the time at which it began, in milliseconds since 1970.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// The number of the entry within its epoch, from 1; 0 is the position before the first one.
    #[must_use]
    pub const fn seq(self) -> u64 {
        self.seq
    }

    /// The position of the next entry of the same epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self {
            epoch: self.epoch,
            seq: self.seq.saturating_add(1),
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// The text is no offset: it must be two decimal numbers joined by a hyphen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an offset of the form 1795378604500-42")]
pub struct OffsetError;

impl FromStr for Offset {
    type Err = OffsetError;

    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let (epoch, seq) = text.split_once('-').ok_or(OffsetError)?;
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if digits {
                part.parse().map_err(|_| OffsetError)
            } else {
                Err(OffsetError)
            }
        };
        Ok(Self {
            epoch: number(epoch)?,
            seq: number(seq)?,
        })
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_ordered_and_survive_text() {
        let a = Offset::new(9, 10);
        assert!(a < a.next() && a.next() < Offset::new(10, 0));
        assert_eq!(a.to_string().parse(), Ok(a));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-2",
            "1-2-3",
            "a-b",
            "18446744073709551616-0",
        ] {
            assert_eq!(bad.parse::<Offset>(), Err(OffsetError), "{bad}");
        }
    }
}
