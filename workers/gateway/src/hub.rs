//! Who is here: rooms and namespaces of the sockets and parked polls of this worker. The log's
//! entries are handed to members here, in the order of the log.

mod park;

pub(crate) use park::{News, Park};

use crate::orders::Order;
use crate::ring::Logged;
use rustc_hash::FxHashMap;
use session::{Joined, Offset, Record, Sid};
use slab::Slab;
use std::rc::Rc;

/// A member's place in the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberId(u32);

/// What hears the log: a connection of this worker, or a poll that waits in it.
pub(crate) trait Subscriber {
    /// Takes an entry that is for it, with its offset if its membership carries offsets; whether it is to be flushed once the
    /// present batch is through.
    fn deliver(&self, logged: &Logged, with_offset: bool) -> bool;
    /// Carries out the order from outside in an entry that is for it.
    fn obey(&self, logged: &Logged, order: &Order);
    /// The batch is through.
    fn flush(&self);
}

struct Member {
    subscriber: Rc<dyn Subscriber>,
    /// Whether events carry their offset (see [`Joined::carries_offsets`]).
    with_offset: bool,
    nsp: Rc<str>,
    rooms: Vec<Rc<str>>,
    /// It has had the log up to here, maybe from a worker that was ahead of this one.
    since: Offset,
    /// Number of the last entry that reached, or must not reach, this member.
    mark: u64,
}

#[derive(Default)]
struct Namespace {
    everyone: Vec<MemberId>,
    rooms: FxHashMap<Rc<str>, Vec<MemberId>>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Hub {
    members: Slab<Member>,
    namespaces: FxHashMap<Rc<str>, Namespace>,
    /// Counts deliveries, for the marks.
    turn: u64,
    /// Those that are to be flushed once the present batch is through.
    delivered: Vec<Rc<dyn Subscriber>>,
    /// Polls that are served here, from before the store is asked: its wake may be faster than its answer.
    parks: FxHashMap<Sid, Vec<Rc<Park>>>,
}

impl Hub {
    /// Adds a member of a namespace, in all rooms of its membership; its Socket.IO sid is the first.
    /// It gets nothing up to `since`.
    pub(crate) fn enter(
        &mut self,
        nsp: &str,
        joined: &Joined,
        since: Offset,
        subscriber: Rc<dyn Subscriber>,
    ) -> MemberId {
        let nsp = match self.namespaces.get_key_value(nsp) {
            Some((name, _)) => name.clone(),
            None => Rc::from(nsp),
        };
        let member = Member {
            subscriber,
            with_offset: joined.carries_offsets(),
            nsp: nsp.clone(),
            rooms: Vec::with_capacity(2),
            since,
            mark: 0,
        };
        let id = MemberId(u32::try_from(self.members.insert(member)).unwrap_or(u32::MAX));
        self.namespaces.entry(nsp).or_default().everyone.push(id);
        self.join(id, joined.sid.as_str());
        for room in joined.rooms.names() {
            self.join(id, room);
        }
        id
    }

    /// Adds a member to a room; once is enough.
    pub(crate) fn join(&mut self, id: MemberId, room: &str) {
        let Some(member) = self.members.get_mut(id.0 as usize) else {
            return;
        };
        if member.rooms.iter().any(|r| &**r == room) {
            return;
        }
        let rooms = &mut self.namespaces.entry(member.nsp.clone()).or_default().rooms;
        let name = match rooms.get_key_value(room) {
            Some((name, _)) => name.clone(),
            None => Rc::from(room),
        };
        rooms.entry(name.clone()).or_default().push(id);
        member.rooms.push(name);
    }

    /// Takes a member out of a room.
    pub(crate) fn leave(&mut self, id: MemberId, room: &str) {
        let Some(member) = self.members.get_mut(id.0 as usize) else {
            return;
        };
        member.rooms.retain(|r| &**r != room);
        if let Some(namespace) = self.namespaces.get_mut(&member.nsp) {
            remove_from(namespace, room, id);
        }
    }

    /// Takes a member away.
    pub(crate) fn remove(&mut self, id: MemberId) {
        let Some(member) = self.members.try_remove(id.0 as usize) else {
            return;
        };
        let Some(namespace) = self.namespaces.get_mut(&member.nsp) else {
            return;
        };
        for room in &member.rooms {
            remove_from(namespace, room, id);
        }
        swap_out(&mut namespace.everyone, id);
        if namespace.everyone.is_empty() {
            self.namespaces.remove(&member.nsp);
        }
    }

