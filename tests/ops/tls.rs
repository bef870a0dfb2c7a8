//! A Redis with TLS whose certificate no public authority has signed; and a URL that says TLS where there is none, or the
//! reverse.

use crate::harness::{PATIENCE, Plan, Request, Server, ask, until};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

/// A port of 127.0.0.1, which is what `localhost` in a URL means. It is below those that the kernel gives to connections
/// (`ip_local_port_range`), and that of another process only if their ids are thousands apart.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = u16::from_be_bytes([high, low]).wrapping_mul(4);
    let nth = number.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    10_000 + nth % 20_000
}

/// A `redis-server` at a port of its own that speaks either TLS or none.
struct Port {
    directory: TempDir,
    child: Option<Child>,
    number: u16,
}

impl Port {
    async fn start(tls: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(directory.path().join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let number = free_port();
        let mut port = Self {
            directory,
            child: None,
            number,
        };
        port.again(tls).await;
        port
    }

    async fn again(&mut self, tls: bool) {
        self.stop();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", ""]);
        let number = self.number.to_string();
        if tls {
            command
                .args(["--port", "0", "--tls-port", &number, "--tls-auth-clients", "no"])
                .args("--tls-cert-file ca.pem --tls-key-file key.pem --tls-ca-cert-file ca.pem".split(' '));
        } else {
            command.args(["--port", &number]);
        }
        let child = command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        until("a port", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.number)).await.ok()
        })
        .await;
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A fleet with this URL, in which PORT stands for the port.
    fn plan(&self, url: &str) -> Plan {
        let url = url.replace("PORT", &self.number.to_string());
        let plan = Plan::new().without_redis().with("workers.count = 1");
        plan.with(&format!("redis.url = {url:?}"))
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn logged(server: &Server, words: &str) {
    let seen = tokio::time::timeout(PATIENCE, server.logged(words)).await;
    assert!(seen.is_ok(), "no {words} in {}", server.log());
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let port = Port::start(true).await;
    let (ca, plan) = (port.ca(), || port.plan("rediss://localhost:PORT"));
    let by_url = port.plan(&format!("rediss://localhost:PORT?ssl_ca_certs={}", ca.display()));
    for plan in [
        plan().with(&format!("redis.ca_file = {ca:?}")),
        plan().env("SSL_CERT_FILE", ca.to_str().unwrap()),
        by_url,
    ] {
        let server = plan.start().await;
        let output = server.cli("selftest", &[]).await;
        assert!(output.status.success(), "{output:?}");
    }
    // Nothing is named, or another one: the certificate is refused, and the log says so.
    let server = plan().launch().await;
    logged(
        &server,
        "UnknownIssuer; name the authority of its certificate in redis.ca_file",
    )
    .await;
    let server = plan().with("redis.ca_file = \"/dev/null\"").launch().await;
    logged(&server, "no certificate (PEM) in /dev/null").await;
}

#[tokio::test]
async fn a_url_that_says_tls_where_there_is_none_or_the_reverse_is_named() {
    let (tls, plain) = (Port::start(true).await, Port::start(false).await);
    let wants_tls = "speaks TLS, and redis.url wants none: write rediss:// instead of redis://";
    let wants_none = "is a Redis without TLS, and redis.url wants TLS: write redis:// instead of rediss://";
    for (port, url, words) in [
        (&tls, "redis://127.0.0.1:PORT", wants_tls),
        (&tls, "redis://localhost:PORT", wants_tls),
        (&tls, "redis://:secret@127.0.0.1:PORT/3", wants_tls),
        (&plain, "rediss://localhost:PORT", wants_none),
        (&plain, "rediss://127.0.0.1:PORT/3", wants_none),
        (&plain, "rediss://user:secret@localhost:PORT", wants_none),
    ] {
        let plan = port.plan(url).with("redis.connect_timeout_ms = 300");
        let mut server = plan.launch().await;
        assert_eq!(server.exit_within(PATIENCE).await.code(), Some(78), "{url}");
        assert!(server.log().contains(words), "{url}: {}", server.log());
        for command in ["doctor", "health", "selftest"] {
            let output = server.cli(command, &[]).await;
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                !output.status.success() && text.contains(words),
                "{command} {url}: {text}"
            );
        }
    }
}

/// What ends a start is waited for by a fleet that serves.
#[tokio::test]
async fn a_redis_that_changes_to_tls_and_back_is_named_and_waited_for() {
    let mut port = Port::start(false).await;
    let server = port.plan("redis://127.0.0.1:PORT").start().await;
    port.again(true).await;
    logged(&server, "speaks TLS, and redis.url wants none").await;
    assert_eq!(ask(server.addr, Request::get("/api/ready")).await.unwrap().status, 503);
    let output = server.cli("health", &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("speaks TLS"), "{text}");
    port.again(false).await;
    until("it serves again", async || {
        let reply = ask(server.addr, Request::get("/api/ready")).await.ok()?;
        (reply.status == 200).then_some(())
    })
    .await;
    let workers = server.status().await.workers;
    assert_eq!(workers.iter().map(|worker| worker.restarts).sum::<u64>(), 0);
}
