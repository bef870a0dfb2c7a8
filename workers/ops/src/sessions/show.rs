//! `sessions show`: everything about one session. Recovery ids are never shown.

use super::list::{now_ms, word};
use super::{Id, Lookup, Trouble, find, shown};
use crate::printer::{self, clean};
use crate::text::age;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;
use store::{Detail, Inspector};

pub(super) async fn show(inspector: &Inspector, id: &Id, full: bool, as_json: bool) -> Result<u8, Trouble> {
    let sid = match find(inspector, id).await? {
        Lookup::Found(sid) => sid,
        Lookup::Not(why) => {
            writeln!(io::stderr(), "{why}").ok();
            return Ok(1);
        }
    };
    let Some(detail) = inspector.detail(&sid).await? else {
        writeln!(io::stderr(), "{id}: it has just ended").ok();
        return Ok(1);
    };
    let text = if as_json {
        object(&detail, full).to_string() + "\n"
    } else {
        page(&detail, full)
    };
    let mut out = printer::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

fn object(detail: &Detail, full: bool) -> Value {
    let record = &detail.record;
    let namespaces: serde_json::Map<String, Value> = record
        .namespaces
        .iter()
        .map(|(nsp, joined)| {
            let rooms: serde_json::Map<String, Value> = joined
                .rooms
                .iter()
                .map(|(room, since)| (room.to_owned(), json!(since.to_string())))
                .collect();
            let value = json!({
                "sid": joined.sid.as_str(),
                "who": joined.who,
                "since": joined.since.to_string(),
                "recoverable": joined.pid.is_some(),
                "rooms": rooms,
                "data": joined.data,
            });
            (nsp.to_owned(), value)
        })
        .collect();
    let poll = detail.poll.as_ref().map(
        |poll| json!({ "cursor": poll.cursor, "sent": poll.sent, "mail": poll.mail, "parked_at": poll.parked_at }),
    );
    json!({
        "sid": shown(&record.sid, full),
        "state": state(detail),
        "who": record.shown_names(),
        "transport": word(record.transport),
        "worker": record.worker,
        "address": record.address,
        "created_ms": record.created_ms,
        "epoch": record.epoch,
        "offsets": record.offsets,
        "expires_in_ms": detail.expires_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        "namespaces": namespaces,
        "polling": poll,
    })
}

const fn state(detail: &Detail) -> &'static str {
    if detail.lost {
        "lost"
    } else if detail.record.closing {
        "closing"
    } else {
        "alive"
    }
}

fn page(detail: &Detail, full: bool) -> String {
    let record = &detail.record;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        writeln!(text, "{name:<12} {}", clean(value)).ok();
    };
    line("session", &shown(&record.sid, full));
    let state = match state(detail) {
        "lost" => "lost: it ended without its client's will, and can be resumed",
        "closing" => "closing: its next poll ends it",
        state => state,
    };
    line("state", state);
    line("who", record.shown_names().as_deref().unwrap_or("-"));
    line("transport", word(record.transport));
    line("worker", &record.worker);
    line("address", &record.address);
    let old = Duration::from_millis(now_ms().saturating_sub(record.created_ms));
    line("age", &age(old));
    let left = detail.expires_in.map_or_else(|| "never".to_owned(), age);
    line("expires in", &format!("{left} without a sign of life"));
    line("epoch", &record.epoch.to_string());
    line("offsets", if record.offsets { "sent with events" } else { "not sent" });
    if let Some(poll) = &detail.poll {
        let parked = poll.parked_at.as_deref().unwrap_or("nowhere");
        line("poll", &format!("waits at {parked}"));
        line("cursor", &format!("{} (sent up to {})", poll.cursor, poll.sent));
        line("mail", &format!("{} packets wait", poll.mail));
    }
    for (nsp, joined) in record.namespaces.iter() {
        let recovery = if joined.pid.is_some() {
            "recoverable"
        } else {
            "not recoverable"
        };
        line(
            "namespace",
            &format!("{nsp} as {} since {}, {recovery}", joined.sid, joined.since),
        );
        if let (Some(who), 2..) = (&joined.who, record.namespaces.len()) {
            line("  who", who);
        }
        for (room, since) in joined.rooms.iter() {
            line("  room", &format!("{room} since {since}"));
        }
        if let Some(data) = &joined.data {
            line("  data", data.get());
        }
    }
    text
}
