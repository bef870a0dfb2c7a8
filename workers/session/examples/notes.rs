//! What a note about a session costs: `cargo run --release -p anyworker-session --example notes`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures")]

use session::trace::{Value, write};
use session::{Offset, Sid};
use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Notes that are written.
const NOTES: u32 = 2_000_000;
/// As in a worker: a batch that has grown so large is put aside (bytes).
const BATCH_BYTES: usize = 32 * 1024;

fn main() {
    let sid = Sid::from_random([7; 15]);
    let upto = Offset::new(1_795_650_730_235, 123_456);
    for (what, fields) in [
        (
            "get",
            vec![("packets", Value::Number(1)), ("upto", Value::Offset(upto))],
        ),
        (
            "opened",
            vec![
                ("transport", Value::Text("websocket")),
                ("address", Value::Text("192.168.100.200")),
            ],
        ),
        (
            "joined",
            vec![("room", Value::Text("news")), ("namespace", Value::Text("/"))],
        ),
    ] {
        let (mut text, mut bytes) = (String::new(), 0);
        let began = Instant::now();
        for _ in 0..NOTES {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let after_ms = u64::try_from(now.as_millis() % 1_000).unwrap_or_default();
            write(&mut text, after_ms, &sid, what, black_box(&fields));
            if text.len() >= BATCH_BYTES {
                bytes += std::mem::take(&mut text).len();
            }
        }
        bytes += text.len();
        println!(
            "{what}: {} ns, {} bytes",
            (began.elapsed() / NOTES).as_nanos(),
            bytes / NOTES as usize
        );
    }
}
