//! `anyworker trace`: the life of a session over all workers, from the notes that they keep in Redis.

use crate::context::Context;
use crate::output::UNAVAILABLE;
use crate::printer::{self, clean};
use crate::sessions::{Id, Trouble, inspector, settle, shown};
use crate::text::{Clock, age};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::time::Duration;
use store::trace::{Note, lines};
use store::{Batch, Detail, Inspector, Sid};

/// A note, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    at_ms: u64,
    worker: String,
    sid: String,
    what: String,
    fields: Vec<(String, String)>,
}

impl Kept {
    fn new(batch: &Batch, note: &Note<'_>) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            at_ms: batch.notes.began_ms.saturating_add(note.after_ms),
            worker: batch.worker.clone(),
            sid: note.sid.to_owned(),
            what: note.what.to_owned(),
            fields: note.fields.iter().map(owned).collect(),
        }
    }
}

/// All that the notes say about one client's sessions.
#[derive(Debug, Default)]
struct Life {
    notes: Vec<Kept>,
    /// Ids of its sessions, one resumed from the other.
    sids: HashSet<String>,
    /// Notes that were lost, by worker, within the time that the life takes.
    lost: BTreeMap<String, u64>,
    /// The oldest note of all sessions.
    since_ms: Option<u64>,
}

pub(crate) async fn run(context: &Context, id: &Id, full: bool, as_json: bool) -> io::Result<u8> {
    match inspector(context) {
        Ok(inspector) => settle(context, print(&inspector, id, full, as_json).await),
        Err(reason) => {
            writeln!(io::stderr(), "{reason}").ok();
            Ok(UNAVAILABLE)
        }
    }
}

async fn print(inspector: &Inspector, id: &Id, full: bool, as_json: bool) -> Result<u8, Trouble> {
    let life = match read(inspector, id).await? {
        Ok(life) => life,
        Err(why) => {
            writeln!(io::stderr(), "{why}").ok();
            return Ok(1);
        }
    };
    let mut now = Vec::new();
    for sid in life.sids.iter().filter_map(|sid| Sid::parse(sid).ok()) {
        now.extend(inspector.detail(&sid).await?);
    }
    let mut out = printer::stdout();
    if as_json {
        for note in &life.notes {
            writeln!(out, "{}", object(note, full))?;
        }
    } else {
        text(&mut out, &life, &now, full)?;
    }
    out.flush()?;
    Ok(0)
}

/// Collects a life in two passes: first which sessions belong to it, then what is noted about them.
async fn read(inspector: &Inspector, id: &Id) -> Result<Result<Life, String>, Trouble> {
    let (mut meant, mut links, mut since_ms) = (HashSet::new(), Vec::new(), None);
    each(inspector, |batch| {
        since_ms = Some(since_ms.map_or(batch.notes.began_ms, |since: u64| since.min(batch.notes.began_ms)));
        for note in lines(&batch.notes.text) {
            if id.is(note.sid) || note.field("socket").is_some_and(|socket| id.is(socket)) {
                meant.insert(note.sid.to_owned());
            }
            if let Some(other) = note.other() {
                links.push((note.sid.to_owned(), other.to_owned()));
            }
        }
    })
    .await?;
    let sids = match family(&meant, &links) {
        Some(sids) if !sids.is_empty() => sids,
        Some(_) => return Ok(Err(unknown(id, since_ms))),
        None => {
            let named: Vec<String> = meant
                .iter()
                .filter_map(|sid| Sid::parse(sid).ok())
                .map(|sid| shown(&sid, false))
                .collect();
            return Ok(Err(format!(
                "{id}: {} sessions begin so: {}",
                meant.len(),
                named.join(" ")
            )));
        }
    };
    let mut life = Life {
        sids,
        since_ms,
        ..Life::default()
    };
    let mut gaps = Vec::new();
    each(inspector, |batch| {
        if batch.notes.lost > 0 {
            gaps.push((batch.notes.began_ms, batch.worker.clone(), batch.notes.lost));
        }
        let of_life = lines(&batch.notes.text).filter(|note| life.sids.contains(note.sid));
        life.notes.extend(of_life.map(|note| Kept::new(batch, &note)));
    })
    .await?;
    // Stable: what one worker wrote in the same millisecond stays in its order.
    life.notes.sort_by_key(|note| note.at_ms);
    // Every survivor may say that a worker died.
    life.notes
        .dedup_by(|b, a| b.what == "worker_died" && a.what == b.what && a.sid == b.sid && a.fields == b.fields);
    let began = life.notes.first().map_or(0, |note| note.at_ms);
    for (_, worker, lost) in gaps.into_iter().filter(|(at, ..)| *at >= began) {
        *life.lost.entry(worker).or_default() += lost;
    }
    Ok(Ok(life))
}

fn unknown(id: &Id, since_ms: Option<u64>) -> String {
    match since_ms {
        Some(at) => format!("{id}: nothing is noted about it; notes reach back to {}", Clock(at)),
        None => format!("{id}: there are no notes; are they switched off (trace.level), or is no client connected?"),
    }
}

