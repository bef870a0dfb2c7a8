//! A proxy in front of Redis that can stall the log of a worker: what is pushed to it does not arrive, and there is no error.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// How a push begins (RESP 2).
const PUSH: &[u8] = b"*3\r\n$7\r\nmessage\r\n";
/// What a worker subscribes to for itself, before its incarnation.
const WAKE: &str = "socketio:wake@0:";

/// Incarnations that have subscribed, and those of them whose log is stalled.
#[derive(Debug, Default)]
struct Subscribers {
    known: BTreeSet<String>,
    stalled: BTreeSet<String>,
}

/// A TCP proxy in front of a Redis; gone when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    subscribers: Arc<Mutex<Subscribers>>,
    _tasks: JoinSet<()>,
}

impl FaultProxy {
    /// In front of the Redis at this socket.
    pub async fn start(redis: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port for the fault proxy");
        let addr = listener.local_addr().expect("an address");
        let subscribers = Arc::new(Mutex::new(Subscribers::default()));
        let (shared, redis) = (subscribers.clone(), redis.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((worker, _)) = listener.accept().await {
                carried.spawn(carry(worker, redis.clone(), shared.clone()));
            }
        });
        Self {
            addr,
            subscribers,
            _tasks: tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// The present worker of a slot hears nothing any more, however often it connects.
    pub fn stall_log(&self, slot: u16) {
        let mut subscribers = self.subscribers.lock().expect("subscribers");
        let of_slot = format!("-{slot}.");
        let found = subscribers.known.iter().rfind(|name| name.contains(&of_slot));
        let name = found.expect("a worker that has subscribed").clone();
        subscribers.stalled.insert(name);
    }
}

async fn carry(worker: TcpStream, redis: PathBuf, subscribers: Arc<Mutex<Subscribers>>) {
    let Ok(redis) = UnixStream::connect(redis).await else {
        return;
    };
    let ((from_worker, mut to_worker), (mut from_redis, to_redis)) = (worker.into_split(), redis.into_split());
    let name = Arc::new(Mutex::new(None));
    let listened = listen(from_worker, to_redis, name.clone(), subscribers.clone());
    let pushed = async {
        let (mut chunk, mut stalled) = (vec![0; 65_536], false);
        while let Ok(length @ 1..) = from_redis.read(&mut chunk).await {
            let mut bytes = &chunk[..length];
            let log_is_stalled = |name: &Option<String>| {
                name.as_ref()
                    .is_some_and(|name| subscribers.lock().expect("subscribers").stalled.contains(name))
            };
            if log_is_stalled(&name.lock().expect("a name")) {
                // What answers a subscription comes before all pushes.
                let first = bytes.windows(PUSH.len()).position(|window| window == PUSH);
                let end = if stalled { 0 } else { first.unwrap_or(length) };
                stalled |= first.is_some();
                bytes = &bytes[..end];
            }
            if to_worker.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = listened => {}
        () = pushed => {}
    }
}

/// Carries what a worker says, and notes which worker it is.
async fn listen(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    name: Arc<Mutex<Option<String>>>,
    subscribers: Arc<Mutex<Subscribers>>,
) {
    let mut chunk = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let text = String::from_utf8_lossy(&chunk[..length]);
        if text.contains("SUBSCRIBE")
            && let Some((_, rest)) = text.split_once(WAKE)
        {
            let incarnation = rest.lines().next().unwrap_or_default().to_owned();
            subscribers
                .lock()
                .expect("subscribers")
                .known
                .insert(incarnation.clone());
            *name.lock().expect("a name") = Some(incarnation);
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}
