//! What must hold for any input of the parsers. A target panics if it does not.
//!
//! `make fuzz` feeds them mutated packets with a stable compiler (`main.rs`); cargo-fuzz uses the same targets
//! (`fuzz_targets/`).

#![allow(clippy::panic, reason = "a target reports what it finds by a panic")]

use wire::engine::{Packet as Engine, Payload, decode_payload};
use wire::json::validate;
use wire::socket::{Limits, Packet, decode, encode};

/// Packets of one polling body that are read.
const PACKETS_MAX: usize = 64;

/// A polling body: no panic, and what was read, written and read again is the same.
///
/// # Panics
/// If that is not so.
pub fn engine_payload(body: &str) {
    let packets: Vec<_> = decode_payload(body, PACKETS_MAX).flatten().collect();
    let mut payload = Payload::default();
    for packet in &packets {
        match packet {
            Engine::Open(text) => payload.push_text(&format!("0{text}")),
            Engine::Close => payload.push_text("1"),
            Engine::Ping(text) => payload.push_text(&format!("2{text}")),
            Engine::Pong(text) => payload.push_text(&format!("3{text}")),
            Engine::Message(text) => payload.push_text(&format!("4{text}")),
            Engine::Upgrade => payload.push_text("5"),
            Engine::Noop => payload.push_text("6"),
            Engine::Binary(bytes) => payload.push_binary(bytes),
        }
    }
    let again = payload.finish();
    assert!(packets.is_empty() || decode_payload(&again, PACKETS_MAX).eq(packets.into_iter().map(Ok)));
}

/// A Socket.IO packet: no panic, the arguments are JSON, and encode(decode(p)) decodes to the same.
///
/// # Panics
/// If that is not so.
pub fn socket_packet(text: &str) {
    let limits = Limits::default();
    let Ok(packet) = decode(text, &limits) else {
        return;
    };
    if let Packet::Event { args, .. } = &packet {
        assert!(args.values().all(|value| validate(value, limits.depth_max).is_ok()));
        assert_eq!(validate(&format!("[{}]", args.rest()), limits.depth_max), Ok(()));
    }
    let mut again = String::new();
    encode(&mut again, &packet);
    assert_eq!(decode(&again, &limits), Ok(packet));
}
