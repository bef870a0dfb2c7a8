//! A Redis with TLS whose certificate no public authority has signed.

use crate::harness::{PATIENCE, Plan, until};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A `redis-server` that speaks TLS only, and its port.
struct Tls(Child, u16);

impl Tls {
    fn start(directory: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(directory.join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args("--port 0 --tls-auth-clients no --bind 127.0.0.1".split(' '))
            .args("--tls-cert-file ca.pem --tls-key-file key.pem --tls-ca-cert-file ca.pem".split(' '))
            .args(["--save", ""])
            .args(["--tls-port", &port.to_string()])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap(), port)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let place = tempfile::tempdir().unwrap();
    let tls = Tls::start(place.path());
    until("a port", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", tls.1)).await.ok()
    })
    .await;
    let url = format!("redis.url = \"rediss://localhost:{}\"", tls.1);
    let plan = || Plan::new().without_redis().with("workers.count = 1").with(&url);
    let ca = place.path().join("ca.pem");
    let server = plan().with(&format!("redis.ca_file = {ca:?}")).start().await;
    let output = server.cli("selftest", &[]).await;
    assert!(output.status.success(), "{output:?}");
    let server = plan().env("SSL_CERT_FILE", ca.to_str().unwrap()).start().await;
    let output = server.cli("selftest", &[]).await;
    assert!(output.status.success(), "{output:?}");
    // Nothing is named, or another one: the certificate is refused, and the log says so.
    let server = plan().launch().await;
    tokio::time::timeout(PATIENCE, server.logged("certificate"))
        .await
        .unwrap();
    let server = plan().with("redis.ca_file = \"/dev/null\"").launch().await;
    tokio::time::timeout(PATIENCE, server.logged("no certificate (PEM) in /dev/null"))
        .await
        .unwrap();
}
