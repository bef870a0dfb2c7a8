//! Who is here: rooms and namespaces of the sockets and parked polls of this worker. The log's
//! entries are handed to members here, in the order of the log.

use crate::poll::Park;
use crate::ring::Logged;
use crate::ws::Connection;
use rustc_hash::FxHashMap;
use session::{Joined, Offset};
use slab::Slab;
use std::rc::Rc;

/// A member's place in the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberId(u32);

/// How something reaches a member.
pub(crate) enum Outlet {
    /// A WebSocket of this worker.
    Socket {
        connection: Rc<Connection>,
        /// Whether events carry their offset (see [`Joined::carries_offsets`]).
        with_offset: bool,
    },
    /// A poll that waits in this worker.
    Poll(Rc<Park>),
}

struct Member {
    outlet: Outlet,
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
}

impl Hub {
    /// Adds a member of a namespace, in all rooms of its membership; its Socket.IO sid is the first.
    /// It gets nothing up to `since`.
    pub(crate) fn enter(&mut self, nsp: &str, joined: &Joined, since: Offset, outlet: Outlet) -> MemberId {
        let nsp = match self.namespaces.get_key_value(nsp) {
            Some((name, _)) => name.clone(),
            None => Rc::from(nsp),
        };
        let member = Member {
            outlet,
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

    /// Calls `deliver` for each member that an entry is for, once.
    pub(crate) fn deliver(&mut self, logged: &Rc<Logged>, mut deliver: impl FnMut(&Outlet, &Rc<Logged>)) {
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
                    deliver(&member.outlet, logged);
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
