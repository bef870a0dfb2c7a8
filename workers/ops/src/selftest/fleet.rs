//! The fleet: is it there, and does one session work on every worker?

use super::Sheet;
use super::walk::{Visits, Walk};
use crate::Context;
use crate::fleet::{Fleet, slot_of};
use crate::output::{count, millis};
use crate::web::Target;
use std::io;

pub(super) async fn test(context: &Context, sheet: &mut Sheet) -> io::Result<()> {
    sheet.test("👷", "Checking the Fleet")?;
    let fleet = match context.fleet() {
        Ok(fleet) => fleet,
        Err(error) => return sheet.failed(&error.to_string()),
    };
    let (slots, ready) = (fleet.slots(), fleet.ready_slots());
    let text = format!("{} of {} workers are ready", ready.len(), slots.len());
    if ready.len() == slots.len() && !ready.is_empty() {
        sheet.passed(&text)?;
    } else {
        sheet.failed(&format!("{text}: see `anyworker status`"))?;
    }
    sheet.test("🔄", "Testing One Session on Every Worker")?;
    let target = context.listen.first().copied().filter(|address| address.port() != 0);
    let Some(target) = target.map(Target::local) else {
        return sheet.failed("listen.address has no fixed port: the selftest cannot know where to connect");
    };
    if !context.engine.polling {
        return sheet.note("left out: engine.transports has no polling, and a WebSocket stays where it is");
    }
    round_trip(context, sheet, &fleet, &target).await
}

async fn round_trip(context: &Context, sheet: &mut Sheet, fleet: &Fleet, target: &Target) -> io::Result<()> {
    let inspector = context.redis.as_ref().and_then(|redis| redis.inspector().ok());
    let mut walk = match Walk::begin(context, target, inspector).await {
        Ok(walk) => walk,
        Err(error) => return sheet.failed(&format!("no session: {error}")),
    };
    match walk.creator() {
        Some(worker) => sheet.passed(&format!("Session {} created on {}", walk.sid(), named(worker)))?,
        None => sheet.passed(&format!("Session {} created", walk.sid()))?,
    }
    let walked = walk.visit_all(&fleet.ready_slots()).await;
    for (worker, Visits { gets, posts }) in walk.visits() {
        let times = format!("{}, {}", count(*gets, "GET"), count(*posts, "POST"));
        sheet.passed(&format!("Session used on {}: {times}", named(worker)))?;
    }
    match walked {
        Ok(()) => {
            // Without Redis there is one worker.
            let way = if context.redis.is_some() && fleet.ready_slots().len() > 1 {
                "published on one worker and received on another"
            } else {
                "published and received"
            };
            let messages = count(walk.published(), "message");
            let median = millis(walk.median());
            sheet.passed(&format!("{messages} {way}: all, in order, {median} ms (median)"))?;
        }
        Err(error) => sheet.failed(&error)?,
    }
    match walk.end().await {
        Ok(()) if context.redis.is_some() => sheet.passed("Session ended, its key is gone"),
        Ok(()) => sheet.passed("Session ended"),
        Err(error) => sheet.failed(&format!("Session not ended: {error}")),
    }
}

fn named(incarnation: &str) -> String {
    match slot_of(incarnation) {
        Some(slot) => format!("worker {incarnation} (slot {slot})"),
        None => format!("worker {incarnation}"),
    }
}
