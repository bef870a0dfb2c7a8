//! What clients wrote down, and what must be true of it: in every room, all members received the same
//! messages in the same order, each once, and everything that was acked is among them.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The message that is the last of a room.
const END: &str = "end";

/// Faults that are named, of each kind.
const NAMED_MAX: usize = 5;

/// The diary of `tests/clients/chaos.mjs`.
#[derive(Debug, Deserialize)]
pub(crate) struct Diary {
    pub(crate) members: Vec<Member>,
    pub(crate) published: Vec<Published>,
    /// How long each client was away, each time.
    pub(crate) resumed_ms: Vec<u64>,
    /// Who had not heard everything in the end, and how its connection was.
    pub(crate) silent: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) way: String,
    /// Message ids by room, as they came.
    pub(crate) got: BTreeMap<String, Vec<String>>,
    pub(crate) recovered: u64,
    pub(crate) anew: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Published {
    pub(crate) room: String,
    pub(crate) id: String,
    /// `false`: refused, or never answered. It may have arrived all the same.
    pub(crate) acked: bool,
}

/// Everything that is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Acked, and a member of the room never got it.
    pub(crate) lost: Vec<String>,
    /// A member got it more than once.
    pub(crate) doubled: Vec<String>,
    /// It was never published.
    pub(crate) invented: Vec<String>,
    /// Members of a room do not agree on what came when.
    pub(crate) disagreed: Vec<String>,
    /// Messages of one publisher that waits for acks that overtook each other.
    pub(crate) reordered: Vec<String>,
    /// A session was not given back.
    pub(crate) anew: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("invented", &self.invented),
            ("disagreed", &self.disagreed),
            ("reordered", &self.reordered),
            ("anew", &self.anew),
        ];
        for (kind, found) in kinds {
            write!(f, "{kind} {}", found.len())?;
            if !found.is_empty() {
                let named = found.get(..NAMED_MAX.min(found.len())).unwrap_or_default();
                write!(f, " ({})", named.join("; "))?;
            }
            f.write_str(", ")?;
        }
        Ok(())
    }
}

impl Diary {
    /// Judges the diary.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let mut rooms: BTreeMap<&str, Vec<(&Member, Vec<&str>)>> = BTreeMap::new();
        for member in &self.members {
            if member.anew > 0 {
                verdict
                    .anew
                    .push(format!("{} ({}), {} times", member.name, member.way, member.anew));
            }
            for (room, got) in &member.got {
                let seen = once_each(member, room, got, &mut verdict);
                rooms.entry(room).or_default().push((member, seen));
            }
        }
        for (room, members) in &rooms {
            self.judge_room(room, members, &mut verdict);
        }
        verdict
    }

    fn judge_room(&self, room: &str, members: &[(&Member, Vec<&str>)], verdict: &mut Verdict) {
        let here = || self.published.iter().filter(|published| published.room == room);
        let tried: BTreeSet<&str> = here().map(|published| published.id.as_str()).chain([END]).collect();
        let acked = || {
            let acked = here().filter(|published| published.acked);
            acked.map(|published| published.id.as_str()).chain([END])
        };
        for (member, seen) in members {
            let known: BTreeSet<&str> = seen.iter().copied().collect();
            let place = format!("{room}, {} ({})", member.name, member.way);
            let missing = acked().filter(|id| !known.contains(id));
            verdict.lost.extend(missing.map(|id| format!("{id} in {place}")));
            let strange = known.difference(&tried);
            verdict.invented.extend(strange.map(|id| format!("{id} in {place}")));
            overtaken(seen, &place, verdict);
        }
        // Before the mark everybody has the same; what was not acked may come behind it.
        let until_end = |seen: &[&str]| -> Vec<String> {
            let before = seen.iter().take_while(|id| **id != END);
            before.map(|id| (*id).to_owned()).collect()
        };
        let Some((first, seen)) = members.first() else { return };
        let reference = until_end(seen);
        for (member, seen) in members.iter().skip(1) {
            let other = until_end(seen);
            if other != reference {
                let at = reference.iter().zip(&other).take_while(|(a, b)| a == b).count();
                verdict.disagreed.push(format!(
                    "{room}: {} ({}) has {:?} where {} ({}) has {:?}",
                    member.name,
                    member.way,
                    other.get(at),
                    first.name,
                    first.way,
                    reference.get(at)
                ));
            }
        }
    }
}

