//! In-memory twin.
#![allow(clippy::todo, clippy::unused_async, reason = "under construction")]

use crate::answer::*;
use crate::error::AppendError;
use crate::options::*;
use crate::tail::{Tail, TailEvent};
use bytes::Bytes;
use session::{Offset, Pid, Record, Sid};
use std::time::Duration;


#[derive(Debug)]
pub(crate) struct Memory;
#[derive(Debug)]
pub(crate) struct MemoryTail;
impl MemoryTail {
    pub(crate) fn position(&self) -> Offset { todo!() }
    pub(crate) async fn next(&mut self) -> TailEvent { todo!() }
}
impl Memory {
    pub(crate) fn open(_options: Options) -> (Self, Tail) { todo!() }
    pub(crate) fn sibling(&self, _me: &str) -> (Self, Tail) { todo!() }
    pub(crate) fn append(&self, _entry: Bytes, _dedupe: Option<String>) -> Result<Appended, AppendError> { todo!() }
    pub(crate) fn ping(&self) -> Duration { todo!() }
    pub(crate) fn create(&self, _record: &Record, _head: Offset, _ttl: Duration) -> () { todo!() }
    pub(crate) fn load(&self, _sid: &Sid) -> Option<Record> { todo!() }
    pub(crate) fn save(&self, _record: &Record, _expected_epoch: u64, _ttl: Duration) -> Saved { todo!() }
    pub(crate) fn restore(&self, _record: &Record, _ttl: Duration) -> Restored { todo!() }
    pub(crate) fn touch(&self, _sid: &Sid, _ttl: Duration) -> Touched { todo!() }
    pub(crate) fn end(&self, _sid: &Sid, _expected_epoch: Option<u64>, _keep: Option<(&Record, Duration)>) -> () { todo!() }
    pub(crate) fn resolve(&self, _pid: &Pid) -> Option<Record> { todo!() }
    pub(crate) fn takeover(&self, _pid: &Pid, _old: Option<&Record>, _old_sid: &Sid, _expected_epoch: u64, _new_sid: &Sid, _ttl: Duration) -> Saved { todo!() }
    pub(crate) fn mark_dead(&self, _incarnation: &str) -> () { todo!() }
    pub(crate) fn sweep_dead(&self, _incarnation: &str, _window: Option<Duration>) -> u64 { todo!() }
    pub(crate) fn count_sessions(&self) -> u64 { todo!() }
    pub(crate) fn poll(&self, _sid: &Sid, _request: RequestId, _mode: PollMode, _head: Offset, _known: Option<u64>) -> Poll { todo!() }
    pub(crate) fn poll_release(&self, _sid: &Sid, _request: RequestId) -> () { todo!() }
    pub(crate) fn post_begin(&self, _sid: &Sid, _request: RequestId, _known: Option<u64>) -> PostBegin { todo!() }
    pub(crate) fn post_finish(&self, _sid: &Sid, _request: RequestId, _effects: &PostEffects<'_>) -> PostDone { todo!() }
    pub(crate) fn upgrade_begin(&self, _sid: &Sid, _request: RequestId, _timeout: Duration) -> UpgradeBegin { todo!() }
    pub(crate) fn upgrade_probed(&self, _sid: &Sid, _request: RequestId) -> UpgradeStep { todo!() }
    pub(crate) fn upgrade_finish(&self, _sid: &Sid, _request: RequestId) -> UpgradeFinish { todo!() }
    pub(crate) fn upgrade_cancel(&self, _sid: &Sid, _request: RequestId) -> UpgradeStep { todo!() }
    pub(crate) fn range(&self, _after: Offset, _upto: Option<Offset>, _max: usize) -> Range { todo!() }
}
