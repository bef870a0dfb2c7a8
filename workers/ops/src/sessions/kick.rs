//! `sessions kick`: the client is informed, its connection closed, the session deleted; it does not come back
//! to it.

use super::list::now_ms;
use super::{Id, Lookup, Trouble, find, shown};
use std::io::{self, Write};
use std::time::Duration;
use store::{Detail, Inspector, NoteBounds, Notes, Sid, trace};
use tokio::time::{Instant, sleep};

/// A worker that serves the session ends it within this time; then its keys are taken away.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) async fn kick(
    inspector: &Inspector,
    ids: impl Iterator<Item = &Id>,
    bounds: Option<NoteBounds>,
) -> Result<u8, Trouble> {
    let mut code = 0;
    for id in ids {
        let sid = match find(inspector, id).await? {
            Lookup::Found(sid) => sid,
            Lookup::Not(why) => {
                writeln!(io::stderr(), "{why}").ok();
                code = 1;
                continue;
            }
        };
        let Some(detail) = inspector.detail(&sid).await? else {
            writeln!(io::stdout(), "{}: it has just ended by itself", shown(&sid, false))?;
            continue;
        };
        if let Some(bounds) = bounds {
            inspector.trace(&note(&sid), bounds).await?;
        }
        let how = end(inspector, &sid, &detail).await?;
        writeln!(io::stdout(), "{}: {how}", shown(&sid, false))?;
    }
    Ok(code)
}

/// In the life of the session.
fn note(sid: &Sid) -> Notes {
    let mut text = String::new();
    trace::write(&mut text, 0, sid, "kicked", &[]);
    Notes {
        number: 1,
        began_ms: now_ms(),
        lost: 0,
        count: 1,
        text,
    }
}

async fn end(inspector: &Inspector, sid: &Sid, detail: &Detail) -> Result<&'static str, Trouble> {
    let has_sockets = !detail.record.namespaces.is_empty();
    let ordered = !detail.lost && inspector.dismiss(&detail.record).await?;
    if ordered && has_sockets && is_gone(inspector, sid).await? {
        // What a client might come back to goes too.
        inspector.end(sid).await?;
        return Ok("disconnected");
    }
    inspector.end(sid).await?;
    Ok(match detail.poll {
        _ if detail.lost => "ended; its client was away and cannot resume it",
        Some(_) => "ended; its client finds out with its next request",
        None if ordered && !has_sockets => "ended, and its connection closed",
        None => "ended; its connection is closed at the next heartbeat at the latest",
    })
}

async fn is_gone(inspector: &Inspector, sid: &Sid) -> Result<bool, Trouble> {
    let deadline = Instant::now() + ORDER_PATIENCE;
    while inspector.lives(sid).await? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(true)
}
