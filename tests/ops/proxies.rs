//! Proxies as they are found in the wild: each does one thing wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Passes everything on.
    Good,
    /// Forgets what asks for a WebSocket.
    NoUpgrade,
    /// Closes what was silent for so long.
    Impatient(Duration),
    /// Keeps what the server says for so long.
    Buffering(Duration),
    /// Knows nothing of the path.
    Lost,
}

/// A proxy in front of a server.
pub(crate) struct Middle {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Middle {
    pub(crate) async fn start(target: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind((target.ip(), 0)).await.expect("a port for the proxy");
        let addr = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while carried.try_join_next().is_some() {}
                carried.spawn(carry(client, target, manner));
            }
        });
        Self { addr, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// A proxy that speaks TLS with clients, as `localhost`, by a certificate that is not trusted yet.
pub(crate) struct Secure {
    port: u16,
    /// The certificate, for clients that are to trust it.
    pub(crate) certificate: String,
    _tasks: JoinSet<()>,
}

impl Secure {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("its key");
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port for the proxy");
        let port = listener.local_addr().expect("an address").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                carried.spawn(async move {
                    let (client, server) = (acceptor.accept(client).await, TcpStream::connect(target).await);
                    if let (Ok(mut client), Ok(mut server)) = (client, server) {
                        // The side that closes first ends it.
                        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Self {
            port,
            certificate: made.cert.pem(),
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

/// Carries a connection until either side closes it, or it is closed as the manner is.
async fn carry(mut client: TcpStream, target: SocketAddr, manner: Manner) {
    let mut head = vec![0; 8_192];
    let Ok(length) = client.read(&mut head).await else {
        return;
    };
    let mut head = String::from_utf8_lossy(&head[..length]).into_owned();
    if matches!(manner, Manner::Lost) {
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found";
        // The client may have had enough.
        drop(client.write_all(answer.as_bytes()).await);
        return;
    }
    if matches!(manner, Manner::NoUpgrade) {
        head = head
            .replace("Connection: Upgrade\r\n", "Connection: close\r\n")
            .replace("Upgrade: websocket\r\n", "");
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    if server.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        // The side that closes first ends it.
        drop(tokio::io::copy(&mut from_client, &mut to_server).await);
    };
    let down = async {
        let mut bytes = vec![0; 8_192];
        loop {
            let read = from_server.read(&mut bytes);
            let count = match manner {
                Manner::Impatient(patience) => timeout(patience, read).await.unwrap_or(Ok(0)),
                Manner::Good | Manner::NoUpgrade | Manner::Buffering(_) | Manner::Lost => read.await,
            };
            let Ok(count @ 1..) = count else { return };
            if let Manner::Buffering(span) = manner {
                sleep(span).await;
            }
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