    /// Hands an entry to each member that it is for, once.
    pub(crate) fn deliver(&mut self, logged: &Logged) {
        let mut delivered = std::mem::take(&mut self.delivered);
        self.each(logged, |subscriber, with_offset| {
            if subscriber.deliver(logged, with_offset) {
                delivered.push(subscriber.clone());
            }
        });
        self.delivered = delivered;
    }

    /// Flushes those that got something since the last call.
    pub(crate) fn flush(&mut self) {
        self.delivered.drain(..).for_each(|subscriber| subscriber.flush());
    }

    /// The members that an entry is for.
    pub(crate) fn meant(&mut self, logged: &Logged) -> Vec<Rc<dyn Subscriber>> {
        let mut meant = Vec::new();
        self.each(logged, |subscriber, _| meant.push(subscriber.clone()));
        meant
    }

    /// Takes in a poll. An overlapping poll of the same session stands beside the first.
    pub(crate) fn park(&mut self, sid: &Sid) -> Rc<Park> {
        let park = Rc::new(Park::default());
        self.parks.entry(sid.clone()).or_default().push(park.clone());
        park
    }

    /// Has a poll hear the log, as a member of all namespaces of its session.
    pub(crate) fn enter_park(&mut self, park: &Rc<Park>, record: &Record) {
        self.leave_park(park);
        let members = record
            .namespaces
            .iter()
            .map(|(nsp, joined)| self.enter(nsp, joined, joined.since, park.clone()));
        park.members.replace(members.collect());
    }

    fn leave_park(&mut self, park: &Park) {
        park.members.take().into_iter().for_each(|member| self.remove(member));
    }

    /// The poll is over.
    pub(crate) fn unpark(&mut self, sid: &Sid, park: &Rc<Park>) {
        self.leave_park(park);
        if let Some(list) = self.parks.get_mut(sid) {
            list.retain(|other| !Rc::ptr_eq(other, park));
            if list.is_empty() {
                self.parks.remove(sid);
            }
        }
    }

    /// Sessions with a poll here.
    pub(crate) fn parked(&self) -> usize {
        self.parks.len()
    }

    /// The poll of this session has something to look at.
    pub(crate) fn wake(&self, sid: &Sid) {
        self.parks.get(sid).into_iter().flatten().for_each(|park| park.wake());
    }

    /// Whatever may have been missed, every poll looks for itself.
    pub(crate) fn wake_all(&self) {
        self.parks.values().flatten().for_each(|park| park.wake());
    }

    /// Calls `take` for each member that an entry is for, once.
    fn each(&mut self, logged: &Logged, mut take: impl FnMut(&Rc<dyn Subscriber>, bool)) {
        let target = &logged.entry.target;
        let Some(namespace) = self.namespaces.get(target.nsp.as_str()) else {
            return;
        };
        self.turn += 1;
        let turn = self.turn;
        for id in target
            .except
            .iter()
            .filter_map(|room| namespace.rooms.get(room.as_str()))
            .flatten()
        {
            if let Some(member) = self.members.get_mut(id.0 as usize) {
                member.mark = turn;
            }
        }
        let mut hand_over = |ids: &[MemberId]| {
            for id in ids {
                let Some(member) = self.members.get_mut(id.0 as usize) else {
                    continue;
                };
                if member.mark != turn && member.since < logged.offset {
                    member.mark = turn;
                    take(&member.subscriber, member.with_offset);
                }
            }
        };
        if target.rooms.is_empty() {
            hand_over(&namespace.everyone);
        }
        for room in &target.rooms {
            if let Some(ids) = namespace.rooms.get(room.as_str()) {
                hand_over(ids);
            }
        }
    }
}

fn remove_from(namespace: &mut Namespace, room: &str, id: MemberId) {
    let Some(list) = namespace.rooms.get_mut(room) else {
        return;
    };
    swap_out(list, id);
    if list.is_empty() {
        namespace.rooms.remove(room);
    }
}

fn swap_out(list: &mut Vec<MemberId>, id: MemberId) {
    if let Some(at) = list.iter().position(|m| *m == id) {
        list.swap_remove(at);
    }
}

#[cfg(test)]
mod tests;
