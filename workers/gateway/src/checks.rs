//! The configured checks (`[checks]`): carried out, not remembered.

use boot::{Check, Probe};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The first line of an HTTP answer fits into this (bytes).
const STATUS_LINE_BYTES: usize = 64;

/// Whose turn it is to try each path of the checks.
pub(crate) struct Disks(BTreeMap<PathBuf, Arc<Semaphore>>);

impl Disks {
    /// Those of these checks.
    pub(crate) fn of<'a>(checks: impl Iterator<Item = &'a Check>) -> Self {
        let paths = checks.filter_map(|check| match &check.probe {
            Probe::WritablePath { path } => Some(path.clone()),
            Probe::Http { .. } | Probe::Tcp { .. } => None,
        });
        Self(paths.map(|path| (path, Arc::new(Semaphore::new(1)))).collect())
    }

    /// Tried, not asked: permissions do not tell about full disks and read-only mounts. In a thread, because a mount whose
    /// server is away blocks every writer for as long as it likes; only one at a time is blocked.
    async fn is_writable(&self, path: &PathBuf) -> bool {
        let Some(turns) = self.0.get(path) else { return false };
        let Ok(turn) = turns.clone().acquire_owned().await else {
            return false;
        };
        let file = path.join(format!(".anyworker-check-{}", std::process::id()));
        let tried = spawn_blocking(move || {
            let written = std::fs::write(&file, b"ok").is_ok();
            let removed = std::fs::remove_file(&file).is_ok();
            drop(turn);
            written && removed
        });
        tried.await.unwrap_or(false)
    }
}

/// Whether a check passes, in the time that it has.
pub(crate) async fn passes(disks: &Disks, check: &Check) -> bool {
    let probe = async {
        match &check.probe {
            Probe::Http { authority, path } => http_ok(authority, path).await,
            Probe::Tcp { address } => TcpStream::connect(address).await.is_ok(),
            Probe::WritablePath { path } => disks.is_writable(path).await,
        }
    };
    timeout(check.timeout, probe).await.unwrap_or(false)
}

async fn http_ok(authority: &str, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(authority).await else {
        return false;
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut line = Vec::new();
    while line.len() < STATUS_LINE_BYTES && !line.contains(&b'\n') {
        match stream.read_buf(&mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    line.starts_with(b"HTTP/1.") && line.get(9) == Some(&b'2')
}
