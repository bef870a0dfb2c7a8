//! Sessions that poll: polls, posts, the upgrade. All of the logic is in the scripts.

use super::link::ConnectionClass;
use super::reply::{Packed, Reply};
use super::script::Script;
use super::{Remote, millis};
use crate::answer::{
    Poll, PollMode, PostBegin, PostDone, PostEffects, RequestId, Settling, UpgradeBegin, UpgradeFinish, UpgradeStep,
};
use crate::error::StoreError;
use crate::limits::{HOLDER_GRACE, HOLDER_LOOK, MAIL_BYTES_MAX, MAIL_ITEMS_MAX, POST_LEASE, UPGRADE_REPEATABLE};
use crate::presence;
use redis::Cmd;
use session::{Offset, Sid};
use std::time::Duration;
use tokio::time::{Instant, sleep};

impl Remote {
    /// Who asks: this worker and the request.
    fn mine(&self, request: RequestId) -> String {
        let (me, number) = (&self.shared.options.me, request.number());
        match request.given() {
            Some(id) => format!("{me} {number} {id:x}"),
            None => format!("{me} {number}"),
        }
    }

    pub(crate) async fn poll(
        &self,
        sid: &Sid,
        request: RequestId,
        mode: PollMode,
        head: Offset,
        known: Option<u64>,
    ) -> Result<Poll, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.poll);
        let name = match mode {
            PollMode::Answer => "answer",
            PollMode::Begin => "begin",
            PollMode::Ping => "ping",
            PollMode::Wake => "wake",
        };
        let call = || {
            let mut cmd = script.call(&[keys.session(sid), keys.poll(sid), keys.mail(sid)]);
            cmd.arg(self.mine(request))
                .arg(name)
                .arg(head.to_string())
                .arg(known.map(|n| n.to_string()).unwrap_or_default())
                .arg(keys.dead_prefix())
                .arg(millis(self.shared.options.ping_interval))
                .arg(millis(self.shared.options.liveness()));
            cmd
        };
        let mut answer = self.unless_held(script, call).await?;
        Ok(match answer.word()? {
            "answer" => Poll::Answer {
                revision: answer.number()?,
                after: answer.offset()?,
                upto: answer.offset()?,
                ping: answer.flag()?,
                noop: answer.flag()?,
                record: answer.record()?,
                mail: answer.mail()?,
            },
            "parked" => Poll::Parked {
                revision: answer.number()?,
                after: answer.offset()?,
                ping_in: answer.millis()?,
                expires_in: answer.millis()?.unwrap_or_default(),
                record: answer.record()?,
            },
            "moved" => Poll::Moved(answer.present_record()?),
            "overlap" => Poll::Overlap,
            "lost" => Poll::LeaseLost,
            _ if mode == PollMode::Begin => Poll::Unknown,
            _ => Poll::Ended,
        })
    }

    /// Runs a script that may meet another worker's lease. If the holder says that it lives, the overlap counts at once;
    /// otherwise it is given a moment to be declared dead. `call` makes the command but for the last argument, which says
    /// whether the overlap counts. A request that is under way already is waited for, as long as that moment.
    async fn unless_held(&self, script: &Script, call: impl Fn() -> Cmd) -> Result<Packed, StoreError> {
        let deadline = Instant::now() + HOLDER_GRACE;
        let mut overlaps = false;
        loop {
            let mut cmd = call();
            cmd.arg(u8::from(overlaps));
            let value = self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
            let mut answer = Packed::new(script.op, value)?;
            let waits = answer.is("underway");
            if overlaps || !(waits || answer.is("held")) {
                return Ok(answer);
            }
            overlaps = if waits {
                false
            } else {
                answer.word()?;
                presence::is_alive(answer.word()?, deadline).await
            };
            if !overlaps {
                sleep(HOLDER_LOOK).await;
                overlaps = Instant::now() >= deadline;
            }
        }
    }

    pub(crate) async fn poll_release(&self, sid: &Sid, request: RequestId) -> Result<(), StoreError> {
        let script = &self.shared.scripts.poll_release;
        let mut cmd = script.call(&[self.shared.keys.poll(sid)]);
        cmd.arg(self.mine(request));
        self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
        Ok(())
    }

    pub(crate) async fn post_begin(
        &self,
        sid: &Sid,
        request: RequestId,
        known: Option<u64>,
    ) -> Result<PostBegin, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.post_begin);
        let call = || {
            let mut cmd = script.call(&[keys.session(sid), keys.poll(sid)]);
            cmd.arg(self.mine(request))
                .arg(known.map(|n| n.to_string()).unwrap_or_default())
                .arg(millis(POST_LEASE))
                .arg(keys.dead_prefix());
            cmd
        };
        let mut answer = self.unless_held(script, call).await?;
        Ok(match answer.word()? {
            "go" => PostBegin::Go {
                revision: answer.number()?,
                sent: answer.offset()?,
                parked: answer.flag()?,
                record: answer.record()?,
            },
            "broken" => PostBegin::Broken,
            "moved" => PostBegin::Moved(answer.present_record()?),
            "overlap" => PostBegin::Overlap,
            "repeated" => PostBegin::Repeated,
            _ => PostBegin::Unknown,
        })
    }

    pub(crate) async fn post_finish(
        &self,
        sid: &Sid,
        request: RequestId,
        effects: &PostEffects<'_>,
    ) -> Result<PostDone, StoreError> {
        self.post(sid, request, None, effects).await
    }

    pub(crate) async fn post_at_once(
        &self,
        sid: &Sid,
        request: RequestId,
        revision: u64,
        effects: &PostEffects<'_>,
    ) -> Result<PostDone, StoreError> {
        self.post(sid, request, Some(revision), effects).await
    }

    async fn post(
        &self,
        sid: &Sid,
        request: RequestId,
        known: Option<u64>,
        effects: &PostEffects<'_>,
    ) -> Result<PostDone, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.post_finish);
        let (liveness, ttl) = self.shared.options.lifetimes(effects.settling);
        let (epoch, json) = effects.record.map(|r| (r.epoch, r.to_json())).unwrap_or_default();
        let mut cmd = script.call(&[keys.session(sid), keys.poll(sid), keys.mail(sid)]);
        cmd.arg(self.mine(request))
            .arg(epoch)
            .arg(json)
            .arg(u8::from(effects.pong))
            .arg(millis(self.shared.options.ping_interval))
            .arg(millis(liveness))
            .arg(MAIL_ITEMS_MAX)
            .arg(MAIL_BYTES_MAX)
            .arg(keys.wake_prefix())
            .arg(sid.as_str())
            .arg(millis(ttl))
            .arg(effects.rewind.map(|offset| offset.to_string()).unwrap_or_default())
            .arg(known.map(|n| n.to_string()).unwrap_or_default())
            .arg(keys.dead_prefix())
            .arg(millis(POST_LEASE))
            .arg(u8::from(effects.pong || effects.settling == Settling::Now));
        for (tag, packet) in effects.mail {
            let mut item = format!("{tag} ").into_bytes();
            item.extend_from_slice(packet);
            cmd.arg(item);
        }
        let value = self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?;
        let mut answer = Packed::new(script.op, value)?;
        Ok(match answer.word()? {
            "behind" => PostDone::Behind,
            "done" => PostDone::Done {
                revision: answer.number()?,
            },
            "fenced" => PostDone::Fenced {
                current: answer.number()?,
            },
            "full" => PostDone::Full,
            "repeated" => PostDone::Repeated,
            _ => PostDone::Gone,
        })
    }

    async fn upgrade(&self, sid: &Sid, request: RequestId, step: &str, time: Duration) -> Result<Reply, StoreError> {
        let (keys, script) = (&self.shared.keys, &self.shared.scripts.upgrade);
        let mut cmd = script.call(&[
            keys.session(sid),
            keys.poll(sid),
            keys.mail(sid),
            keys.moved(sid),
            keys.moved_mail(sid),
        ]);
        cmd.arg(self.mine(request))
            .arg(step)
            .arg(millis(time))
            .arg(keys.dead_prefix())
            .arg(keys.wake_prefix())
            .arg(sid.as_str())
            .arg(millis(POST_LEASE));
        Reply::new(
            script.op,
            self.shared.link.script(ConnectionClass::Requests, script, &cmd).await?,
        )
    }

    pub(crate) async fn upgrade_begin(
        &self,
        sid: &Sid,
        request: RequestId,
        timeout: Duration,
    ) -> Result<UpgradeBegin, StoreError> {
        let mut answer = self.upgrade(sid, request, "begin", timeout).await?;
        Ok(match answer.text()?.as_str() {
            "busy" => UpgradeBegin::Busy,
            "go" => UpgradeBegin::Go {
                record: answer.present_record()?,
            },
            "moved" => UpgradeBegin::Moved(answer.present_record()?),
            _ => UpgradeBegin::Unknown,
        })
    }

    pub(crate) async fn upgrade_probed(&self, sid: &Sid, request: RequestId) -> Result<UpgradeStep, StoreError> {
        step(self.upgrade(sid, request, "probed", Duration::ZERO).await?)
    }

    pub(crate) async fn upgrade_finish(&self, sid: &Sid, request: RequestId) -> Result<UpgradeFinish, StoreError> {
        let mut answer = self.upgrade(sid, request, "finish", UPGRADE_REPEATABLE).await?;
        Ok(match answer.text()?.as_str() {
            "busy" => UpgradeFinish::Busy,
            "done" => UpgradeFinish::Done {
                record: answer.present_record()?,
                after: answer.offset()?,
                mail: answer.mail()?,
            },
            _ => UpgradeFinish::Gone,
        })
    }

    pub(crate) async fn upgrade_cancel(&self, sid: &Sid, request: RequestId) -> Result<UpgradeStep, StoreError> {
        step(self.upgrade(sid, request, "cancel", Duration::ZERO).await?)
    }
}

fn step(mut answer: Reply) -> Result<UpgradeStep, StoreError> {
    Ok(match answer.text()?.as_str() {
        "done" => UpgradeStep::Done,
        _ => UpgradeStep::Gone,
    })
}
