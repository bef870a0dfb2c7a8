//! The move from polling to WebSocket: probe, noop for the waiting poll, upgrade packet. It may
//! happen on a worker that has never seen the session.

use crate::ending::Ending;
use crate::fault::{self, Point};
use crate::metrics::Upgrade;
use crate::protocol::Style;
use crate::worker::Worker;
use crate::ws::{Link, Opening, close, open, read_failed};
use futures_util::{SinkExt, StreamExt};
use session::Sid;
use session::trace::Value::Text;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use store::{RequestId, UpgradeFinish, UpgradeStep};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

/// Between two attempts while a POST of the session is still running.
const POST_RETRY: Duration = Duration::from_millis(5);

/// Serves a WebSocket that was opened for a polling session; `request` holds the upgrade.
pub(crate) async fn upgrade(
    worker: Rc<Worker>,
    mut ws: WebSocketStream<Link>,
    style: Style,
    sid: Sid,
    request: RequestId,
) {
    let deadline = Instant::now() + worker.settings.engine.upgrade_timeout;
    match timeout_at(deadline, probe(&worker, &mut ws, &sid, request)).await {
        Ok(Ok((record, opening))) => {
            worker.metrics.upgrades.one(Upgrade::Ok);
            open(worker, ws, style, record, opening).await;
        }
        failed => {
            let (why, result, frame) = match &failed {
                Ok(Err(ending)) => ("broken off", Upgrade::Failed, ending.close_frame()),
                Ok(Ok(_)) | Err(_) => ("timed out", Upgrade::Timeout, None),
            };
            worker.metrics.upgrades.one(result);
            worker.trace.note(&sid, "upgrade_failed", &[("why", Text(why))]);
            debug!(why, "upgrade failed: session continues by polling");
            if let Err(error) = worker.store.upgrade_cancel(&sid, request).await {
                debug!(%error, "upgrade not cancelled: it times out");
            }
            close(&RefCell::new(ws), frame).await;
        }
    }
}

/// Runs the upgrade handshake, or returns why the WebSocket is closed: the session continues without it.
async fn probe(
    worker: &Worker,
    ws: &mut WebSocketStream<Link>,
    sid: &Sid,
    request: RequestId,
) -> Result<(session::Record, Opening), Ending> {
    let mut probed = false;
    loop {
        let message = ws
            .next()
            .await
            .unwrap_or(Ok(Message::Close(None)))
            .map_err(read_failed)?;
        match message {
            Message::Text(text) if text.as_str() == "2probe" && !probed => {
                probed = true;
                ws.send(Message::text("3probe")).await.map_err(read_failed)?;
                match worker.store.upgrade_probed(sid, request).await {
                    Ok(UpgradeStep::Done) => fault::at(Point::Probed),
                    Ok(UpgradeStep::Gone) => return Err(Ending::Kicked),
                    Err(_) => return Err(Ending::StoreUnavailable),
                }
            }
            Message::Text(text) if text.as_str() == "5" => return finish(worker, sid, request).await,
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return Err(Ending::TransportClosed),
            Message::Text(_) | Message::Binary(_) | Message::Frame(_) => {
                return Err(Ending::EngineProtocol("no part of an upgrade"));
            }
        }
    }
}

async fn finish(worker: &Worker, sid: &Sid, request: RequestId) -> Result<(session::Record, Opening), Ending> {
    loop {
        match worker.store.upgrade_finish(sid, request).await {
            Ok(UpgradeFinish::Done { record, after, mail }) => {
                return Ok((*record, Opening::Upgraded { after, mail }));
            }
            // The POST ends by itself, and the caller's deadline bounds the wait.
            Ok(UpgradeFinish::Busy) => sleep(POST_RETRY).await,
            Ok(UpgradeFinish::Gone) => return Err(Ending::Kicked),
            Err(_) => return Err(Ending::StoreUnavailable),
        }
    }
}
