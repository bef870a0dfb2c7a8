//! `anyworker selftest`: the six tests of the guide, then one session through every worker of the fleet. What it
//! writes into Redis it deletes, and only the session that it opens as a client is counted as one.

mod fleet;
mod redis;
mod walk;

use crate::Context;
use crate::output::{Script, count, rule};
use crate::printer;
use std::io::{self, Write};

/// Runs all tests; exits 0 if all passed, 1 if not.
pub(crate) async fn run(context: &Context) -> io::Result<u8> {
    let mut sheet = Sheet::new(Script::of_locale());
    sheet.title()?;
    redis::test(context, &mut sheet).await?;
    fleet::test(context, &mut sheet).await?;
    sheet.end()
}

/// What is printed, as it comes.
pub(crate) struct Sheet {
    script: Script,
    tests: u32,
    failed: u32,
}

impl Sheet {
    const fn new(script: Script) -> Self {
        Self {
            script,
            tests: 0,
            failed: 0,
        }
    }

    fn line(text: &str) -> io::Result<()> {
        let mut out = printer::stdout();
        writeln!(out, "{text}")?;
        out.flush()
    }

    fn title(&self) -> io::Result<()> {
        Self::line(&rule())?;
        Self::line(&self.script.sign("🧪", "anyworker selftest"))?;
        Self::line(&rule())
    }

    /// The next test begins.
    fn test(&mut self, sign: &str, title: &str) -> io::Result<()> {
        self.tests += 1;
        let title = format!("Test {}: {title}...", self.tests);
        Self::line(&format!("\n{}", self.script.sign(sign, &title)))
    }

    fn passed(&self, text: &str) -> io::Result<()> {
        Self::line(&format!("{} {text}", self.script.mark(true)))
    }

    fn failed(&mut self, text: &str) -> io::Result<()> {
        self.failed += 1;
        Self::line(&format!("{} {text}", self.script.mark(false)))
    }

    /// One or the other; the remedy goes with a failure.
    fn outcome<T, E: std::fmt::Display>(&mut self, outcome: &Result<T, E>, good: &str, bad: &str) -> io::Result<()> {
        match outcome {
            Ok(_) => self.passed(good),
            Err(error) => self.failed(&format!("{bad}: {error}")),
        }
    }

    /// Neither good nor bad.
    fn note(&self, text: &str) -> io::Result<()> {
        Self::line(&self.script.sign("➖", text))
    }

    fn end(&self) -> io::Result<u8> {
        if self.failed == 0 {
            Self::line(&format!("\n{}", self.script.sign("🎉", "All tests passed!")))?;
            return Ok(0);
        }
        let text = format!(
            "{} failed. `anyworker doctor` looks for causes, docs/operate.md explains symptoms.",
            count(self.failed, "check")
        );
        Self::line(&format!("\n{} {text}", self.script.mark(false)))?;
        Ok(1)
    }
}