/// First arrivals, in order.
fn once_each<'a>(member: &Member, room: &str, got: &'a [String], verdict: &mut Verdict) -> Vec<&'a str> {
    let mut known = BTreeSet::new();
    let mut seen = Vec::with_capacity(got.len());
    for id in got {
        if known.insert(id.as_str()) {
            seen.push(id.as_str());
        } else {
            verdict
                .doubled
                .push(format!("{id} in {room}, {} ({})", member.name, member.way));
        }
    }
    seen
}

/// `careful-3-17` is the 17th of publisher 3, sent after the 16th was acked.
fn overtaken(seen: &[&str], place: &str, verdict: &mut Verdict) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for id in seen {
        let Some((publisher, number)) = id.strip_prefix("careful-").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let number = number.parse().unwrap_or_default();
        if last.insert(publisher, number).is_some_and(|before| before > number) {
            verdict.reordered.push(format!("{id} in {place}"));
        }
    }
}

#[test]
fn the_judge_sees_what_is_wrong() {
    let diary = |first: &[&str], second: &[&str]| {
        let member = |name: &str, got: &[&str]| Member {
            name: name.to_owned(),
            way: "polling".to_owned(),
            got: BTreeMap::from([("r".to_owned(), got.iter().map(|id| (*id).to_owned()).collect())]),
            recovered: 0,
            anew: 0,
        };
        let published = |id: &str, acked| Published {
            room: "r".to_owned(),
            id: id.to_owned(),
            acked,
        };
        Diary {
            members: vec![member("a", first), member("b", second)],
            published: vec![
                published("careful-0-0", true),
                published("careful-0-1", true),
                published("careless-1-0", false),
            ],
            resumed_ms: Vec::new(),
            silent: Vec::new(),
        }
    };
    let good = ["careful-0-0", "careless-1-0", "careful-0-1", "end"];
    assert!(diary(&good, &good).verdict().is_clean());
    let without = ["careful-0-0", "careful-0-1", "end"];
    assert!(
        diary(&without, &without).verdict().is_clean(),
        "what was not acked may be missing"
    );
    let late = ["careful-0-0", "careful-0-1", "end", "careless-1-0"];
    assert!(diary(&late, &without).verdict().is_clean(), "or come after the end");
    assert_eq!(
        diary(&good, &without).verdict().disagreed.len(),
        1,
        "but not for one alone"
    );
    let short = ["careful-0-0", "end"];
    assert_eq!(diary(&short, &short).verdict().lost.len(), 2);
    let silent = ["careful-0-0", "careful-0-1"];
    assert_eq!(diary(&silent, &silent).verdict().lost.len(), 2, "the end is missing");
    let twice = ["careful-0-0", "careful-0-1", "careful-0-0", "end"];
    assert_eq!(diary(&twice, &without).verdict().doubled.len(), 1);
    let swapped = ["careful-0-1", "careful-0-0", "end"];
    assert_eq!(diary(&swapped, &swapped).verdict().reordered.len(), 2);
    assert_eq!(diary(&swapped, &without).verdict().disagreed.len(), 1);
    let strange = ["careful-0-0", "what?", "careful-0-1", "end"];
    assert_eq!(diary(&strange, &strange).verdict().invented.len(), 2);
    let mut lost = diary(&good, &good);
    lost.members[0].anew = 1;
    assert_eq!(lost.verdict().anew.len(), 1);
}
