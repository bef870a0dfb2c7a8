//! A network between clients and the server that can be cut, frozen and slowed down.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are carried in one go.
const CHUNK: usize = 4096;

/// What is wrong with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// Bytes pass.
    None,
    /// Each chunk takes that long.
    Slow(Duration),
    /// Nothing passes, and no error says so.
    Frozen,
    /// Every connection is reset, and every new one.
    Cut,
}

/// A TCP proxy in front of a server; gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    pub addr: SocketAddr,
    fault: watch::Sender<NetworkFault>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of the address of `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((target.ip(), 0)).await.expect("a port for the proxy");
        let addr = listener.local_addr().expect("an address");
        let (fault, seen) = watch::channel(NetworkFault::None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                while carried.try_join_next().is_some() {}
                carried.spawn(carry(client, target, seen.clone()));
            }
        });
        Self {
            addr,
            fault,
            _tasks: tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes the fault at once.
    pub fn set(&self, fault: NetworkFault) {
        self.fault.send_replace(fault);
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut fault: watch::Receiver<NetworkFault>) {
    // Reset rather than closed: a network that breaks says no goodbye.
    client.set_zero_linger().ok();
    if *fault.borrow_and_update() == NetworkFault::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    server.set_zero_linger().ok();
    for end in [&client, &server] {
        end.set_nodelay(true).ok();
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pour(from_client, to_server, fault.clone()) => {}
        () = pour(from_server, to_client, fault.clone()) => {}
        _ = fault.wait_for(|fault| *fault == NetworkFault::Cut) => {}
    }
}

async fn pour(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut fault: watch::Receiver<NetworkFault>) {
    let mut chunk = [0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let now = fault.wait_for(|fault| *fault != NetworkFault::Frozen).await;
        let pause = match now.map(|now| *now) {
            Ok(NetworkFault::Slow(pause)) => pause,
            Ok(NetworkFault::None) => Duration::ZERO,
            Ok(NetworkFault::Frozen | NetworkFault::Cut) | Err(_) => return,
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(chunk.get(..length).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
