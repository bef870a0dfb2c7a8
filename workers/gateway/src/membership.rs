//! Rooms of a membership, and what is noted about memberships: the same for both transports.

use crate::worker::Worker;
use session::trace::Value::Text;
use session::{Joined, Offset, Record, Sid};

/// Notes a room in a membership: whether it is new, or why not.
pub(crate) fn note_join(joined: &mut Joined, room: &str, head: Offset, rooms_max: usize) -> Result<bool, String> {
    if joined.rooms.contains(room) {
        return Ok(false);
    }
    if joined.rooms.len() >= rooms_max {
        return Err(format!("a socket may be in {rooms_max} rooms at most"));
    }
    joined.rooms.insert(room, head);
    Ok(true)
}

/// Notes that a session has joined a namespace.
pub(crate) fn note_connected(worker: &Worker, record: &Record, nsp: &str) {
    let Some(joined) = record.namespaces.get(nsp) else {
        return;
    };
    let fields = [
        ("namespace", Text(nsp)),
        ("socket", Text(joined.sid.as_str())),
        ("who", Text(joined.who.as_deref().unwrap_or("-"))),
    ];
    worker.trace.note(&record.sid, "connected", &fields);
}

/// Notes that a socket has joined or left a room.
pub(crate) fn note_room(worker: &Worker, sid: &Sid, what: &str, nsp: &str, room: &str) {
    worker
        .trace
        .note(sid, what, &[("room", Text(room)), ("namespace", Text(nsp))]);
}
