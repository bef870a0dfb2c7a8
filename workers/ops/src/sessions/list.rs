//! `sessions list` and `sessions count`.

use super::{Filter, ListArgs, Trouble, each, shown};
use crate::printer::{self, clean};
use crate::text::age;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Inspector, Record, Transport};

/// A session in a list: what is shown of its record.
#[derive(Debug, Serialize)]
struct Row {
    sid: String,
    /// Its users, with commas between them: each namespace may have another.
    who: Option<String>,
    transport: Transport,
    worker: String,
    address: String,
    created_ms: u64,
    namespaces: BTreeMap<String, Membership>,
}

/// Of a row, in one namespace.
#[derive(Debug, Serialize)]
struct Membership {
    /// The Socket.IO id: public.
    sid: String,
    who: Option<String>,
    rooms: Vec<String>,
}

impl Row {
    fn new(record: Record, full: bool) -> Self {
        let namespaces = record.namespaces.iter().map(|(nsp, joined)| {
            let membership = Membership {
                sid: joined.sid.to_string(),
                who: joined.who.clone(),
                rooms: joined.rooms.names().map(str::to_owned).collect(),
            };
            (nsp.to_owned(), membership)
        });
        Self {
            sid: shown(&record.sid, full),
            namespaces: namespaces.collect(),
            who: record.shown_names(),
            transport: record.transport,
            worker: record.worker,
            address: record.address,
            created_ms: record.created_ms,
        }
    }

    fn line(&self, now_ms: u64, width: usize) -> String {
        let first = self.namespaces.values().next();
        let rooms: usize = self.namespaces.values().map(|membership| membership.rooms.len()).sum();
        let names: Vec<&str> = self.namespaces.keys().map(String::as_str).collect();
        let line = cells(
            width,
            [
                &self.sid,
                first.map_or("-", |membership| &membership.sid),
                word(self.transport),
                &self.worker,
                &age(Duration::from_millis(now_ms.saturating_sub(self.created_ms))),
                &rooms.to_string(),
                &self.address,
                self.who.as_deref().unwrap_or("-"),
                &names.join(","),
            ],
        );
        clean(&line).into_owned()
    }
}

fn cells(width: usize, [sid, socket, transport, worker, age, rooms, address, who, namespaces]: [&str; 9]) -> String {
    format!(
        "{sid:<width$} {socket:<20} {transport:<9} {worker:<14} {age:>13} {rooms:>5} {address:<15} {who:<12} {namespaces}"
    )
    .trim_end()
    .to_owned()
}

/// The protocol's word.
pub(super) const fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Polling => "polling",
        Transport::Websocket => "websocket",
    }
}

/// One line for each session, the oldest first.
pub(super) async fn list(inspector: &Inspector, args: &ListArgs) -> Result<u8, Trouble> {
    let mut rows = Vec::new();
    each(inspector, |record| {
        if args.filter.admits(&record) {
            rows.push(Row::new(record, args.full));
        }
    })
    .await?;
    rows.sort_by(|a, b| (a.created_ms, &a.sid).cmp(&(b.created_ms, &b.sid)));
    let mut out = printer::stdout();
    if args.json {
        for row in &rows {
            serde_json::to_writer(&mut out, row).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    } else {
        let width = rows.first().map_or(3, |row| row.sid.chars().count());
        let head = cells(
            width,
            [
                "sid",
                "socket",
                "transport",
                "worker",
                "age",
                "rooms",
                "address",
                "who",
                "namespaces",
            ],
        );
        writeln!(out, "{head}")?;
        let now_ms = now_ms();
        for row in &rows {
            writeln!(out, "{}", row.line(now_ms, width))?;
        }
        writeln!(out, "{} sessions", rows.len())?;
    }
    out.flush()?;
    Ok(0)
}

/// How many there are.
#[derive(Debug, Default, Serialize)]
struct Count {
    sessions: u64,
    by_transport: BTreeMap<&'static str, u64>,
    by_worker: BTreeMap<String, u64>,
    by_namespace: BTreeMap<String, u64>,
    /// In no namespace.
    without_namespace: u64,
}

impl Count {
    fn add(&mut self, record: Record) {
        self.sessions += 1;
        *self.by_transport.entry(word(record.transport)).or_default() += 1;
        if record.namespaces.is_empty() {
            self.without_namespace += 1;
        }
        for nsp in record.namespaces.names() {
            match self.by_namespace.get_mut(nsp) {
                Some(count) => *count += 1,
                None => {
                    self.by_namespace.insert(nsp.to_owned(), 1);
                }
            }
        }
        *self.by_worker.entry(record.worker).or_default() += 1;
    }

    fn text(&self) -> String {
        let mut text = format!("{} sessions\n", self.sessions);
        let mut part = |what: &str, name: &str, count: u64| {
            text.extend([format!("{count:>9} {what} {}\n", clean(name)).as_str()]);
        };
        for (transport, count) in &self.by_transport {
            part("by", transport, *count);
        }
        for (worker, count) in &self.by_worker {
            part("on worker", worker, *count);
        }
        for (nsp, count) in &self.by_namespace {
            part("in namespace", nsp, *count);
        }
        if self.without_namespace > 0 {
            part("in", "no namespace", self.without_namespace);
        }
        text
    }
}

pub(super) async fn count(inspector: &Inspector, filter: &Filter, json: bool) -> Result<u8, Trouble> {
    let mut count = Count::default();
    each(inspector, |record| {
        if filter.admits(&record) {
            count.add(record);
        }
    })
    .await?;
    let mut text = count.text();
    if json {
        text = serde_json::to_string(&count).map_err(io::Error::from)? + "\n";
    }
    let mut out = printer::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
