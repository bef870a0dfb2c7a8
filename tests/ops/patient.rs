//! A machine for the doctor: a Redis with any settings, and a directory that stands for `/proc`, `/sys` and `/etc`. As
//! it is made, nothing is wrong with it.

use crate::harness::{free_address, soon, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Of the default user of Redis.
pub(crate) const ADMIN: &str = "b1946ac92492d2347c6235b4d2611184";
/// Of the user of the workers.
pub(crate) const WORKERS: &str = "591785b794601e212b260e25925636fd";
/// Keys and channels of the workers.
pub(crate) const NAMES: &str =
    "~socketio:* ~socket.io resetchannels &socketio:* &socketio &socket.io#/*#* &socket.io-request#/*#";

const UNIT: &str = "[Unit]\nDescription=x\n[Service]\nType=notify\nKillMode=mixed\nTimeoutStopSec=45\nWatchdogSec=15\n\
                    LimitNOFILE=1048576\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";

/// What is to be wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Illness {
    /// Settings of Redis over the good ones: name and value.
    pub(crate) redis: Vec<(&'static str, &'static str)>,
    /// Good settings that are missing.
    pub(crate) without: Vec<&'static str>,
    /// Lines of configuration over the good one.
    pub(crate) toml: &'static str,
    /// Files of the system over the good ones.
    pub(crate) files: Vec<(&'static str, &'static str)>,
    /// The address that Redis seems to listen on, as the kernel writes it; the real one otherwise.
    pub(crate) listens: Option<&'static str>,
    /// User and password in `redis.url`.
    pub(crate) login: Option<&'static str>,
}

pub(crate) struct Patient {
    directory: TempDir,
    redis: Option<Child>,
    pub(crate) addr: SocketAddr,
    login: String,
}

impl Patient {
    pub(crate) async fn new(illness: &Illness) -> Self {
        let directory = tempfile::Builder::new().prefix("anyworker-doctor-").tempdir().unwrap();
        let addr = free_address();
        let mut patient = Self {
            directory,
            redis: None,
            addr,
            login: illness
                .login
                .map_or_else(|| format!("workers:{WORKERS}"), str::to_owned),
        };
        patient.furnish(illness);
        patient.configure(&patient.url(), illness.toml);
        patient.redis = Some(patient.start(illness));
        until("redis-server accepts", async || TcpStream::connect(addr).await.ok()).await;
        patient
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of its Redis.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}@{}", self.login, self.addr)
    }

    /// Has the doctor look at the Redis at this URL, with further configuration.
    pub(crate) fn configure(&self, url: &str, toml: &str) {
        let text = format!(
            "listen.address = \"127.64.0.1:1\"\nruntime.directory = {:?}\nredis.url = {url:?}\n{toml}\n",
            self.path().join("run")
        );
        let file = self.path().join("supervisor.toml");
        std::fs::write(&file, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(file, private).unwrap();
    }

    /// A file of the system.
    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.path().join("root").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn furnish(&self, illness: &Illness) {
        self.file("proc/sys/net/core/somaxconn", "4096\n");
        self.file("proc/sys/net/ipv4/tcp_migrate_req", "1\n");
        self.file("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        self.file("proc/sys/vm/overcommit_memory", "1\n");
        self.file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        self.file("proc/self/limits", LIMITS);
        self.file("etc/systemd/system/anyworker.service", UNIT);
        let std::net::IpAddr::V4(ip) = self.addr.ip() else {
            panic!("an address of IPv4");
        };
        let real = format!("{:08X}", u32::from_ne_bytes(ip.octets()));
        let listens = illness.listens.unwrap_or(&real);
        let row = format!(
            "   0: {listens}:{:04X} 00000000:0000 0A 00000000:00000000 00:00000000",
            self.addr.port()
        );
        self.file(
            "proc/net/tcp",
            &format!("  sl  local_address rem_address   st\n{row}\n"),
        );
        for (path, text) in &illness.files {
            self.file(path, text);
        }
    }

    fn start(&self, illness: &Illness) -> Child {
        let (port, ip) = (self.addr.port().to_string(), self.addr.ip().to_string());
        let mut settings = vec![
            ("port", port.as_str()),
            ("bind", &ip),
            ("save", ""),
            ("appendonly", "yes"),
            ("maxmemory", "1gb"),
            ("requirepass", ADMIN),
            ("user", "workers"),
        ];
        settings.retain(|(name, _)| !illness.without.contains(name));
        let mut text = String::new();
        for (name, value) in settings.into_iter().chain(illness.redis.iter().copied()) {
            match (name, value) {
                ("user", "workers") => {
                    // All that workers need, and what the doctor may look at.
                    text.push_str(&format!(
                        "user workers on >{WORKERS} {NAMES} +@all -@dangerous +info +config|get\n"
                    ));
                }
                (name, "") => text.push_str(&format!("{name} \"\"\n")),
                (name, value) => text.push_str(&format!("{name} {value}\n")),
            }
        }
        let file = self.path().join("redis.conf");
        std::fs::write(&file, text).unwrap();
        Command::new("redis-server")
            .arg(file)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(self.path().join("redis.log")).unwrap())
            .spawn()
            .expect("redis-server: `make test` installs what is missing")
    }

    /// Ends Redis.
    pub(crate) fn stop(&mut self) {
        if let Some(mut redis) = self.redis.take() {
            redis.kill().unwrap();
            redis.wait().unwrap();
        }
    }

    /// A command of the program.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_anyworker"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path().join("supervisor.toml"));
        command
            .env_clear()
            .current_dir(self.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        soon("anyworker", command.output()).await.unwrap()
    }

    /// What the doctor finds.
    pub(crate) async fn examine(&self) -> Diagnosis {
        let root = self.path().join("root");
        let output = self.ask(&["doctor", "--json", "--root", root.to_str().unwrap()]).await;
        Diagnosis::of(&output)
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path().join("redis.log")).unwrap_or_default();
            eprintln!("--- log of Redis ---\n{log}");
        }
        self.stop();
    }
}

/// What the doctor says.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) code: i32,
    pub(crate) findings: Vec<Value>,
}

impl Diagnosis {
    pub(crate) fn of(output: &Output) -> Self {
        let json: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| panic!("{fault} in {output:?}"));
        Self {
            code: output.status.code().expect("an exit code"),
            findings: json["findings"].as_array().unwrap().clone(),
        }
    }

    /// Names of the checks that ended so.
    pub(crate) fn all(&self, outcome: &str) -> BTreeSet<&str> {
        let found = self.findings.iter().filter(|finding| finding["outcome"] == outcome);
        found.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    /// Names of the checks that found something; each must say what to do.
    pub(crate) fn bad(&self) -> BTreeSet<&str> {
        let bad: BTreeSet<&str> = self.all("warn").union(&self.all("fail")).copied().collect();
        for check in &bad {
            let remedy = self.finding(check)["remedy"].as_str();
            assert!(remedy.is_some_and(|remedy| !remedy.is_empty()), "{check} has no remedy");
        }
        bad
    }

    pub(crate) fn finding(&self, check: &str) -> &Value {
        let mut findings = self.findings.iter();
        let found = findings.find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} in {self:?}"))
    }

    pub(crate) fn evidence(&self, check: &str) -> &str {
        self.finding(check)["evidence"].as_str().unwrap()
    }
}
