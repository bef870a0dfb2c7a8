//! A private box with a real systemd in it, see `box.sh`.

use crate::package;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the service may need for anything, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const SYSTEMD: &str = "/lib/systemd/systemd";
/// Where the service listens, in the box.
pub(crate) const ADDRESS: &str = "127.0.0.1:8000";

/// A running box; when it goes out of scope nothing of it is left.
pub(crate) struct Boxed {
    /// Holds its standard input open.
    keeper: Child,
    pid: u32,
    directory: TempDir,
}

impl Boxed {
    /// Makes one; or says why that cannot be done here.
    pub(crate) fn make() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("only root can make a box for systemd".to_owned());
        }
        if !Path::new(SYSTEMD).exists() {
            return Err(format!("there is no {SYSTEMD}"));
        }
        let directory = tempfile::Builder::new().prefix("anyworker-box-").tempdir().unwrap();
        let root = directory.path().join("box");
        fs::create_dir(&root).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/box.sh");
        let complaint = directory.path().join("complaint");
        let mut keeper = Command::new(script)
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaint).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let made = Self {
            keeper,
            pid: line.trim().parse().unwrap_or_default(),
            directory,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = made.run(&["systemctl", "is-system-running", "--wait"]);
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            if matches!(state.trim(), "running" | "degraded") {
                return Ok(made);
            }
            let complaint = fs::read_to_string(&complaint).unwrap();
            if !Path::new(&format!("/proc/{}", made.pid)).exists() || Instant::now() > deadline {
                return Err(format!("systemd does not run in a box: {state} {complaint}"));
            }
            pause(LOOK_EVERY);
        }
    }

    /// Runs a command in the box.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        self.enter(&["--all"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command in the box prints; it must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}\n{}", self.journal());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A program of this side that talks to the network of the box.
    pub(crate) fn beside(&self, program: &str) -> Command {
        let mut command = self.enter(&["--net"]);
        command.arg(program);
        command
    }

    fn enter(&self, how: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]).args(how).arg("--");
        command
    }

    /// Its network, for [`join`].
    pub(crate) fn network(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.pid)).unwrap()
    }

    /// Its root directory, as seen from here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Installs a package of this version.
    pub(crate) fn install(&self, version: &str) {
        let package = package::build(self.directory.path(), version);
        fs::copy(package, self.path("/tmp/anyworker.deb")).unwrap();
        let output = self.ok(&["dpkg", "--install", "/tmp/anyworker.deb"]);
        assert!(!output.contains("goes on serving"), "{output}\n{}", self.journal());
    }

    /// Sets something of the unit, as `systemctl edit` does.
    pub(crate) fn edit(&self, unit: &str, name: &str, text: &str) {
        let directory = self.path(&format!("/etc/systemd/system/{unit}.d"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
        self.ok(&["systemctl", "daemon-reload"]);
    }

    /// A property of the service.
    pub(crate) fn show(&self, property: &str) -> String {
        self.ok(&["systemctl", "show", "--value", "--property", property, "anyworker"])
    }

    /// What the service has logged.
    pub(crate) fn journal(&self) -> String {
        let output = self.run(&["journalctl", "--no-pager", "--output=cat", "-u", "anyworker"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Looks until it is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, look: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !look(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {PATIENCE:?}\n{}",
                self.journal()
            );
            pause(LOOK_EVERY);
        }
    }

    /// The version of the supervisor and of every worker that is ready.
    pub(crate) fn versions(&self) -> Vec<String> {
        let (supervisor, workers) = self.status();
        let ready = workers.iter().filter(|worker| worker["state"] == "ready");
        let version = |of: &Value| of["version"].as_str().unwrap_or_default().to_owned();
        [version(&supervisor)].into_iter().chain(ready.map(version)).collect()
    }

    /// Sessions of all workers.
    pub(crate) fn sessions(&self) -> u64 {
        let (_, workers) = self.status();
        workers.iter().filter_map(|worker| worker["sessions"].as_u64()).sum()
    }

    fn status(&self) -> (Value, Vec<Value>) {
        let output = self.run(&["anyworker", "status", "--json"]);
        let mut status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        (status["supervisor"].take(), workers)
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// A connection to the service, from a thread that has joined the network.
pub(crate) fn connect() -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(ADDRESS)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// This thread talks to that network from now on.
pub(crate) fn join(network: &File) {
    setns(network, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Between two looks at something that another process does.
pub(crate) fn pause(span: Duration) {
    nix::poll::poll(&mut [], u16::try_from(span.as_millis()).unwrap()).ok();
}
