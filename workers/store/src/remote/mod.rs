//! Redis.
#![allow(clippy::todo, clippy::unused_async, reason = "under construction")]

use crate::answer::*;
use crate::error::{AppendError, StoreError};
use crate::options::*;
use crate::tail::{Tail, TailEvent};
use bytes::Bytes;
use session::{Offset, Pid, Record, Sid};
use std::time::Duration;


#[derive(Debug)]
pub(crate) struct Remote;
#[derive(Debug)]
pub(crate) struct RemoteTail;
impl RemoteTail {
    pub(crate) fn position(&self) -> Offset { todo!() }
    pub(crate) async fn next(&mut self) -> TailEvent { todo!() }
}
impl Remote {
    pub(crate) async fn open(_options: Options, _redis: RedisOptions) -> Result<(Self, Tail), StoreError> { todo!() }
    pub(crate) fn available(&self) -> bool { todo!() }
    pub(crate) fn append(&self, _entry: Bytes, _dedupe: Option<String>) -> std::future::Ready<Result<Appended, AppendError>> { todo!() }
    pub(crate) async fn ping(&self) -> Result<Duration, StoreError> { todo!() }
    pub(crate) async fn create(&self, _record: &Record, _head: Offset, _ttl: Duration) -> Result<(), StoreError> { todo!() }
    pub(crate) async fn load(&self, _sid: &Sid) -> Result<Option<Record>, StoreError> { todo!() }
    pub(crate) async fn save(&self, _record: &Record, _expected_epoch: u64, _ttl: Duration) -> Result<Saved, StoreError> { todo!() }
    pub(crate) async fn restore(&self, _record: &Record, _ttl: Duration) -> Result<Restored, StoreError> { todo!() }
    pub(crate) async fn touch(&self, _sid: &Sid, _ttl: Duration) -> Result<Touched, StoreError> { todo!() }
    pub(crate) async fn end(&self, _sid: &Sid, _expected_epoch: Option<u64>, _keep: Option<(&Record, Duration)>) -> Result<(), StoreError> { todo!() }
    pub(crate) async fn resolve(&self, _pid: &Pid) -> Result<Option<Record>, StoreError> { todo!() }
    pub(crate) async fn takeover(&self, _pid: &Pid, _old: Option<&Record>, _old_sid: &Sid, _expected_epoch: u64, _new_sid: &Sid, _ttl: Duration) -> Result<Saved, StoreError> { todo!() }
    pub(crate) async fn mark_dead(&self, _incarnation: &str) -> Result<(), StoreError> { todo!() }
    pub(crate) async fn sweep_dead(&self, _incarnation: &str, _window: Option<Duration>) -> Result<u64, StoreError> { todo!() }
    pub(crate) async fn count_sessions(&self) -> Result<u64, StoreError> { todo!() }
    pub(crate) async fn poll(&self, _sid: &Sid, _request: RequestId, _mode: PollMode, _head: Offset, _known: Option<u64>) -> Result<Poll, StoreError> { todo!() }
    pub(crate) async fn poll_release(&self, _sid: &Sid, _request: RequestId) -> Result<(), StoreError> { todo!() }
    pub(crate) async fn post_begin(&self, _sid: &Sid, _request: RequestId, _known: Option<u64>) -> Result<PostBegin, StoreError> { todo!() }
    pub(crate) async fn post_finish(&self, _sid: &Sid, _request: RequestId, _effects: &PostEffects<'_>) -> Result<PostDone, StoreError> { todo!() }
    pub(crate) async fn upgrade_begin(&self, _sid: &Sid, _request: RequestId, _timeout: Duration) -> Result<UpgradeBegin, StoreError> { todo!() }
    pub(crate) async fn upgrade_probed(&self, _sid: &Sid, _request: RequestId) -> Result<UpgradeStep, StoreError> { todo!() }
    pub(crate) async fn upgrade_finish(&self, _sid: &Sid, _request: RequestId) -> Result<UpgradeFinish, StoreError> { todo!() }
    pub(crate) async fn upgrade_cancel(&self, _sid: &Sid, _request: RequestId) -> Result<UpgradeStep, StoreError> { todo!() }
    pub(crate) async fn range(&self, _after: Offset, _upto: Option<Offset>, _max: usize) -> Result<Range, StoreError> { todo!() }
}
