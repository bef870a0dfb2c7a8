//! `docs/redis/redis.conf`, as it stands: a fleet works on it, may do all it has to and nothing else, and the doctor has
//! nothing to say about this Redis.

use crate::harness::{Plan, Poller, Server, Wire, free_address, until};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;
use tokio::net::TcpStream;

const CONF: &str = include_str!("../../docs/redis/redis.conf");
const WORKERS: &str = "591785b794601e212b260e25925636fd";
const ADMIN: &str = "b1946ac92492d2347c6235b4d2611184";

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A Redis that was set up as the page says.
struct Own {
    directory: TempDir,
    addr: SocketAddr,
    child: Child,
}

impl Own {
    /// With a configuration like that of the documents.
    async fn start(conf: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("anyworker-docs-").tempdir().unwrap();
        // Its directory belongs to the service, and Redis goes there as it reads the line.
        let own = format!("dir {}", directory.path().display());
        let conf = conf
            .replace("WORKERS-PASSWORD", WORKERS)
            .replace("ADMIN-PASSWORD", ADMIN)
            .replace("dir /var/lib/redis", &own);
        let file = directory.path().join("redis.conf");
        std::fs::write(&file, conf).unwrap();
        // An address of this process and test alone, as what the file names may be taken.
        let port = 6379 + NEXT.fetch_add(1, Ordering::Relaxed);
        let addr = SocketAddr::new(free_address().ip(), port);
        let child = Command::new("redis-server")
            .arg(file)
            .args(["--bind", &addr.ip().to_string(), "--port", &port.to_string()])
            .args(["--daemonize", "no", "--pidfile", "redis.pid", "--logfile", "redis.log"])
            // For this test to look on.
            .args(["--unixsocketperm", "700", "--unixsocket"])
            .arg(directory.path().join("redis.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server: `make test` installs what is missing");
        let own = Self { directory, addr, child };
        until("redis-server accepts", async || TcpStream::connect(addr).await.ok()).await;
        own
    }

    /// What redis-cli answers its administrator; `input` becomes the last word.
    fn admin(&self, words: &[&str], input: Option<&[u8]>) -> String {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.directory.path().join("redis.sock"));
        command.args(["--user", "admin", "--pass", ADMIN, "--no-auth-warning", "-e"]);
        command.args(input.map(|_| "-x")).args(words);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli: `make test` installs what is missing");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.unwrap_or_default())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    async fn fleet(&self) -> Server {
        let url = format!("redis.url = \"redis://anyworker:{WORKERS}@{}\"", self.addr);
        let server = Plan::new().without_redis().with(&url).start().await;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(server.config_file(), private).unwrap();
        server
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("redis.log")).unwrap_or_default();
            eprintln!("--- log of Redis ---\n{log}");
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_fleet_works_on_the_redis_of_the_documents() {
    let own = Own::start(CONF).await;
    let server = own.fleet().await;

    // Both transports, an upgrade, a resume, and events from outside by every source that Redis has.
    let mut wire = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket&recovery=1", &[])
        .await
        .unwrap();
    wire.text().await;
    let membership = wire.connect().await;
    assert_eq!(wire.call(0, &json!(["join", "news"])).await, json!(["ok"]));
    let poller = Poller::open(&server).await;
    poller.connect().await;
    assert_eq!(poller.call(0, &json!(["publish", "news", 1])).await, json!(["ok"]));
    assert_event(&mut wire, "message").await;
    let mut upgraded = Wire::dial(server.addr, &poller.upgrade_target(), &[]).await.unwrap();
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    upgraded.send("5").await;
    assert_eq!(upgraded.call(1, &json!(["echo", 1])).await, json!([1]));

    let plain = r#"{"event":"plain","data":1,"room":"news"}"#;
    own.admin(&["XADD", "socketio:ingest", "*", "event", plain], None);
    assert_event(&mut wire, "plain").await;
    let python = r#"{"method":"emit","event":"python","data":[1],"namespace":"/","room":"news","host_id":"x"}"#;
    assert_eq!(own.admin(&["PUBLISH", "socketio", python], None), "1");
    assert_event(&mut wire, "python").await;
    let node = b"\x93\xa1x\x83\xa4type\x02\xa4data\x92\xa4node\x01\xa3nsp\xa1/\x83\xa5rooms\x91\xa4news\xa6except\x90\xa5flags\x80";
    assert_eq!(own.admin(&["PUBLISH", "socket.io#/#news#"], Some(node)), "1");
    assert_event(&mut wire, "node").await;
    let data =
        r#"{"opts":{"rooms":["news"],"except":[],"flags":{}},"packet":{"type":2,"data":["stream",1],"nsp":"/"}}"#;
    let item = ["uid", "emitter", "nsp", "/", "type", "3", "data", data];
    own.admin(&[&["XADD", "socket.io", "*"], &item[..]].concat(), None);
    assert_event(&mut wire, "stream").await;

    wire.shut().await;
    let mut back = Wire::dial(server.addr, "/socket.io/?EIO=4&transport=websocket&recovery=1", &[])
        .await
        .unwrap();
    back.text().await;
    back.send(&format!(r#"40{{"pid":{}}}"#, membership["pid"])).await;
    loop {
        let packet = back.data().await;
        if let Some(answer) = packet.strip_prefix("40") {
            let answer: Value = serde_json::from_str(answer).unwrap();
            assert_eq!(answer["pid"], membership["pid"], "resumed");
            break;
        }
    }
    for command in ["selftest", "health", "sessions", "rooms"] {
        let output = server.cli(command, &[]).await;
        assert!(output.status.success(), "{command}: {output:?}");
    }

    // Redis has refused them nothing.
    assert_eq!(own.admin(&["ACL", "LOG"], None), "");

    let output = server.cli("doctor", &["--json"]).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap();
    let about_redis: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["check"].as_str().unwrap().contains("redis"))
        .collect();
    assert!(about_redis.len() > 15, "{about_redis:#?}");
    for finding in about_redis {
        assert_eq!(finding["outcome"], "pass", "{finding:#}");
    }
}

/// A source that Redis refuses does not stop the others, and is named.
#[tokio::test]
async fn a_forbidden_channel_leaves_the_streams_open() {
    let own = Own::start(&CONF.replace("&socket.io#/*#* ", "")).await;
    let server = own.fleet().await;
    let mut wire = Wire::open(&server).await;
    wire.connect().await;
    for n in 0..3 {
        let event = format!(r#"{{"event":"plain","data":{n}}}"#);
        own.admin(&["XADD", "socketio:ingest", "*", "event", &event], None);
        assert_event(&mut wire, "plain").await;
    }
    let said = "ingest channels not subscribed";
    assert_eq!(server.log().matches(said).count(), 1, "{}", server.log());
}

/// The next event that `wire` gets is of this name.
async fn assert_event(wire: &mut Wire, name: &str) {
    let packet = wire.data().await;
    assert!(packet.starts_with(&format!("42[\"{name}\",")), "{packet}");
}

/// The page explains each setting of the file, and nothing that is not in it.
#[test]
fn the_page_is_about_the_file() {
    let page = include_str!("../../docs/redis.md");
    let settings = CONF.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for setting in settings {
        let name = setting.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{name}")), "{name} is not explained");
    }
}
