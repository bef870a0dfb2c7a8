//! A publisher of the fan-out: publishes in a closed loop or at a rate, and reads its acks.

use crate::fanout_run::{Options, Run};
use crate::sequence::Mark;
use crate::sio::{Connection, Packet, parse};
use crate::target::Outcome;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// After so long without a publish the closed loop writes off what it waits for: a loss must not end it.
const STALL: Duration = Duration::from_secs(3);
/// How often that is looked at, if nothing arrives.
const LOOK: Duration = Duration::from_millis(500);

struct Publisher<'a> {
    number: usize,
    run: &'a Run,
    options: &'a Options,
    /// Between two messages; none in a closed loop.
    step: Option<Duration>,
    /// Of the largest room.
    members_max: i64,
    due: Instant,
    /// Of the last publish or write-off.
    progress: Instant,
    next_id: u64,
    unacked: usize,
    room: usize,
}

/// Publishes until the run ends. `member` is the publisher's own membership of all rooms, if it has one.
pub(crate) async fn publish_loop(
    number: usize,
    mut connection: Connection,
    member: Option<usize>,
    run: &Run,
    options: &Options,
) -> Outcome<()> {
    let spacing = |rate: f64| Duration::from_secs_f64(options.publishers as f64 / rate);
    let mut publisher = Publisher {
        number,
        run,
        options,
        step: options.rate.map(spacing),
        members_max: run.per_room.borrow().iter().copied().max().unwrap_or_default(),
        due: Instant::now(),
        progress: Instant::now(),
        next_id: 0,
        unacked: 0,
        room: number % options.rooms,
    };
    loop {
        let stop = run.stop.get();
        if !stop && publisher.may_publish() {
            let packet = publisher.publish();
            connection.socket.feed(packet).await?;
            if publisher.step.is_none() {
                continue;
            }
        }
        let pause = match publisher.step {
            Some(_) if !stop => publisher.due.saturating_duration_since(Instant::now()),
            _ => LOOK,
        };
        tokio::select! {
            text = connection.socket.receive() => match parse(&text?) {
                Packet::Ack(..) => publisher.unacked = publisher.unacked.saturating_sub(1),
                Packet::Event(array) => if let Some(member) = member { run.deliver(member, array) },
                Packet::Other => {}
            },
            () = run.wake[number].notified(), if publisher.step.is_none() => {}
            () = sleep(pause) => {}
        }
        if publisher.step.is_none() && !stop && publisher.progress.elapsed() > STALL {
            publisher.write_off();
        }
    }
}

impl Publisher<'_> {
    fn may_publish(&self) -> bool {
        if self.step.is_some() {
            return Instant::now() >= self.due;
        }
        let waiting = self.run.waiting[self.number].get();
        let most = self.members_max * self.options.inflight as i64;
        self.unacked < self.options.inflight && waiting + self.members_max <= most
    }

    /// The packet of the next message, which counts as sent.
    fn publish(&mut self) -> String {
        let run = self.run;
        let sequence = {
            let sent = &mut run.sent.borrow_mut()[self.number][self.room];
            *sent += 1;
            *sent - 1
        };
        let mark = Mark {
            publisher: self.number,
            room: self.room,
            sequence,
            sent_us: run.stats.now_us(),
        };
        let waiting = &run.waiting[self.number];
        waiting.set(waiting.get() + run.per_room.borrow()[self.room]);
        run.published.set(run.published.get() + 1);
        let (id, room, text) = (self.next_id, self.room, mark.text(self.options.payload));
        self.next_id += 1;
        self.unacked += 1;
        self.room = (self.room + 1) % self.options.rooms;
        self.due += self.step.unwrap_or_default();
        self.progress = Instant::now();
        format!(
            "42{id}[\"{}\",\"room-{room}\",\"{text}\"]",
            self.options.common.ev_publish
        )
    }

    fn write_off(&mut self) {
        self.run.stalls.set(self.run.stalls.get() + 1);
        self.run.waiting[self.number].set(0);
        self.unacked = 0;
        self.progress = Instant::now();
    }
}
