//! One supervisor under test: its directory, its log, its commands.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing that a test waits for takes longer, unless it says so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A supervisor, ended with the test.
pub(crate) struct Supervisor {
    child: Child,
    pub(crate) scratch: TempDir,
}

/// An answer of the stub: which worker spoke.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) slot: u64,
    pub(crate) gone: u64,
}

/// Waits until `found` finds something.
pub(crate) fn until<T>(what: &str, patience: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        nix::poll::poll(&mut [], 15_u8).ok();
    }
}

/// A configuration of stubs: `word` is for them, `more` is any further TOML.
pub(crate) fn config(directory: &Path, workers: u16, word: &str, more: &str) -> String {
    format!(
        "[listen]\naddress = '127.0.0.1:0'\n[admin]\naddress = ''\n[runtime]\ndirectory = '{}'\n[redis]\nurl = 'redis://127.0.0.1:1'\nconnect_timeout_ms = 500\n\
         [app.events]\nmessage = '{word}'\n[reload]\nsoak_ms = 100\n[workers]\ncount = {workers}\n{more}\n",
        directory.join("run").display()
    )
}

impl Supervisor {
    /// Starts one with so many stubs.
    pub(crate) fn start(workers: u16, word: &str, more: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let text = config(scratch.path(), workers, word, more);
        Self::start_in(scratch, &text, &[], &BTreeMap::new())
    }

    /// Starts one from this configuration, behind a launcher if there is one.
    pub(crate) fn start_in(scratch: TempDir, text: &str, launcher: &[&str], env: &BTreeMap<&str, PathBuf>) -> Self {
        Self::start_program(&std::env::current_exe().unwrap(), scratch, text, launcher, env)
    }

    /// The same with another copy of the program.
    pub(crate) fn start_program(
        program: &Path,
        scratch: TempDir,
        text: &str,
        launcher: &[&str],
        env: &BTreeMap<&str, PathBuf>,
    ) -> Self {
        fs::write(scratch.path().join("supervisor.toml"), text).unwrap();
        let log = File::create(scratch.path().join("log")).unwrap();
        let mut words: Vec<PathBuf> = launcher.iter().map(PathBuf::from).collect();
        words.extend([program.to_owned(), "run".into(), "--config".into()]);
        words.push(scratch.path().join("supervisor.toml"));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env);
        command.current_dir(scratch.path()).stdin(Stdio::null()).stderr(log);
        // A child of another test, between its fork and exec, may still have a fresh copy of the program
        // open for writing.
        let child = until("the program starts", PATIENCE, || match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            started => Some(started.unwrap()),
        });
        Self { child, scratch }
    }

    /// The same, and waits until all serve.
    pub(crate) fn serving(workers: u16, word: &str, more: &str) -> Self {
        let supervisor = Self::start(workers, word, more);
        supervisor.await_log("serving");
        supervisor
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn run_directory(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// Replaces the configuration file.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.scratch.path().join("supervisor.toml"), text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap()
    }

    /// The first log line with this message.
    pub(crate) fn await_log(&self, message: &str) -> Value {
        self.await_within(PATIENCE, message)
    }

    /// The same, with another patience.
    pub(crate) fn await_within(&self, patience: Duration, message: &str) -> Value {
        let find = || {
            self.log().lines().find_map(|line| {
                let value: Value = serde_json::from_str(line).ok()?;
                (value["message"] == message).then_some(value)
            })
        };
        let deadline = Instant::now() + patience;
        loop {
            if let Some(line) = find() {
                return line;
            }
            assert!(Instant::now() < deadline, "no `{message}` in:\n{}", self.log());
            nix::poll::poll(&mut [], 15_u8).ok();
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.await_log("serving");
        let url = line["urls"].as_str().unwrap();
        url.trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// A connection, answered.
    pub(crate) fn greet(&self, address: SocketAddr) -> Greeting {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words.len() == 8, "no greeting: `{line}`\n{}", self.log());
        Greeting {
            slot: words[1].parse().unwrap(),
            gone: words[7].parse().unwrap(),
        }
    }

    /// A connection; whether it was answered. None is refused.
    pub(crate) fn greet_or_lose(&self, address: SocketAddr) -> bool {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut line = String::new();
        matches!(BufReader::new(stream).read_line(&mut line), Ok(1..))
    }

    /// One of our commands.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        self.command_in_background(words).wait_with_output().unwrap()
    }

    pub(crate) fn command_in_background(&self, words: &[&str]) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(words)
            .arg("--config")
            .arg(self.scratch.path().join("supervisor.toml"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        until("status", PATIENCE, || {
            serde_json::from_slice(&self.command(&["status", "--json"]).stdout).ok()
        })
    }

    pub(crate) fn state(&self) -> String {
        self.status()["supervisor"]["state"].as_str().unwrap().to_owned()
    }

    /// Pids of the workers in this state, by slot.
    pub(crate) fn pids(&self, state: &str) -> BTreeMap<u64, i32> {
        let status = self.status();
        let rows = status["workers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["state"] == state);
        rows.map(|row| {
            (
                row["slot"].as_u64().unwrap(),
                i32::try_from(row["pid"].as_i64().unwrap()).unwrap(),
            )
        })
        .collect()
    }

    /// Waits until so many workers are ready and nothing else is there.
    pub(crate) fn await_ready(&self, workers: usize) -> BTreeMap<u64, i32> {
        until("all ready", PATIENCE, || {
            let pids = self.pids("ready");
            let rows = self.status()["workers"].as_array().unwrap().len();
            (pids.len() == workers && rows == workers).then_some(pids)
        })
    }

    /// Waits for a child that is a binary's `check`, and not the fork that will become one.
    pub(crate) fn await_check(&self) {
        until("the check of a binary", PATIENCE, || {
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap();
            let is_check = |pid: &str| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                command.split(|byte| *byte == 0).any(|word| word == b"check")
            };
            children.split_whitespace().any(is_check).then_some(())
        });
    }

    /// Waits for its end; the exit code.
    pub(crate) fn end(&mut self, patience: Duration) -> Option<i32> {
        let log = self.scratch.path().join("log");
        until(&format!("end; log {}", log.display()), patience, || {
            self.child.try_wait().unwrap()
        })
        .code()
    }
}

/// A supervisor that runs a copy of this program.
pub(crate) fn of_a_copy(workers: u16, more: &str) -> (Supervisor, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("anyworker");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let text = config(scratch.path(), workers, "message", more);
    let supervisor = Supervisor::start_program(&program, scratch, &text, &[], &BTreeMap::new());
    supervisor.await_log("serving");
    (supervisor, program)
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn lives(pid: i32) -> bool {
    field(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

/// A line of `/proc/PID/status`.
pub(crate) fn field(pid: i32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|value| value.trim().to_owned())
}
