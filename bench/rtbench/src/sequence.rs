//! What is published, and whether each member received it once and in order.

use std::collections::HashSet;

/// How many lost sequence numbers a report shows per member and publisher.
const SAMPLE: usize = 5;

/// What travels in a published string: `rt|publisher|room|sequence|send time in us|padding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) publisher: usize,
    pub(crate) room: usize,
    pub(crate) sequence: u64,
    pub(crate) sent_us: u64,
}

impl Mark {
    /// The published string, padded to `size` bytes.
    pub(crate) fn text(&self, size: usize) -> String {
        let mut text = format!(
            "rt|{}|{}|{}|{}|",
            self.publisher, self.room, self.sequence, self.sent_us
        );
        while text.len() < size {
            text.push('.');
        }
        text
    }

    /// Finds the mark in the JSON array of an event with this name.
    pub(crate) fn find(array: &str, event: &str) -> Option<Self> {
        let name = array.strip_prefix('[')?.trim_start().strip_prefix('"')?;
        name.strip_prefix(event)?.strip_prefix('"')?;
        let (_, fields) = array.split_once("\"rt|")?;
        let mut fields = fields.split('|');
        let mut number = || fields.next()?.parse::<u64>().ok();
        Some(Self {
            publisher: number()? as usize,
            room: number()? as usize,
            sequence: number()?,
            sent_us: number()?,
        })
    }
}

/// The sequence numbers that one member has received of one publisher.
#[derive(Default)]
pub(crate) struct Seen {
    next: u64,
    missing: HashSet<u64>,
}

#[derive(Default, Clone, Debug, PartialEq)]
pub(crate) struct Checks {
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) misrouted: u64,
}

impl Seen {
    /// Notes a delivery; true if the sequence number is new.
    pub(crate) fn note(&mut self, sequence: u64, checks: &mut Checks) -> bool {
        if sequence >= self.next {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else if self.missing.remove(&sequence) {
            checks.out_of_order += 1;
        } else {
            checks.duplicated += 1;
            return false;
        }
        checks.delivered += 1;
        true
    }

    /// The first sequence numbers below `sent` that never came.
    pub(crate) fn lost_sample(&self, sent: u64) -> Vec<u64> {
        let mut lost: Vec<u64> = self.missing.iter().copied().chain(self.next..sent).collect();
        lost.sort_unstable();
        lost.truncate(SAMPLE);
        lost
    }

    /// How many sequence numbers below `sent` never came.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        self.missing.len() as u64 + sent.saturating_sub(self.next)
    }
}

/// The same for a member that has perhaps received nothing of the publisher.
pub(crate) fn lost(seen: Option<&Seen>, sent: u64) -> u64 {
    seen.map_or(sent, |seen| seen.lost(sent))
}