/// The sessions that hang together with the one that is meant; `None` if several are meant that do not.
fn family(meant: &HashSet<String>, links: &[(String, String)]) -> Option<HashSet<String>> {
    let mut beside: HashMap<&str, Vec<&str>> = HashMap::new();
    for (a, b) in links {
        beside.entry(a).or_default().push(b);
        beside.entry(b).or_default().push(a);
    }
    let Some(first) = meant.iter().next() else {
        return Some(HashSet::new());
    };
    let mut found = HashSet::from([first.clone()]);
    let mut open = vec![first.as_str()];
    while let Some(sid) = open.pop() {
        for other in beside.get(sid).into_iter().flatten() {
            if found.insert((*other).to_owned()) {
                open.push(other);
            }
        }
    }
    meant.iter().all(|sid| found.contains(sid)).then_some(found)
}

/// Looks at every batch of notes, once, from the oldest.
async fn each(inspector: &Inspector, mut look: impl FnMut(&Batch)) -> Result<(), Trouble> {
    let mut after = String::new();
    // The number of the latest batch of each worker: a batch whose answer was lost is written twice.
    let mut latest: HashMap<String, u64> = HashMap::new();
    loop {
        let batches = inspector.notes(&after).await?;
        let Some(last) = batches.last() else {
            return Ok(());
        };
        after.clone_from(&last.id);
        for batch in &batches {
            if latest.insert(batch.worker.clone(), batch.notes.number) != Some(batch.notes.number) {
                look(batch);
            }
        }
    }
}

/// The ids of sessions among the values are secrets too.
pub(crate) fn value(name: &str, value: &str, full: bool) -> String {
    match Sid::parse(value) {
        Ok(sid) if name == "session" => shown(&sid, full),
        _ => value.to_owned(),
    }
}

fn object(note: &Kept, full: bool) -> Value {
    let fields: Map<String, Value> = note
        .fields
        .iter()
        .map(|(name, text)| (name.clone(), json!(value(name, text, full))))
        .collect();
    json!({
        "at_ms": note.at_ms,
        "worker": note.worker,
        "sid": shown_text(&note.sid, full),
        "what": note.what,
        "fields": fields,
    })
}

pub(crate) fn shown_text(sid: &str, full: bool) -> String {
    Sid::parse(sid).map_or_else(|_| sid.to_owned(), |sid| shown(&sid, full))
}

fn text(out: &mut impl Write, life: &Life, now: &[Detail], full: bool) -> io::Result<()> {
    let (Some(first), Some(last)) = (life.notes.first(), life.notes.last()) else {
        return Ok(());
    };
    let workers: HashSet<&str> = life.notes.iter().map(|note| note.worker.as_str()).collect();
    let took = Duration::from_millis(last.at_ms.saturating_sub(first.at_ms));
    writeln!(
        out,
        "{} sessions, {} workers, {} notes within {}; times are UTC, {}",
        life.sids.len(),
        workers.len(),
        life.notes.len(),
        age(took),
        Clock(first.at_ms).date(),
    )?;
    if let Some(since) = life.since_ms.filter(|_| first.what != "opened") {
        writeln!(
            out,
            "its beginning is older than the notes, which reach back to {}",
            Clock(since)
        )?;
    }
    for note in &life.notes {
        write!(
            out,
            "{} {:>9} {:<14} {} {:<14}",
            Clock(note.at_ms).time(),
            format!("+{}", note.at_ms.saturating_sub(first.at_ms)),
            note.worker,
            shown_text(&note.sid, full),
            note.what,
        )?;
        for (name, text) in &note.fields {
            write!(out, " {name}={}", clean(&value(name, text, full)))?;
        }
        writeln!(out)?;
    }
    for (worker, lost) in &life.lost {
        writeln!(
            out,
            "{lost} notes of worker {worker} were lost meanwhile: Redis was away, or slow"
        )?;
    }
    if now.is_empty() {
        writeln!(out, "now: ended")?;
    }
    for detail in now {
        let state = if detail.lost { "lost, can be resumed" } else { "alive" };
        let left = detail.expires_in.map_or_else(|| "never".to_owned(), age);
        writeln!(
            out,
            "now: {} {state}, epoch {}, last on worker {}; expires in {left} without a sign of life",
            shown(&detail.record.sid, full),
            detail.record.epoch,
            detail.record.worker,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_were_resumed_hang_together() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        let links = [("b", "a"), ("c", "b"), ("x", "y")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(family(&set(&["a"]), &links), Some(set(&["a", "b", "c"])));
        assert_eq!(family(&set(&["a", "c"]), &links), Some(set(&["a", "b", "c"])));
        assert_eq!(family(&set(&["a", "x"]), &links), None);
        assert_eq!(family(&set(&[]), &links), Some(set(&[])));
    }
}
