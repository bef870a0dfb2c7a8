//! The client programs of `tests/clients`.

use super::within;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::oneshot;

/// No client program takes longer, unless it says so.
const PROGRAM_LIMIT: Duration = Duration::from_secs(150);

/// A client program and its arguments.
#[derive(Debug)]
pub(crate) struct Program {
    interpreter: PathBuf,
    script: PathBuf,
    args: Vec<String>,
    input: Option<String>,
    until: Option<oneshot::Receiver<()>>,
    limit: Duration,
}

/// A Node program; `make test` installs what it imports.
pub(crate) fn node(script: &str) -> Program {
    let clients = clients();
    assert!(
        clients.join("node_modules/socket.io-client").is_dir(),
        "tests/clients/node_modules is missing: run `make test`, which installs it (npm ci)"
    );
    Program {
        interpreter: PathBuf::from("node"),
        script: clients.join(script),
        args: Vec::new(),
        input: None,
        until: None,
        limit: PROGRAM_LIMIT,
    }
}

/// A Python program; `make test` makes the virtual environment with what it imports.
pub(crate) fn python(script: &str) -> Program {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv/bin/python");
    let interpreter = if made.exists() { made } else { PathBuf::from("python3") };
    let probe = std::process::Command::new(&interpreter)
        .args(["-c", "import aiohttp, engineio, socketio"])
        .output();
    assert!(
        probe.is_ok_and(|output| output.status.success()),
        "{} lacks python-socketio or aiohttp: run `make test`, which makes target/test-venv \
         from tests/clients/requirements.txt",
        interpreter.display()
    );
    Program {
        interpreter,
        script: clients().join(script),
        args: Vec::new(),
        input: None,
        until: None,
        limit: PROGRAM_LIMIT,
    }
}

impl Program {
    #[must_use]
    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    #[must_use]
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    /// What it reads from its standard input.
    #[must_use]
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Its standard input is closed when `end` says so, or is dropped.
    #[must_use]
    pub(crate) fn until(mut self, end: oneshot::Receiver<()>) -> Self {
        self.until = Some(end);
        self
    }

    /// It may run for so long.
    #[must_use]
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What runs it, for a program that starts others of its kind.
    pub(crate) fn interpreter(&self) -> &str {
        self.interpreter.to_str().expect("a path in UTF-8")
    }

    /// Runs it to its end: the JSON on its last line of output, and whether it is content.
    pub(crate) async fn run(self) -> (Value, bool) {
        let what = format!("{} {}", self.script.display(), self.args.join(" "));
        let mut child = Command::new(&self.interpreter)
            .arg(&self.script)
            .args(&self.args)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(if self.input.is_some() || self.until.is_some() {
                Stdio::piped()
            } else {
                Stdio::inherit()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("run a client program");
        let stdin = child.stdin.take();
        let input = async {
            if let Some(mut stdin) = stdin {
                let text = self.input.unwrap_or_default();
                stdin.write_all(text.as_bytes()).await.expect("a program that reads");
                if let Some(end) = self.until {
                    // Said or dropped: both are the end.
                    end.await.ok();
                }
            }
        };
        let work = async { tokio::join!(input, child.wait_with_output()).1 };
        let output = within(self.limit, &what, work).await.expect("run a client program");
        let text = String::from_utf8_lossy(&output.stdout);
        let json = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let json = json.unwrap_or_else(|| {
            panic!("{what}: no result\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        (json, output.status.success())
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}
