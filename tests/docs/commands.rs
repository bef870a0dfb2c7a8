//! Every command that the documents show is run, and what they show of its output is what comes.

use crate::book::{Example, pages};
use crate::fleet::Fleet;
use crate::shape::unlike;
use std::time::Duration;

/// How long one that does not end by itself is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// A machine that is busy with other things may make `health` see something.
const TRIES: usize = 3;

/// Of an output that is not as shown (lines).
const LINES_SHOWN: usize = 100;

/// Commands that are not run here, by what they begin with, and why: what they do is tested elsewhere.
const ELSEWHERE: [(&str, &str); 5] = [
    (
        "anyworker doctor --url https",
        "a proxy with a certificate is in tests/ops/doctor.rs",
    ),
    ("apt ", "tests/systemd installs the package in a box of its own"),
    (
        "make ",
        "they build, and test: .ci/run, tests/systemd for the package, bench/run.sh",
    ),
    (
        "sudo ",
        "they set up this machine; tests/docs/redis.rs starts a Redis with the same file",
    ),
    ("systemctl ", "tests/systemd has a systemd of its own"),
];

/// Commands that run until they are ended from outside.
const ENDLESS: [&str; 3] = ["anyworker tail", "--watch", "--latency"];

/// Commands that may find something, and so end with another code than 0.
const FINDS: [(&str, i32); 2] = [("anyworker doctor", 2), ("anyworker health", 1)];

/// Commands that may have nothing to say.
const SILENT: [&str; 1] = ["SLOWLOG"];

#[tokio::test]
async fn commands_do_what_is_shown() {
    let examples: Vec<Example> = pages().iter().flat_map(|page| page.examples()).collect();
    assert!(examples.len() > 25, "{}", examples.len());
    let mut fleet = Fleet::start().await;
    let mut complaints = Vec::new();
    for example in &examples {
        let mut complaint = None;
        for _ in 0..TRIES {
            complaint = complain(&mut fleet, example).await;
            if complaint.is_none() {
                break;
            }
        }
        complaints.extend(complaint);
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Runs a command, and says what is not as it is shown.
async fn complain(fleet: &mut Fleet, Example { place, command, shown }: &Example) -> Option<String> {
    if ELSEWHERE.iter().any(|(begin, _)| command.starts_with(begin)) {
        return None;
    }
    let endless = ENDLESS.iter().any(|part| command.contains(part));
    let ended = fleet.run(command, endless.then_some(WATCHED)).await;
    let most = FINDS.iter().find(|(begin, _)| command.starts_with(begin));
    let good = match ended.code {
        None => endless,
        Some(code) => (0..=most.map_or(0, |(_, most)| *most)).contains(&code),
    };
    let silent = ended.stdout.trim().is_empty() && !SILENT.iter().any(|part| command.contains(part));
    let missing = unlike(shown, &ended.stdout);
    if good && !silent && missing.is_empty() {
        return None;
    }
    let printed: Vec<&str> = ended.stdout.lines().chain(ended.stderr.lines()).collect();
    Some(format!(
        "=== {place}: {command}\n--- ended with {:?}; shown, and not there:\n{}\n--- printed:\n{}\n",
        ended.code,
        missing.join("\n"),
        printed.get(..LINES_SHOWN).unwrap_or(&printed).join("\n")
    ))
}

#[test]
fn exceptions_are_needed() {
    let examples: Vec<Example> = pages().iter().flat_map(|page| page.examples()).collect();
    let is_there = |part: &str| examples.iter().any(|example| example.command.contains(part));
    let all = ELSEWHERE.iter().map(|(begin, _)| *begin);
    let all = all
        .chain(ENDLESS)
        .chain(SILENT)
        .chain(FINDS.iter().map(|(begin, _)| *begin));
    let unused: Vec<&str> = all.filter(|part| !is_there(part)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}
