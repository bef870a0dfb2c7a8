//! Rooms of a membership: the same for both transports.

use session::{Joined, Offset};

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
