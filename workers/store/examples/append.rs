//! How many entries a second the log takes, and what each costs Redis: several writers, four tailers.
//! `cargo run --release -p anyworker-store --example append`
#![allow(clippy::print_stdout, reason = "an example")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "an example")]

use bytes::Bytes;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use store::{Backend, Endpoint, Options, RedisOptions, Store, TailEvent};
use tokio::time::{Instant, sleep};

const TAILERS: usize = 4;
const ENTRY_BYTES: usize = 200;

struct Server(Child, tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(dir.path().join("redis.sock"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child, dir)
    }

    /// CPU time of the process so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    }
}

fn options(server: &Server, n: usize) -> Options {
    Options {
        backend: Backend::Redis(RedisOptions {
            endpoint: Endpoint::Unix {
                path: server.1.path().join("redis.sock"),
            },
            db: 0,
            username: None,
            password: None,
            ca_file: None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
        }),
        me: format!("w-{n}"),
        prefix: "socketio".to_owned(),
        ping_interval: Duration::from_secs(25),
        ping_timeout: Duration::from_secs(20),
        session_ttl: Duration::from_secs(45),
        log_entries_max: 100_000,
        log_bytes_max: 256 << 20,
        log_age_max: Duration::from_secs(300),
        entry_bytes_max: 1_000_000,
        queue_bytes_max: 8 << 20,
        publish_timeout: Duration::from_secs(10),
        dedupe_window: Duration::from_secs(60),
        canary_interval: Duration::from_secs(5),
    }
}

async fn measure(server: &Server, stores: &[Store], name: &str, concurrent: usize, total: usize, pause: Duration) {
    let (cpu, start) = (server.cpu(), Instant::now());
    let mut tasks = Vec::new();
    for n in 0..concurrent {
        let store = stores[n % stores.len()].clone();
        tasks.push(tokio::task::spawn_local(async move {
            let entry = Bytes::from(vec![b'x'; ENTRY_BYTES]);
            for _ in 0..total / concurrent {
                store.append(entry.clone(), None).await.unwrap();
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (elapsed, cpu) = (start.elapsed(), server.cpu() - cpu);
    let total = u32::try_from(total).unwrap();
    println!(
        "{name}: {:.0} entries/s, redis {:.1} us CPU per entry",
        f64::from(total) / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / f64::from(total)
    );
}

async fn run() {
    let server = Server::start();
    let mut stores = Vec::new();
    for n in 0..TAILERS {
        let (store, mut tail) = loop {
            match Store::open(options(&server, n)).await {
                Ok(open) => break open,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        stores.push(store);
        tokio::task::spawn_local(async move {
            loop {
                if let TailEvent::Reset { reason, .. } = tail.next().await {
                    println!("a tailer was reset: {reason:?}");
                }
            }
        });
    }
    measure(
        &server,
        &stores,
        "one every other millisecond",
        1,
        5_000,
        Duration::from_millis(1),
    )
    .await;
    measure(&server, &stores, "one after the other", 1, 20_000, Duration::ZERO).await;
    measure(
        &server,
        &stores[..1],
        "one worker, 1 000 at a time",
        1_000,
        200_000,
        Duration::ZERO,
    )
    .await;
    measure(
        &server,
        &stores,
        "four workers, 1 000 at a time",
        1_000,
        200_000,
        Duration::ZERO,
    )
    .await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run());
}
