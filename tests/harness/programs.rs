//! The client programs of `tests/clients`.

use super::process::root;
use super::within;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// No client program takes longer, unless it says so.
const PROGRAM_LIMIT: Duration = Duration::from_secs(150);

/// Nor any step of one that is talked with.
const TALK_LIMIT: Duration = Duration::from_secs(60);

/// A client program and its arguments.
#[derive(Debug)]
pub struct Program {
    interpreter: PathBuf,
    script: PathBuf,
    args: Vec<String>,
    input: Option<String>,
    until: Option<oneshot::Receiver<()>>,
    limit: Duration,
}

/// A Node program; `make test` installs what it imports.
pub fn node(script: &str) -> Program {
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
pub fn python(script: &str) -> Program {
    let made = venv("test-venv");
    let interpreter = if made.exists() { made } else { PathBuf::from("python3") };
    interpreted(
        interpreter,
        script,
        "target/test-venv from tests/clients/requirements.txt",
    )
}

/// The same with python-socketio 5.0, and never with what the machine has.
pub fn python_5_0(script: &str) -> Program {
    let needs = "target/test-venv-5.0 from tests/clients/requirements-5.0.txt";
    interpreted(venv("test-venv-5.0"), script, needs)
}

fn venv(name: &str) -> PathBuf {
    root().join("target").join(name).join("bin/python")
}

fn interpreted(interpreter: PathBuf, script: &str, needs: &str) -> Program {
    let probe = std::process::Command::new(&interpreter)
        .args(["-c", "import aiohttp, engineio, socketio"])
        .output();
    assert!(
        probe.is_ok_and(|output| output.status.success()),
        "{} lacks python-socketio or aiohttp: run `make test`, which makes {needs}",
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
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    /// What it reads from its standard input.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Its standard input is closed when `end` says so, or is dropped.
    #[must_use]
    pub fn until(mut self, end: oneshot::Receiver<()>) -> Self {
        self.until = Some(end);
        self
    }

    /// It may run for so long.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What runs it, for a program that starts others of its kind.
    pub fn interpreter(&self) -> &str {
        self.interpreter.to_str().expect("a path in UTF-8")
    }

    /// Runs it to its end: the JSON on its last line of output, and whether it is content.
    pub async fn run(self) -> (Value, bool) {
        let what = format!("{} {}", self.script.display(), self.args.join(" "));
        let mut child = self
            .command()
            .stdin(if self.input.is_some() || self.until.is_some() {
                Stdio::piped()
            } else {
                Stdio::inherit()
            })
            .stderr(Stdio::piped())
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

    /// Starts it, for a test that talks with it.
    pub fn talk(self) -> Talk {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .spawn()
            .expect("run a client program");
        Talk {
            what: format!("{} {}", self.script.display(), self.args.join(" ")),
            input: child.stdin.take().expect("its input"),
            output: BufReader::new(child.stdout.take().expect("its output")).lines(),
            _child: child,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(&self.script).args(&self.args);
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// A client program that runs: lines of JSON from it, lines of text to it. It ends with this.
#[derive(Debug)]
pub struct Talk {
    what: String,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Talk {
    /// What it says next.
    pub async fn hear(&mut self) -> Value {
        let line = within(TALK_LIMIT, &self.what, self.output.next_line()).await;
        let line = line.expect("text").unwrap_or_else(|| panic!("{}: it ended", self.what));
        serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{}: {fault}: {line}", self.what))
    }

    pub async fn tell(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.input
            .write_all(line.as_bytes())
            .await
            .expect("a program that reads");
    }
}

fn clients() -> PathBuf {
    root().join("tests/clients")
}
