//! A server under test: its configuration, its processes, its log.

use super::process::{binary, children, free_address, signal};
use super::wait::{LOOK_EVERY, PATIENCE, ms, pass, soon, until};
use super::{Redis, Request, ask};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use toml::Table;

/// Lines of the log that a failed test shows.
const LOG_LINES_SHOWN: usize = 120;

/// How long a server may take to leave when a test is over.
const LEAVE: Duration = Duration::from_secs(5);

/// From the port of the clients to the admin listener's.
const ADMIN_PORTS: u16 = 20_000;

/// Two heartbeats of a worker, and a little more.
const BEATS: Duration = ms(600);

/// What to start. Four workers over a Redis of the test's own, unless it says otherwise.
#[derive(Debug)]
pub struct Plan {
    config: Table,
    env: Vec<(String, String)>,
    args: Vec<String>,
    redis: bool,
    durable: bool,
    clocked: bool,
    /// Files that it may open.
    files: Option<u32>,
    own_group: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    pub fn new() -> Self {
        let text = r#"
            workers = { count = 4, grace_ms = 10000 }
            redis = { managed = false }
            log = { canary_interval_ms = 500, canary_overdue_ms = 5000 }
            logging = { level = "debug", format = "text", connections = true }
        "#;
        Self {
            config: text.parse().expect("TOML"),
            env: Vec::new(),
            args: Vec::new(),
            redis: true,
            durable: false,
            clocked: false,
            files: None,
            own_group: false,
        }
    }

    /// In a process group of its own, as a shell starts what runs in its terminal.
    #[must_use]
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Over what is there: further configuration, as TOML.
    #[must_use]
    pub fn with(mut self, toml: &str) -> Self {
        merge(&mut self.config, toml.parse().expect("TOML"));
        self
    }

    /// A variable of the server's environment, which is otherwise bare.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further argument of `run`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Without a Redis of the test's own: the configuration says what to do.
    #[must_use]
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }

    /// Over a Redis whose data survives its end.
    #[must_use]
    pub fn durable_redis(mut self) -> Self {
        self.durable = true;
        self
    }

    /// It may open so many files, each of its processes.
    #[must_use]
    pub fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    /// Over a Redis whose clock can be set.
    #[must_use]
    pub fn clocked_redis(mut self) -> Self {
        self.clocked = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Server {
        let mut server = self.launch().await;
        server.ready().await;
        server
    }

    /// Starts it and returns at once.
    pub async fn launch(self) -> Server {
        let mut server = self.prepare().await;
        server.run();
        server
    }

    /// Everything but the server itself.
    pub async fn prepare(mut self) -> Server {
        let dir = tempfile::Builder::new()
            .prefix("anyworker-test-")
            .tempdir()
            .expect("a temporary directory");
        let addr = free_address();
        let redis = if self.clocked {
            Some(Redis::clocked(dir.path()).await)
        } else if self.redis {
            Some(Redis::start(dir.path(), self.durable).await)
        } else {
            None
        };
        let mut own = Table::new();
        own.insert("listen".to_owned(), table("address", &addr.to_string()));
        let admin = SocketAddr::new(addr.ip(), addr.port() + ADMIN_PORTS);
        own.insert("admin".to_owned(), table("address", &admin.to_string()));
        let run = dir.path().join("run");
        std::fs::create_dir(&run).expect("a runtime directory");
        own.insert("runtime".to_owned(), table("directory", &run.display().to_string()));
        if let Some(redis) = &redis {
            own.insert("redis".to_owned(), table("url", &redis.url()));
        }
        merge(&mut own, self.config);
        self.config = own;
        let server = Server {
            addr,
            admin,
            child: None,
            redis,
            plan: self,
            dir,
        };
        server.write_config();
        server
    }
}

/// A running server. When it goes out of scope all its processes have gone.
#[derive(Debug)]
pub struct Server {
    pub addr: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
    pub redis: Option<Redis>,
    child: Option<Child>,
    plan: Plan,
    dir: TempDir,
}

/// What `status --json` says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Status {
    pub supervisor: Supervisor,
    pub workers: Vec<Worker>,
}

/// `supervisor` of it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Supervisor {
    pub pid: u32,
    pub version: String,
    pub generation: u64,
    pub state: String,
    pub uptime_s: u64,
    pub last_reload: Option<String>,
    pub last_handover: Option<Handover>,
    pub log_lines_dropped: u64,
}

