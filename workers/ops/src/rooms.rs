//! `anyworker rooms`: the rooms there are, by the records of their members.

use crate::Context;
use crate::output::UNAVAILABLE;
use crate::printer::{self, clean};
use crate::sessions::{Trouble, each, inspector, settle};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, Write};
use store::Inspector;

pub(crate) async fn run(context: &Context, namespace: Option<&str>, as_json: bool) -> io::Result<u8> {
    match inspector(context) {
        Ok(inspector) => settle(context, list(&inspector, namespace, as_json).await),
        Err(reason) => {
            writeln!(io::stderr(), "{reason}").ok();
            Ok(UNAVAILABLE)
        }
    }
}

/// The largest first.
async fn list(inspector: &Inspector, namespace: Option<&str>, as_json: bool) -> Result<u8, Trouble> {
    let mut rooms: HashMap<String, HashMap<String, u64>> = HashMap::new();
    each(inspector, |record| {
        for (nsp, joined) in record.namespaces.iter() {
            if namespace.is_none_or(|wanted| wanted == nsp) {
                let of_nsp = rooms.entry(nsp.to_owned()).or_default();
                for room in joined.rooms.names() {
                    *of_nsp.entry(room.to_owned()).or_default() += 1;
                }
            }
        }
    })
    .await?;
    let mut all: Vec<(String, String, u64)> = rooms
        .into_iter()
        .flat_map(|(nsp, rooms)| {
            rooms
                .into_iter()
                .map(move |(room, members)| (nsp.clone(), room, members))
        })
        .collect();
    all.sort_by(|(an, ar, am), (bn, br, bm)| (an, bm, ar).cmp(&(bn, am, br)));
    let mut out = printer::stdout();
    if as_json {
        for (namespace, room, members) in &all {
            let line = json!({ "namespace": namespace, "room": room, "members": members });
            writeln!(out, "{line}")?;
        }
    } else {
        writeln!(out, "{:>8} {:<16} room", "members", "namespace")?;
        for (nsp, room, members) in &all {
            writeln!(out, "{members:>8} {:<16} {}", clean(nsp), clean(room))?;
        }
        writeln!(out, "{} rooms", all.len())?;
    }
    out.flush()?;
    Ok(0)
}
