//! Whole-process tests of the supervisor: real forks, real signals, a stub for the worker.
//!
//! This binary is three things: the tests, the supervisor under test, and (as its own child) the
//! stub worker. Arguments of cargo's harness are understood as far as names of tests go.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test"
)]

mod control;
mod faults;
mod harness;
mod operation;
mod privilege;
mod redis;
mod reload;
mod runtime;
mod start;
mod stub;
mod upgrade;

use std::io::{self, Write};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

/// Tests at one time; most of them wait.
const THREADS: usize = 6;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let commands = ["check", "reload", "run", "scale", "status", "stop", "upgrade", "worker"];
    if words.first().is_some_and(|word| commands.contains(&word.as_str())) {
        misbehave(&words);
        return supervisor::main(stub::run);
    }
    // As a test runner calls it: `--list --format terse [--ignored]`, `NAME --exact --nocapture`.
    let has = |flag: &str| words.iter().any(|word| word == flag);
    let names: Vec<&String> = words
        .iter()
        .filter(|word| !word.starts_with('-') && *word != "terse")
        .collect();
    let is_meant = |name: &str| {
        let fits = |word: &&String| {
            if has("--exact") {
                name == word.as_str()
            } else {
                name.contains(word.as_str())
            }
        };
        names.is_empty() || names.iter().any(fits)
    };
    let all = [
        control::TESTS,
        faults::TESTS,
        operation::TESTS,
        privilege::TESTS,
        redis::TESTS,
        reload::TESTS,
        start::TESTS,
        runtime::TESTS,
        upgrade::TESTS,
    ]
    .concat();
    let chosen = all.into_iter().filter(|(name, _)| is_meant(name) && !has("--ignored"));
    let mut queue: Vec<Test> = chosen.collect();
    if has("--list") {
        queue.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    queue.reverse();
    let queue = Mutex::new(queue);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| work(&queue, &failed));
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("{} failed {failed:?}", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A file beside the program, `COMMAND-hangs`, `COMMAND-chatters` or `COMMAND-fails`, makes that command do so.
fn misbehave(words: &[String]) {
    let program = std::env::current_exe().unwrap();
    let told = |how: &str| program.with_file_name(format!("{}-{how}", words[0])).exists();
    while told("hangs") {
        nix::poll::poll(&mut [], 100_u8).ok();
    }
    if told("chatters") {
        // More than a pipe holds.
        let line = format!("{}\n", "chatter ".repeat(100));
        io::stderr().write_all(line.repeat(300).as_bytes()).unwrap();
    }
    assert!(!told("fails"), "told to fail");
}

fn work(queue: &Mutex<Vec<Test>>, failed: &Mutex<Vec<&'static str>>) {
    loop {
        let Some((name, test)) = queue.lock().unwrap().pop() else {
            return;
        };
        let started = Instant::now();
        let outcome = catch_unwind(test);
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", started.elapsed().as_secs_f32());
        if outcome.is_err() {
            failed.lock().unwrap().push(name);
        }
    }
}