/// `last_handover` of it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Handover {
    pub moved: u64,
    pub stayed: BTreeMap<String, u64>,
    pub took_us: u64,
    pub freeze_p50_us: u64,
    pub freeze_p99_us: u64,
    pub freeze_max_us: u64,
}

/// One of `workers`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Worker {
    pub slot: u16,
    pub pid: Option<u32>,
    pub generation: u64,
    pub version: Option<String>,
    pub state: String,
    pub connections: u64,
    pub sessions: u64,
    pub restarts: u64,
    pub last_exit: Option<String>,
}

impl Status {
    /// Process ids of the workers that are ready, by slot.
    pub fn ready_pids(&self) -> Vec<u32> {
        let ready = self.workers.iter().filter(|worker| worker.state == "ready");
        ready.filter_map(|worker| worker.pid).collect()
    }

    /// Of all workers together.
    pub fn sessions(&self) -> u64 {
        self.workers.iter().map(|worker| worker.sessions).sum()
    }
}

impl Server {
    /// The test's own Redis.
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("a Redis of the test's own")
    }

    /// The same, to be stopped and started.
    pub fn redis_mut(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a Redis of the test's own")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The directory of this test, with `run` in it as the runtime directory.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("supervisor.toml")
    }

    /// Lays `toml` over the configuration file.
    pub fn reconfigure(&mut self, toml: &str) {
        merge(&mut self.plan.config, toml.parse().expect("TOML"));
        self.write_config();
    }

    /// A variable of the environment of what is started from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.plan.env.push((name.to_owned(), value.to_owned()));
    }

    fn write_config(&self) {
        std::fs::write(self.config_file(), self.plan.config.to_string()).expect("write the configuration");
    }

    /// The process of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts the server that was prepared or has ended.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log file");
        let mut command = self.run_command();
        command.stdout(log.try_clone().expect("a log file")).stderr(log);
        if self.plan.own_group {
            command.process_group(0);
        }
        self.spawn(command);
    }

    /// `run` with everything that belongs to it but its descriptors.
    pub fn run_command(&self) -> Command {
        let mut command = self.command("run");
        command.args(&self.plan.args);
        command
    }

    /// The same behind a launcher, which executes what its arguments end with in its own place.
    pub fn run_command_by(&self, launcher: &[&str]) -> Command {
        let inner = self.run_command();
        let (program, words) = launcher.split_first().expect("a launcher");
        let mut command = Command::new(program);
        command.args(words).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// Starts the server that was prepared or has ended in this way.
    pub fn spawn(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs");
        self.child = Some(command.spawn().expect("start anyworker"));
    }

    /// Waits for `GET /api/ready` to say yes, and for every slot to have its worker.
    pub async fn ready(&mut self) {
        self.answers_ready().await;
        self.status_when("all workers are ready", |status| {
            status.supervisor.state == "serving" && status.ready_pids().len() == status.workers.len()
        })
        .await;
    }

    /// Waits until every slot has its worker, by asking the supervisor.
    pub async fn serving(&self) {
        until("an answer of the supervisor", async || {
            let output = self.cli("status", &["--json"]).await;
            let status: Option<Status> = serde_json::from_slice(&output.stdout).ok();
            status.filter(|status| status.supervisor.state == "serving")
        })
        .await;
    }

    async fn answers_ready(&mut self) {
        let (addr, deadline) = (self.addr, Instant::now() + PATIENCE);
        loop {
            if let Ok(reply) = soon("readiness", ask(addr, Request::get("/api/ready"))).await
                && reply.status == 200
            {
                return;
            }
            if let Some(status) = self.exited() {
                panic!("it ended before it was ready: {status}");
            }
            assert!(Instant::now() < deadline, "not ready within {PATIENCE:?}");
            pass(LOOK_EVERY).await;
        }
    }

    /// Runs a command of the program with this server's configuration.
    pub async fn cli(&self, command: &str, args: &[&str]) -> Output {
        let mut child = tokio::process::Command::from(self.command(command));
        child.args(args).kill_on_drop(true);
        soon(command, child.output()).await.expect("run anyworker")
    }

    /// The program with this server's configuration.
    pub fn command(&self, name: &str) -> Command {
        let built = std::env::var_os("ANYWORKER_BIN").unwrap_or_else(|| binary().into());
        let mut command = match self.plan.files {
            None => Command::new(built),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(format!("ulimit -n {most}; exec \"$0\" \"$@\""))
                    .arg(built);
                shell
            }
        };
        command.arg(name).arg("--config").arg(self.config_file());
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        let kept = ["PATH", "HOME", "LLVM_PROFILE_FILE"];
        command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.plan.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub async fn status(&self) -> Status {
        let output = self.cli("status", &["--json"]).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| panic!("{fault} in {output:?}"))
    }

    /// The status, once it is as `wanted`.
    #[track_caller]
    pub fn status_when(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> impl Future<Output = Status> {
        until(what, async move || {
            Some(self.status().await).filter(|status| wanted(status))
        })
    }

    /// Waits until the workers hold so many sessions (WebSockets and parked polls).
    #[track_caller]
    pub fn holding(&self, sessions: u64) -> impl Future<Output = Status> {
        self.status_when("sessions held", move |status| status.sessions() == sessions)
    }

    /// The process that holds the only session there is. What workers tell is up to a beat old, so
    /// it counts only when it has stayed the same for two.
    pub async fn holder(&self) -> u32 {
        let holders = |status: &Status| -> Vec<u32> {
            let holding = status.workers.iter().filter(|worker| worker.sessions > 0);
            holding.filter_map(|worker| worker.pid).collect()
        };
        until("one holder", async || {
            let before = holders(&self.holding(1).await);
            pass(BEATS).await;
            let after = holders(&self.status().await);
            (before == after && after.len() == 1).then(|| after[0])
        })
        .await
    }

    /// How the supervisor ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("wait for anyworker")?;
        self.child = None;
        Some(status)
    }

    /// How the supervisor ends; it must within `limit`.
    pub async fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(Instant::now() < deadline, "still there after {limit:?}");
            pass(LOOK_EVERY).await;
        }
    }

    /// Signals the supervisor.
    pub fn signal(&self, name: Signal) {
        signal(self.pid(), name);
    }

    /// Processes of the workers there are.
    pub fn workers(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// Ends the supervisor as the kernel would, and starts it again.
    pub async fn supervisor_dies_and_comes_back(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exit_within(PATIENCE).await;
        self.run();
    }

    /// Signals the supervisor and everything it started, as a terminal does.
    pub fn signal_group(&self, name: Signal) {
        assert!(self.plan.own_group, "it would be ours");
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        nix::sys::signal::killpg(pid, name).expect("signal the group");
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits for a piece of text in the log.
    #[track_caller]
    pub fn logged(&self, text: &str) -> impl Future<Output = ()> {
        until("a log line", async move || self.log().contains(text).then_some(()))
    }

    /// Ends the supervisor, fast; its workers go with it.
    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let workers = children(child.id());
        let deadline = Instant::now() + LEAVE;
        signal(child.id(), Signal::SIGQUIT);
        while Instant::now() < deadline {
            if child.try_wait().expect("wait for anyworker").is_some() {
                return;
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        eprintln!("anyworker {} did not end on SIGQUIT", child.id());
        child.kill().expect("kill anyworker");
        child.wait().expect("reap anyworker");
        for worker in workers
            .into_iter()
            .filter(|pid| Path::new(&format!("/proc/{pid}/exe")).exists())
        {
            signal(worker, Signal::SIGKILL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            if let Some(directory) = std::env::var_os("KEEP_LOGS") {
                let kept = Path::new(&directory).join(format!("{}.log", std::process::id()));
                drop(std::fs::write(kept, &log));
            }
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines
                .get(lines.len().saturating_sub(LOG_LINES_SHOWN)..)
                .unwrap_or_default();
            eprintln!(
                "--- log of the server ({} lines in all) ---\n{}",
                lines.len(),
                shown.join("\n")
            );
        }
    }
}

impl Server {
    /// The sum of what a metric says, over all lines that begin with `name` and contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let page = soon("a scrape", ask(self.admin, Request::get("/metrics"))).await;
        let page = page.expect("a page");
        let is_wanted = |line: &&str| line.starts_with(name) && line.contains(label);
        page.text()
            .lines()
            .filter(is_wanted)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until a metric is as `wanted`: workers tell theirs once a second.
    pub async fn metric_when(&self, name: &str, label: &str, wanted: impl Fn(f64) -> bool) {
        until(name, async || wanted(self.metric(name, label).await).then_some(())).await;
    }
}

fn table(key: &str, value: &str) -> toml::Value {
    let mut table = Table::new();
    table.insert(key.to_owned(), toml::Value::String(value.to_owned()));
    toml::Value::Table(table)
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(known)), toml::Value::Table(more)) => merge(known, more),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}
