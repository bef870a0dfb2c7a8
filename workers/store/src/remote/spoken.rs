//! What is spoken at Redis' port, for a connection that broke before its first answer: Redis closes a connection to its port
//! for TLS that speaks plainly, and its plain port waits in silence for the end of a TLS greeting. Neither says why.

use crate::error::Speaks;
use crate::options::Endpoint;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long one look may take: it delays an error that is known already.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long an observation counts. Each is a further connection to a Redis that has trouble already.
const OBSERVATION_AGE_MAX: Duration = Duration::from_secs(5);
/// First bytes of a record of TLS: its type, alert or handshake, and the higher part of its version (RFC 8446, 5.1).
const TLS_RECORDS: [[u8; 2]; 2] = [[21, 3], [22, 3]];

/// Looks, and remembers for a moment what it saw.
#[derive(Default)]
pub(super) struct Spoken {
    seen: Cell<Option<(Instant, Option<Speaks>)>>,
}

impl Spoken {
    /// Returns what is spoken at `endpoint` if it is not what the endpoint's URL says; `None` if it is, or nothing answers.
    pub(super) async fn instead(&self, endpoint: &Endpoint) -> Option<Speaks> {
        if let Some((when, seen)) = self.seen.get()
            && when.elapsed() < OBSERVATION_AGE_MAX
        {
            return seen;
        }
        let looked = async {
            match endpoint {
                Endpoint::Tcp { host, port } => speaks_tls(host, *port).await.then_some(Speaks::Tls),
                Endpoint::Tls { host, port } => speaks_plainly(host, *port).await.then_some(Speaks::Plain),
                Endpoint::Unix { .. } => None,
            }
        };
        let seen = timeout(LOOK_MAX, looked).await.ok().flatten();
        self.seen.set(Some((Instant::now(), seen)));
        seen
    }
}

async fn speaks_tls(host: &str, port: u16) -> bool {
    let Some(greeting) = greeting(host) else {
        return false;
    };
    let answer = answer(host, port, &greeting).await;
    answer.is_some_and(|answer| TLS_RECORDS.contains(&answer))
}

/// Redis answers PING with `+PONG`, or with an error whose code is in capitals.
async fn speaks_plainly(host: &str, port: u16) -> bool {
    let answer = answer(host, port, b"PING\r\n").await;
    answer.is_some_and(|[first, second]| {
        (first, second) == (b'+', b'P') || (first == b'-' && second.is_ascii_uppercase())
    })
}

/// The first bytes that come back.
async fn answer(host: &str, port: u16, words: &[u8]) -> Option<[u8; 2]> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(words).await.ok()?;
    let mut first = [0; 2];
    stream.read_exact(&mut first).await.ok()?;
    Some(first)
}

/// The first message of a client of TLS. Nothing is ever sent after it, so that nothing has to be trusted.
fn greeting(host: &str) -> Option<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A port that answers so to whatever it is told, and its number.
    async fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut words = [0; 4096];
                    if let Ok(1..) = stream.read(&mut words).await {
                        stream.write_all(answer).await.ok();
                    }
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn the_first_bytes_tell() {
        let tls = |port| Endpoint::Tls {
            host: "localhost".to_owned(),
            port,
        };
        let plain = |port| Endpoint::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        };
        for (answer, to_plain, to_tls) in [
            // An alert, and the hello of a server.
            (&b"\x15\x03\x01\x00\x02\x02\x46"[..], Some(Speaks::Tls), None),
            (b"\x16\x03\x03\x00\x7a", Some(Speaks::Tls), None),
            (b"+PONG\r\n", None, Some(Speaks::Plain)),
            (b"-NOAUTH Authentication required.\r\n", None, Some(Speaks::Plain)),
            (b"-ERR unknown command\r\n", None, Some(Speaks::Plain)),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", None, None),
            (b"+OK\r\n", None, None),
            (b"- \r\n", None, None),
            (b"\x16", None, None),
            (b"", None, None),
        ] {
            let port = answering(answer).await;
            assert_eq!(Spoken::default().instead(&plain(port)).await, to_plain, "{answer:?}");
            assert_eq!(Spoken::default().instead(&tls(port)).await, to_tls, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn silence_and_an_empty_port_tell_nothing() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let host = || "127.0.0.1".to_owned();
        let began = Instant::now();
        assert_eq!(
            Spoken::default().instead(&Endpoint::Tcp { host: host(), port }).await,
            None
        );
        assert_eq!(
            Spoken::default().instead(&Endpoint::Tls { host: host(), port }).await,
            None
        );
        assert!(began.elapsed() < 3 * LOOK_MAX, "{:?}", began.elapsed());
        drop(silent);
        assert_eq!(
            Spoken::default().instead(&Endpoint::Tcp { host: host(), port }).await,
            None
        );
        assert_eq!(
            Spoken::default().instead(&Endpoint::Tls { host: host(), port }).await,
            None
        );
        let path = "/nowhere/redis.sock".into();
        assert_eq!(Spoken::default().instead(&Endpoint::Unix { path }).await, None);
    }

    #[tokio::test]
    async fn one_look_counts_for_a_while() {
        let spoken = Spoken::default();
        let host = || "127.0.0.1".to_owned();
        let port = answering(b"\x15\x03").await;
        assert_eq!(
            spoken.instead(&Endpoint::Tcp { host: host(), port }).await,
            Some(Speaks::Tls)
        );
        // Nothing is asked again.
        let port = answering(b"").await;
        assert_eq!(
            spoken.instead(&Endpoint::Tcp { host: host(), port }).await,
            Some(Speaks::Tls)
        );
    }
}
