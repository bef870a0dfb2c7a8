//! Feeds the targets with mutated packets: `mutate SECONDS [SEED]`. Needs no nightly compiler, unlike cargo-fuzz, and sees
//! no coverage: the seeds below contain what the parsers tell apart. It prints the seed, and the input that fails.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program for people, and no server"
)]

use fastrand::Rng;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const SECONDS: u64 = 60;
/// Inputs between two looks at the clock.
const BATCH: usize = 1_000;
/// Mutations of an input at most.
const MUTATIONS_MAX: usize = 8;
/// Of an input (bytes).
const BYTES_MAX: usize = 4_096;

/// Packets of every type; bodies of several.
const SEEDS: [&str; 16] = [
    "0{\"sid\":\"a\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000}",
    "2probe\u{1e}3probe\u{1e}5\u{1e}6\u{1e}1",
    "4hello\u{1e}bAQIDBA==\u{1e}4wörld€",
    "0",
    "0/admin,{\"token\":\"123\"}",
    "1/admin,",
    "2[\"message\",1,-2.5e+10,true,null,{\"a\":[\"\\u00e9\\n\"]}]",
    "2/chat,12[\"hello\",\"\u{1F600}\"]",
    "3/chat,12[]",
    "340282366920938463463374607431768211455[\"ok\"]",
    "4{\"message\":\"not authorized\"}",
    "51-[\"file\",{\"_placeholder\":true,\"num\":0}]",
    "52-/admin,456[\"two\",{\"_placeholder\":true,\"num\":1},{\"num\":0,\"_placeholder\":true}]",
    "61-/admin,456[{\"_placeholder\":true,\"num\":0}]",
    "2[5,\"number\",[[[[{\"deep\":[[]]}]]]]]",
    "2[\"\\ud83d\\ude00\",\"\\u0000\"]",
];

/// What is put into inputs.
const TOKENS: [&str; 24] = [
    "[",
    "]",
    "{",
    "}",
    "\"",
    ",",
    ":",
    "\\",
    "\\u",
    "\\ud800",
    "-",
    "0",
    "1e999",
    "null",
    "true",
    "/",
    "/,",
    "?",
    "\u{1e}",
    "b",
    "\u{0}",
    "é",
    "{\"_placeholder\":true,\"num\":0}",
    "18446744073709551616",
];

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (seconds, seed) = match (numbers.next(), numbers.next()) {
        (None, _) => (SECONDS, fastrand::u64(..)),
        (Some(Ok(seconds)), None) => (seconds, fastrand::u64(..)),
        (Some(Ok(seconds)), Some(Ok(seed))) => (seconds, seed),
        (Some(_), _) => {
            eprintln!("usage: mutate [SECONDS [SEED]]");
            return ExitCode::FAILURE;
        }
    };
    println!("seed {seed}, {seconds} s");
    let mut random = Rng::with_seed(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < until {
        for _ in 0..BATCH {
            let input = mutated(&mut random);
            let target = if random.bool() {
                targets::engine_payload
            } else {
                targets::socket_packet
            };
            if catch_unwind(|| target(&input)).is_err() {
                eprintln!("failed with seed {seed}: {input:?}");
                return ExitCode::FAILURE;
            }
            count += 1;
        }
    }
    println!("{count} inputs, no failure");
    ExitCode::SUCCESS
}

/// A seed with some mutations.
fn mutated(random: &mut Rng) -> String {
    let mut input: Vec<char> = pick(random, &SEEDS).chars().collect();
    for _ in 0..random.usize(0..=MUTATIONS_MAX) {
        mutate(random, &mut input);
    }
    input.truncate(BYTES_MAX / 4);
    input.into_iter().collect()
}

fn mutate(random: &mut Rng, input: &mut Vec<char>) {
    let at = random.usize(0..=input.len());
    let end = random.usize(at..=input.len());
    match random.u8(0..6) {
        // Something is left out.
        0 => drop(input.drain(at..end)),
        // A character becomes another.
        1 => {
            if let Some(character) = input.get_mut(at) {
                *character = random.char('\u{0}'..='\u{1F64F}');
            }
        }
        // A token is put in.
        2 | 3 => drop(input.splice(at..at, pick(random, &TOKENS).chars())),
        // A part is repeated.
        4 => {
            let part: Vec<char> = input.get(at..end).unwrap_or_default().to_vec();
            drop(input.splice(at..at, part));
        }
        // The end of another packet follows.
        _ => {
            let other: Vec<char> = pick(random, &SEEDS).chars().collect();
            let from = random.usize(0..=other.len());
            input.truncate(at);
            input.extend(other.get(from..).unwrap_or_default());
        }
    }
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from.get(random.usize(0..from.len())).copied().unwrap_or_default()
}
