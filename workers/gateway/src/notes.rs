//! What is noted about the lives of sessions, the same for both transports, and how it gets into Redis.

use crate::context::Context;
use crate::ending::Ending;
use crate::membership::Change;
use crate::worker::Worker;
use session::trace::Value::{Shown, Text};
use session::{Record, Sid, Transport};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

/// Between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// A worker that leaves writes its last notes within this time.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// Notes a change of a session's memberships, once it is in its record.
pub(crate) fn note(context: &Context, record: &Record, change: &Change) {
    let sid = &record.sid;
    let who = |nsp: &str| record.namespaces.get(nsp).and_then(|joined| joined.who.as_deref());
    let tells = context.settings.logging.connections;
    match change {
        Change::Connected { nsp } => {
            let Some(joined) = record.namespaces.get(nsp) else {
                return;
            };
            let fields = [
                ("namespace", Text(nsp)),
                ("socket", Text(joined.sid.as_str())),
                ("who", Text(joined.who.as_deref().unwrap_or("-"))),
            ];
            context.trace.note(sid, "connected", &fields);
            if tells {
                let transport = match record.transport {
                    Transport::Polling => "polling",
                    Transport::Websocket => "websocket",
                };
                info!(
                    nsp,
                    who = who(nsp),
                    address = record.address,
                    transport,
                    "client connected"
                );
            }
        }
        Change::Disconnected { nsp } => context.trace.note(sid, "disconnected", &[("namespace", Text(nsp))]),
        Change::Joined { nsp, room } => {
            let fields = [("room", Text(room)), ("namespace", Text(nsp))];
            context.trace.note(sid, "joined", &fields);
            if tells {
                info!(nsp, room, who = who(nsp), "room joined");
            }
        }
        Change::Left { nsp, room } => {
            let fields = [("room", Text(room)), ("namespace", Text(nsp))];
            context.trace.note(sid, "left", &fields);
        }
    }
}

/// Notes that a session has ended here, and whether its client can come back to it.
pub(crate) fn note_closed(context: &Context, sid: &Sid, ending: &Ending, kept: bool) {
    let kept = Text(if kept { "yes" } else { "no" });
    context
        .trace
        .note(sid, "closed", &[("recoverable", kept), ("why", Shown(ending))]);
}

/// Writes the notes, as long as the worker runs.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.trace.write(&worker.store).await;
    }
}

/// The last notes of a worker that leaves.
pub(crate) async fn finish(worker: &Worker) {
    if timeout(LAST_WRITE, worker.trace.write(&worker.store)).await.is_err() {
        debug!("last notes about sessions not written");
    }
}
