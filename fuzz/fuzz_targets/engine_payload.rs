//! Any polling body: no panic, and what was read is written and read again alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::engine::{Packet, Payload, decode_payload};

fuzz_target!(|body: &str| {
    let packets: Vec<_> = decode_payload(body, 64).flatten().collect();
    let mut payload = Payload::default();
    for packet in &packets {
        match packet {
            Packet::Open(text) => payload.push_text(&format!("0{text}")),
            Packet::Close => payload.push_text("1"),
            Packet::Ping(text) => payload.push_text(&format!("2{text}")),
            Packet::Pong(text) => payload.push_text(&format!("3{text}")),
            Packet::Message(text) => payload.push_text(&format!("4{text}")),
            Packet::Upgrade => payload.push_text("5"),
            Packet::Noop => payload.push_text("6"),
            Packet::Binary(bytes) => payload.push_binary(bytes),
        }
    }
    let again = payload.finish();
    assert!(packets.is_empty() || decode_payload(&again, 64).eq(packets.into_iter().map(Ok)));
});
