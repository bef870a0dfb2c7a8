//! Clients of the service in the box: stock ones that keep a diary, and one that only connects.

use crate::boxed::{Boxed, connect, join, pause};
use crate::diary::Diary;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const KNOCK_EVERY: Duration = Duration::from_millis(5);

/// `tests/clients/chaos.mjs` at work.
pub(crate) struct Load(Child);

impl Load {
    /// So many clients, all of them connected.
    pub(crate) fn start(made: &Boxed, members: u32) -> Self {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut child = made
            .beside("node")
            .arg(clients.join("chaos.mjs"))
            .args(["--url", "http://127.0.0.1:8000", "--until-closed"])
            .args(["--members", &members.to_string(), "--rooms", "100", "--pause", "40"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        while !said.ends_with("ready\n") {
            let length = stderr.read_line(&mut said).unwrap();
            assert!(length > 0, "the clients failed: {said}\n{}", made.journal());
        }
        child.stderr = Some(stderr.into_inner());
        Self(child)
    }

    /// They leave when all have received the last message.
    pub(crate) fn end(mut self) -> Diary {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        serde_json::from_str(text.lines().last().expect("a diary")).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Knocks again and again, on a new connection each time.
pub(crate) struct Probe {
    leaving: Arc<AtomicBool>,
    cut: Arc<AtomicU64>,
    /// The number of connects; it ends in a panic if one was refused.
    thread: JoinHandle<u64>,
}

impl Probe {
    pub(crate) fn start(made: &Boxed) -> Self {
        let (leaving, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (their_leaving, their_cut, network) = (leaving.clone(), cut.clone(), made.network());
        let thread = std::thread::spawn(move || {
            join(&network);
            let mut connects = 0;
            while !their_leaving.load(Ordering::SeqCst) {
                if !knock() {
                    their_cut.fetch_add(1, Ordering::SeqCst);
                }
                connects += 1;
                pause(KNOCK_EVERY);
            }
            connects
        });
        Self { leaving, cut, thread }
    }

    /// Requests that were not answered although the connection was there, so far.
    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::SeqCst)
    }

    /// How often it has knocked.
    pub(crate) fn end(self) -> u64 {
        self.leaving.store(true, Ordering::SeqCst);
        self.thread.join().expect("no connection is refused")
    }
}

/// Connects, which must not fail; whether a request was answered.
fn knock() -> bool {
    let mut stream = connect().expect("a connection");
    let mut answer = [0; 12];
    let asked = stream.write_all(b"GET /api/live HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"HTTP/1.1 200"
}
