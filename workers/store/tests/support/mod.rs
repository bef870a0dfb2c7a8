//! A Redis of one's own, and the same tests over both backends.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part")]
#![allow(
    clippy::crate_in_macro_def,
    reason = "the tests are those of the file that names them"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

use session::{Offset, Record, Sid, Transport};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use store::{Backend, Endpoint, Options, RedisOptions, Store, Tail, TailEvent};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take that is bound to happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const PING_INTERVAL: Duration = Duration::from_millis(300);
pub const PING_TIMEOUT: Duration = Duration::from_millis(500);
pub const TTL: Duration = Duration::from_millis(800);

/// A redis-server on a Unix socket in a directory of its own.
pub struct Redis {
    dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let mut redis = Self { dir, args, child: None };
        redis.up();
        redis
    }

    /// Nothing is written to disk.
    pub fn volatile() -> Self {
        Self::start(&["--save", "", "--appendonly", "no"])
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("redis runs").id()
    }

    pub fn up(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("these tests need redis-server (6.0 or later) on the PATH"));
        let deadline = std::time::Instant::now() + PATIENCE;
        let client = self.client();
        loop {
            let pong = client
                .get_connection()
                .and_then(|mut c| redis::cmd("PING").query::<String>(&mut c));
            if pong.is_ok() {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "redis-server did not come up: {pong:?}"
            );
            std::thread::yield_now();
        }
    }

    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill redis");
            child.wait().expect("reap redis");
        }
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(format!("unix://{}", self.socket().display())).expect("a client")
    }

    /// Runs a command, as an operator would.
    pub fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.client().get_connection().expect("a connection");
        let (name, args) = words.split_first().expect("a command");
        redis::cmd(name)
            .arg(args)
            .query(&mut connection)
            .unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    pub fn options(&self, me: &str) -> Options {
        let redis = RedisOptions {
            endpoint: Endpoint::Unix { path: self.socket() },
            db: 0,
            username: None,
            password: None,
            ca_file: None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
        };
        Options {
            backend: Backend::Redis(redis),
            ..options(me)
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.down();
    }
}

pub fn options(me: &str) -> Options {
    Options {
        backend: Backend::Memory,
        me: me.to_owned(),
        prefix: "socketio".to_owned(),
        ping_interval: PING_INTERVAL,
        ping_timeout: PING_TIMEOUT,
        session_ttl: PING_INTERVAL + PING_TIMEOUT,
        log_entries_max: 100_000,
        log_bytes_max: 256 << 20,
        log_age_max: Duration::from_secs(60),
        entry_bytes_max: 100_000,
        queue_bytes_max: 8 << 20,
        publish_timeout: Duration::from_secs(10),
        dedupe_window: Duration::from_millis(300),
        canary_interval: Duration::from_millis(200),
    }
}

/// Where several workers meet.
pub enum World {
    Memory(Store),
    Redis(Redis),
}

impl World {
    pub async fn worker(&self, me: &str) -> (Store, Tail) {
        self.worker_with(me, |_| {}).await
    }

    pub async fn worker_with(&self, me: &str, change: impl FnOnce(&mut Options)) -> (Store, Tail) {
        match self {
            Self::Memory(first) => first.sibling(me).expect("in memory"),
            Self::Redis(redis) => {
                let mut options = redis.options(me);
                change(&mut options);
                Store::open(options).await.expect("open the store")
            }
        }
    }
}

/// Runs a test on a current-thread runtime.
pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        timeout(Duration::from_secs(60), test).await.expect("the test hangs")
    });
}

pub fn on_memory<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run(async {
        let (first, _tail) = Store::open(options("first")).await.expect("open the store");
        test(World::Memory(first)).await;
    });
}

pub fn on_redis<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run(async { test(World::Redis(Redis::volatile())).await });
}

/// Each function is a test, once over each backend.
#[macro_export]
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[test] fn $name() { crate::support::on_memory(crate::$name); })+
        }
        mod redis_server {
            $(#[test] fn $name() { crate::support::on_redis(crate::$name); })+
        }
    };
}

pub fn sid(n: u8) -> Sid {
    Sid::from_random([n; 15])
}

pub fn record(n: u8, transport: Transport, worker: &str) -> Record {
    Record::new(sid(n), transport, worker.to_owned(), "127.0.0.1".to_owned(), 5)
}

pub fn same(a: &Record, b: &Record) -> bool {
    a.to_json() == b.to_json()
}

/// Waits until the condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The next event that is no canary.
pub async fn event(tail: &mut Tail) -> TailEvent {
    loop {
        match timeout(PATIENCE, tail.next()).await.expect("an event") {
            TailEvent::Canary { .. } => {}
            event => return event,
        }
    }
}

/// Whether the next event wakes this session.
pub async fn woken(tail: &mut Tail, expected: &Sid) {
    match event(tail).await {
        TailEvent::Wake(sid) => assert_eq!(sid, *expected),
        other => panic!("{other:?}"),
    }
}

/// The next `count` entries; nothing else may come but connections that break and heal.
pub async fn entries(tail: &mut Tail, count: usize) -> Vec<(Offset, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        match event(tail).await {
            TailEvent::Entries(some) => {
                let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
                all.extend(some.into_iter().map(|(offset, bytes)| (offset, text(bytes))));
            }
            TailEvent::Stalled | TailEvent::Down(_) | TailEvent::Up => {}
            other => panic!("{other:?} after {} entries", all.len()),
        }
    }
    assert_eq!(all.len(), count);
    for pair in all.windows(2) {
        assert_eq!(pair[0].0.next(), pair[1].0, "a gap");
    }
    all
}
