//! The ends of sessions, collected: no client waits for the end of a session as it waits for an answer, and
//! one command for several costs Redis and the worker a fraction of one for each.

use super::link::ConnectionClass;
use super::{Remote, Shared, millis};
use crate::error::StoreError;
use futures_util::future::try_join_all;
use session::{Record, Sid};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long the first of some ends waits for others.
const COLLECTED_FOR: Duration = Duration::from_millis(4);
/// Sessions ended by one command: Redis serves no other client meanwhile.
const TOGETHER_MAX: usize = 64;

/// A session that is to end.
pub(super) struct End {
    pub(super) sid: Sid,
    /// Ends it only if the record has this epoch.
    pub(super) expected_epoch: Option<u64>,
    /// The record that can be resumed, as JSON, or nothing.
    pub(super) keep: String,
    /// For how long it can.
    pub(super) window: Duration,
}

/// A caller that waits for the end of a session.
pub(super) struct Pending {
    end: End,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Remote {
    pub(crate) async fn end(
        &self,
        sid: &Sid,
        expected_epoch: Option<u64>,
        keep: Option<(&Record, Duration)>,
    ) -> Result<(), StoreError> {
        let (json, window) = keep
            .map(|(record, window)| (record.to_json(), window))
            .unwrap_or_default();
        let end = End {
            sid: sid.clone(),
            expected_epoch,
            keep: json,
            window,
        };
        let (done, ended) = oneshot::channel();
        let first = {
            let mut ends = self.shared.ends.borrow_mut();
            ends.push(Pending { end, done });
            ends.len() == 1
        };
        if first {
            drop(tokio::task::spawn_local(settle(Rc::clone(&self.shared))));
        }
        ended.await.unwrap_or(Err(StoreError::Unavailable {
            op: "end",
            reason: "the worker is going".to_owned(),
        }))
    }
}

/// Waits for more, and ends them all.
async fn settle(shared: Rc<Shared>) {
    sleep(COLLECTED_FOR).await;
    let pending = shared.ends.take();
    let (ends, waiting): (Vec<_>, Vec<_>) = pending.into_iter().map(|p| (p.end, p.done)).unzip();
    let outcome = shared.end_all(ConnectionClass::Requests, &ends).await;
    for done in waiting {
        // The caller may have given up waiting.
        drop(done.send(outcome.clone()));
    }
}

impl Shared {
    /// Ends sessions at once.
    pub(super) async fn end_all(&self, class: ConnectionClass, ends: &[End]) -> Result<(), StoreError> {
        try_join_all(ends.chunks(TOGETHER_MAX).map(|some| self.end_some(class, some))).await?;
        Ok(())
    }

    async fn end_some(&self, class: ConnectionClass, ends: &[End]) -> Result<(), StoreError> {
        let (keys, script) = (&self.keys, &self.scripts.end);
        let names: Vec<String> = ends
            .iter()
            .flat_map(|End { sid, .. }| {
                [
                    keys.session(sid),
                    keys.poll(sid),
                    keys.mail(sid),
                    keys.lost(sid),
                    keys.moved(sid),
                ]
            })
            .collect();
        let mut cmd = script.call(&names);
        cmd.arg(keys.wake_prefix());
        for end in ends {
            cmd.arg(end.expected_epoch.map(|e| e.to_string()).unwrap_or_default())
                .arg(&end.keep)
                .arg(millis(end.window))
                .arg(end.sid.as_str());
        }
        self.link.script(class, script, &cmd).await?;
        Ok(())
    }
}
