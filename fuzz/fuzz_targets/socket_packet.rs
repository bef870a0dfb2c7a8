//! Any Socket.IO packet: no panic, arguments are JSON, and encode(decode(p)) decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::json::validate;
use wire::socket::{Limits, Packet, decode, encode};

fuzz_target!(|text: &str| {
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
});
