//! What a worker does for the application link besides its clients: it publishes the link, and looks after sockets whose
//! worker may have died without a word.

use crate::external::External;
use crate::lines::line;
use crate::worker::Worker;
use session::Record;
use std::rc::Rc;
use std::time::Duration;
use store::{Due, StoreError, Unit};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

/// How often the link is published: a Redis that has restarted empty has it again after that.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);
/// How often this worker asks whether sockets are to be looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Publishes the link, and looks after sockets whose worker may have died, as long as the worker lives.
pub(crate) async fn run(worker: Rc<Worker>) {
    let Some(external) = &worker.external else { return };
    let mut published = None;
    loop {
        if published.is_none_or(|at: Instant| at.elapsed() >= PUBLISH_EVERY) {
            match external.link.publish(&external.terms).await {
                Ok(()) => {
                    if published.is_none() {
                        info!(partitions = external.terms.partitions, "application link published");
                    }
                    published = Some(Instant::now());
                }
                Err(error) if published.is_none() => warn!(%error, "application link not published yet"),
                Err(error) => debug!(%error, "application link not published again"),
            }
        }
        look_after(&worker, external).await;
        sleep(LOOK_EVERY).await;
    }
}

async fn look_after(worker: &Worker, external: &External) {
    let due = match external.link.due(external.look_again).await {
        Ok(due) => due,
        Err(error) => return debug!(%error, "sockets of the application not looked after"),
    };
    for socket in due {
        match is_there(worker, &socket).await {
            Ok(true) => {
                let touch = Unit::touch(&socket.sid, external.look_again);
                if let Err(error) = external.link.put(vec![touch]).await {
                    debug!(%error, "socket of the application not looked after");
                }
            }
            Ok(false) => external.leave(vec![socket.sid], "transport close").await,
            Err(error) => line!(debug, %error, "socket of the application not looked after"),
        }
    }
}

/// Whether a socket's client is connected, or can come back.
async fn is_there(worker: &Worker, socket: &Due) -> Result<bool, StoreError> {
    let is_its = |record: &Record| {
        let joined = record.namespaces.get(&socket.nsp);
        joined.is_some_and(|joined| joined.sid == socket.sid)
    };
    if let Some(session) = &socket.session
        && worker.store.load(session).await?.as_ref().is_some_and(is_its)
    {
        return Ok(true);
    }
    match &socket.pid {
        Some(pid) => Ok(worker.store.resolve(pid).await?.as_ref().is_some_and(is_its)),
        None => Ok(false),
    }
}
