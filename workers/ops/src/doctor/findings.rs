//! Findings, and how they are printed.

use crate::output::{Script, count};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

/// From the left to the evidence.
const NAME_WIDTH: usize = 26;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// As it should be.
    Pass,
    /// It could not be looked at.
    CouldNotSee,
    /// It may go wrong one day.
    Warn,
    /// It breaks a promise.
    Fail,
}

#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// `<part>.<what>`: does not change between versions.
    check: &'static str,
    outcome: Outcome,
    /// What was seen, and where; or why nothing was.
    evidence: String,
    /// What to do, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn pass(&mut self, check: &'static str, evidence: impl Into<String>) {
        self.add(check, Outcome::Pass, evidence.into(), None);
    }

    pub(super) fn unseen(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Outcome::CouldNotSee, why.into(), None);
    }

    pub(super) fn warn(&mut self, check: &'static str, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Outcome::Warn, evidence.into(), Some(remedy.into()));
    }

    pub(super) fn fail(&mut self, check: &'static str, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Outcome::Fail, evidence.into(), Some(remedy.into()));
    }

    fn add(&mut self, check: &'static str, outcome: Outcome, evidence: String, remedy: Option<String>) {
        self.0.push(Finding {
            check,
            outcome,
            evidence,
            remedy,
        });
    }

    fn number(&self, outcome: Outcome) -> u64 {
        let found = self.0.iter().filter(|finding| finding.outcome == outcome);
        u64::try_from(found.count()).unwrap_or(u64::MAX)
    }

    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self.0.iter().map(|finding| finding.outcome).max() {
            Some(Outcome::Fail) => 2,
            Some(Outcome::Warn) => 1,
            Some(Outcome::CouldNotSee | Outcome::Pass) | None => 0,
        }
    }

    pub(super) fn json(&self) -> io::Result<String> {
        let summary = BTreeMap::from([
            ("pass", self.number(Outcome::Pass)),
            ("warn", self.number(Outcome::Warn)),
            ("fail", self.number(Outcome::Fail)),
            ("could_not_see", self.number(Outcome::CouldNotSee)),
        ]);
        let all = serde_json::json!({ "summary": summary, "findings": self.0 });
        Ok(serde_json::to_string(&all)? + "\n")
    }

    pub(super) fn text(&self, script: Script) -> String {
        let mut text = String::new();
        let mut part = "";
        for finding in &self.0 {
            let this = finding.check.split('.').next().unwrap_or_default();
            if this != part {
                part = this;
                // Writing to a string cannot fail.
                writeln!(text, "{}{part}", if text.is_empty() { "" } else { "\n" }).ok();
            }
            let mark = mark(script, finding.outcome);
            let unseen = if finding.outcome == Outcome::CouldNotSee {
                "could not see: "
            } else {
                ""
            };
            writeln!(
                text,
                "  {mark} {:<NAME_WIDTH$} {unseen}{}",
                finding.check, finding.evidence
            )
            .ok();
            for line in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
                writeln!(text, "       {line}").ok();
            }
        }
        let (passed, unseen) = (self.number(Outcome::Pass), self.number(Outcome::CouldNotSee));
        let (warnings, faults) = (self.number(Outcome::Warn), self.number(Outcome::Fail));
        writeln!(
            text,
            "\n{}, {}, {}, {unseen} not seen",
            count(faults, "fault"),
            count(warnings, "warning"),
            count(passed, "check") + " passed"
        )
        .ok();
        text
    }
}

const fn mark(script: Script, outcome: Outcome) -> &'static str {
    match (script, outcome) {
        (Script::Unicode, Outcome::Pass) => "✅",
        (Script::Unicode, Outcome::Warn) => "⚠️ ",
        (Script::Unicode, Outcome::Fail) => "❌",
        (Script::Unicode, Outcome::CouldNotSee) => "❔",
        (Script::Plain, Outcome::Pass) => "[ok]  ",
        (Script::Plain, Outcome::Warn) => "[WARN]",
        (Script::Plain, Outcome::Fail) => "[FAIL]",
        (Script::Plain, Outcome::CouldNotSee) => "[?]   ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_worst() {
        let mut findings = Findings::default();
        assert_eq!(findings.code(), 0);
        findings.pass("redis.version", "7");
        findings.unseen("redis.bind", "CONFIG is forbidden");
        assert_eq!(findings.code(), 0);
        findings.warn("kernel.thp", "always", "do this");
        assert_eq!(findings.code(), 1);
        findings.fail("redis.persistence", "none", "do that");
        assert_eq!(findings.code(), 2);
        let text = findings.text(Script::Plain);
        assert!(
            text.contains("[?]    redis.bind                 could not see: CONFIG is forbidden\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n1 fault, 1 warning, 1 check passed, 1 not seen\n"),
            "{text}"
        );
    }
}
