//! Real proxies, set up by the files in `docs/proxy` as they are there: only the addresses are others.

use crate::harness::{Request, ask, free_address, until};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Where the files say that anyworker listens.
const HOSTS: [&str; 2] = ["10.0.0.11:8000", "10.0.0.12:8000"];

/// Which proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Caddy,
    Haproxy,
    Nginx,
}

/// A running proxy in front of two fleets; gone when dropped.
pub(crate) struct Front {
    pub(crate) addr: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Front {
    /// Starts one, and waits until it passes requests on.
    pub(crate) async fn start(kind: Kind, hosts: [SocketAddr; 2]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("anyworker-test-")
            .tempdir()
            .expect("a temporary directory");
        let addr = free_address();
        let child = match kind {
            Kind::Caddy => caddy(directory.path(), addr, hosts),
            Kind::Haproxy => haproxy(directory.path(), addr, hosts),
            Kind::Nginx => nginx(directory.path(), addr, hosts),
        };
        let front = Self {
            addr,
            child,
            _directory: directory,
        };
        // The answer of a worker to a request without a transport.
        until("the proxy passes requests on", async || {
            let reply = ask(addr, Request::get("/socket.io/")).await.ok()?;
            (reply.status == 400).then_some(())
        })
        .await;
        front
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.child.kill().expect("kill the proxy");
        self.child.wait().expect("reap the proxy");
    }
}

/// Whether the program is here.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A file of `docs/proxy` with the hosts' addresses instead of those in it, and `replaced` besides.
fn documented(name: &str, hosts: [SocketAddr; 2], replaced: (&str, &str)) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxy").join(name);
    let mut text = std::fs::read_to_string(path).expect("a documented file");
    let hosts = hosts.map(|host| host.to_string());
    let pairs = HOSTS.iter().copied().zip(hosts.iter().map(String::as_str));
    for (from, to) in pairs.chain([replaced]) {
        assert!(text.contains(from), "{name} has no {from:?}");
        text = text.replace(from, to);
    }
    text
}

fn run(command: &mut Command) -> Child {
    let name = command.get_program().to_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    child.unwrap_or_else(|fault| panic!("{name:?}: {fault}: `make test` installs what is missing"))
}

fn nginx(directory: &Path, addr: SocketAddr, hosts: [SocketAddr; 2]) -> Child {
    let site = documented("nginx.conf", hosts, ("listen 80;", &format!("listen {addr};")));
    let own = directory.display();
    // One process, so that nothing outlives it.
    let around = format!(
        "daemon off; master_process off; pid {own}/pid; error_log {own}/error.log;
        events {{ worker_connections 8192; }}
        http {{
            access_log off; client_body_temp_path {own}/body; proxy_temp_path {own}/proxy;
            fastcgi_temp_path {own}/fastcgi; scgi_temp_path {own}/scgi; uwsgi_temp_path {own}/uwsgi;
            include {own}/anyworker.conf;
        }}"
    );
    std::fs::write(directory.join("anyworker.conf"), site).expect("write");
    std::fs::write(directory.join("nginx.conf"), around).expect("write");
    let log = directory.join("error.log");
    run(Command::new("nginx")
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        .arg("-e")
        .arg(log))
}

fn haproxy(directory: &Path, addr: SocketAddr, hosts: [SocketAddr; 2]) -> Child {
    let site = documented("haproxy.cfg", hosts, ("bind :80\n", &format!("bind {addr}\n")));
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, site).expect("write");
    run(Command::new("haproxy").arg("-db").arg("-q").arg("-f").arg(file))
}

fn caddy(directory: &Path, addr: SocketAddr, hosts: [SocketAddr; 2]) -> Child {
    let open = format!("http://{addr} {{\n\tbind {}", addr.ip());
    let site = documented("Caddyfile", hosts, ("chat.example.org {", &open));
    let file = directory.join("Caddyfile");
    std::fs::write(&file, format!("{{\n\tadmin off\n}}\n{site}")).expect("write");
    run(Command::new("caddy")
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(file)
        .env("XDG_DATA_HOME", directory)
        .env("XDG_CONFIG_HOME", directory)
        .stderr(Stdio::null()))
}
