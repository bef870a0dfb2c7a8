//! What the commands on the control socket ask for.

use super::Reactor;
use super::rollout::Requester;
use crate::control::protocol::{Answer, Request};
use crate::fleet::{Event, Pace, Ticket};
use tracing::info;

impl Reactor {
    /// Does it, or says why not.
    pub(super) fn obey(&mut self, client: u64, request: Request) {
        if request == Request::Status {
            // A view that is watched asks every second.
            tracing::debug!(?request, "control request");
        } else {
            info!(?request, "control request");
        }
        let now = self.now();
        match request {
            Request::Rebalance => self.feed(Event::Rebalance {
                tickets: vec![Ticket(client)],
            }),
            Request::Reload { wait } => self.roll_out(Requester::Client { id: client, wait }, false),
            Request::Scale { workers } => {
                let alone = self
                    .specs
                    .values()
                    .next_back()
                    .is_some_and(|spec| spec.config.settings.redis.is_none());
                let answer = if self.fleet.is_stopping() {
                    Answer::refused(vec!["the supervisor stops".to_owned()])
                } else if workers == 0 || workers > crate::fleet::SLOTS_MAX {
                    let max = crate::fleet::SLOTS_MAX;
                    Answer::refused(vec![format!("workers.count: {workers} is not within 1 to {max}")])
                } else if alone && workers > 1 {
                    Answer::refused(vec![
                        "workers.count: without Redis there can be one worker only".to_owned(),
                    ])
                } else {
                    self.feed(Event::Scale(workers));
                    Answer::done(format!("{workers} slots from now on; `anyworker status` shows them"))
                };
                self.server.answer(now, client, &answer);
            }
            Request::Status => {
                let answer = Answer {
                    ok: true,
                    lines: Vec::new(),
                    status: Some(self.status()),
                };
                self.server.answer(now, client, &answer);
            }
            Request::Upgrade { wait } => self.roll_out(Requester::Client { id: client, wait }, true),
            Request::Stop { fast } => {
                let line = if fast { "stopping" } else { "draining" };
                self.server.answer_and_hold(now, client, &Answer::done(line));
                self.feed(Event::Stop(if fast { Pace::Fast } else { self.graceful() }));
            }
        }
    }
}
