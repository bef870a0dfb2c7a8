//! Nanoseconds of the echo path: decode an event, encode its ack; 64 bytes of text, and others.
//! `cargo run --release -p anyworker-wire --example speed`
#![expect(clippy::print_stdout, reason = "its output is the point")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock; the crate does not")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use wire::engine::{self, Packet as Frame};
use wire::socket::{self, Limits, Packet};

const ROUNDS: u32 = 2_000_000;
const RUNS: u32 = 5; // the best is told: the rest is noise of the machine

fn main() {
    let text = "x".repeat(64);
    report("64-byte text, ack", &format!("421[\"echo\",\"{text}\"]"));
    report("64-byte text, no ack", &format!("42[\"echo\",\"{text}\"]"));
    report(
        "object, ack",
        r#"4256["echo",{"room":"a","seq":1234,"at":1795378604500,"ok":true}]"#,
    );
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    report("attachment, ack", &format!("451-1[\"echo\",{placeholder}]"));
}

fn report(what: &str, frame: &str) {
    let mut best = Duration::MAX;
    let mut out = String::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            out = black_box(echo(black_box(frame)));
        }
        best = best.min(start.elapsed());
    }
    let ns = best.as_nanos() / u128::from(ROUNDS);
    println!("{what:22} {ns:5} ns   {frame} -> {out}");
}

/// What the server does with an echo, allocation of the answer included.
fn echo(frame: &str) -> String {
    let mut out = engine::message(frame.len());
    let Ok(Frame::Message(text)) = engine::decode(frame) else {
        return out;
    };
    if let Ok(Packet::Event {
        nsp,
        ack,
        args,
        attachments,
    }) = socket::decode(text, &Limits::default())
    {
        match ack {
            Some(id) => socket::encode_ack_values(&mut out, nsp, id, args.rest(), attachments),
            None => socket::encode_event(&mut out, nsp, None, args.whole(), attachments),
        }
    }
    out
}
