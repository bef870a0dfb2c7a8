//! A Redis of the test's own, on a unix socket, and the little of its protocol that tests need.

use super::process::root;
use super::{soon, until};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A `redis-server` that can be stopped, frozen and started again.
#[derive(Debug)]
pub struct Redis {
    socket: PathBuf,
    directory: PathBuf,
    child: Option<Child>,
    /// It writes an append-only file, and has its data again when it starts again.
    durable: bool,
    /// It wants this password.
    password: Option<&'static str>,
    /// Its clock can be set ([`Redis::set_clock`]).
    clocked: bool,
}

/// An answer of Redis.
#[derive(Clone, Debug, PartialEq)]
pub enum Resp {
    Fault(String),
    Int(i64),
    List(Vec<Self>),
    Nil,
    Text(String),
}

impl Redis {
    /// Starts one in `directory` and waits until it answers. A durable one survives [`Redis::kill`].
    pub async fn start(directory: &Path, durable: bool) -> Self {
        let mut redis = Self::at(&directory.join("redis.sock"));
        redis.durable = durable;
        redis.directory = directory.to_owned();
        redis.again().await;
        redis
    }

    /// Starts one that wants a password, from the first moment on.
    pub async fn locked(directory: &Path, password: &'static str) -> Self {
        let mut redis = Self::at(&directory.join("redis.sock"));
        redis.password = Some(password);
        redis.directory = directory.to_owned();
        redis.again().await;
        redis
    }

    /// Starts one whose clock can be set.
    pub async fn clocked(directory: &Path) -> Self {
        let mut redis = Self::at(&directory.join("redis.sock"));
        redis.directory = directory.to_owned();
        redis.clocked = true;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(directory.join("clock.so"))
            .arg(root().join("tests/harness/clock.c"))
            .status();
        assert!(built.expect("cc, which links this as well").success(), "clock.c");
        redis.set_clock(0);
        redis.again().await;
        redis
    }

    /// From now on its clock is off by so many seconds.
    pub fn set_clock(&self, seconds: i64) {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.directory.join("clock"));
        let written = file.expect("a file").write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("the clock is set");
    }

    /// One that runs elsewhere, to talk to.
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            directory: PathBuf::new(),
            child: None,
            durable: false,
            password: None,
            clocked: false,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Starts it after [`Redis::kill`], empty if it is not durable.
    pub async fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::File::create(self.directory.join("redis.log")).expect("a log file");
        let mut command = Command::new("redis-server");
        if self.clocked {
            command.env("LD_PRELOAD", self.directory.join("clock.so"));
            command.env("CLOCK_FILE", self.directory.join("clock"));
        }
        let child = command
            .args(["--port", "0", "--save", "", "--daemonize", "no"])
            .args(["--appendonly", if self.durable { "yes" } else { "no" }])
            // With `everysec` a Redis that is killed loses what it answered while the disk was busy.
            .args(["--appendfsync", "always"])
            .args(["--unixsocketperm", "700", "--unixsocket"])
            .arg(&self.socket)
            .arg("--dir")
            .arg(&self.directory)
            .args(self.password.iter().flat_map(|password| ["--requirepass", password]))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server: `make test` installs what is missing"));
        until("redis-server answers", async || {
            let answer = self.try_command(&["PING"]).await.ok()?;
            let locked = matches!(&answer, Resp::Fault(error) if error.starts_with("NOAUTH"));
            let ready = locked || answer == Resp::Text("PONG".to_owned());
            ready.then_some(())
        })
        .await;
    }

    /// A number that `INFO` tells.
    pub async fn info(&self, section: &str, field: &str) -> f64 {
        let Resp::Text(info) = self.command(&["INFO", section]).await else {
            panic!("INFO is a text")
        };
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.expect("the field").trim().parse().expect("a number")
    }

    /// Ends it at once, with everything it held unless it is durable.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill redis-server");
        child.wait().expect("reap redis-server");
    }

    /// Sends a signal to it, such as SIGSTOP.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let child = self.child.as_ref().expect("it runs");
        super::process::signal(child.id(), signal);
    }

    /// The answer to a command, which is not an error.
    pub async fn command(&self, words: &[&str]) -> Resp {
        match soon("redis", self.try_command(words)).await.expect("redis") {
            Resp::Fault(fault) => panic!("{words:?}: {fault}"),
            answer @ (Resp::Int(_) | Resp::List(_) | Resp::Nil | Resp::Text(_)) => answer,
        }
    }

    /// The keys that fit a pattern.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let Resp::List(keys) = self.command(&["KEYS", pattern]).await else {
            panic!("KEYS did not answer with a list");
        };
        keys.into_iter()
            .map(|key| match key {
                Resp::Text(text) => text,
                other @ (Resp::Fault(_) | Resp::Int(_) | Resp::List(_) | Resp::Nil) => panic!("a key, not {other:?}"),
            })
            .collect()
    }

    /// The keys that fit a pattern, once there are so many.
    pub async fn keys_when(&self, what: &str, pattern: &str, count: usize) -> Vec<String> {
        until(what, async || {
            Some(self.keys(pattern).await).filter(|keys| keys.len() == count)
        })
        .await
    }

    /// Runs many commands, none of which may fail.
    pub async fn pipeline(&self, commands: &[Vec<String>]) {
        let stream = UnixStream::connect(&self.socket).await.expect("connect");
        let (reader, mut writer) = stream.into_split();
        let mut text = String::new();
        for words in commands {
            text.push_str(&format!("*{}\r\n", words.len()));
            for word in words {
                text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
        }
        let answers = async {
            let mut reader = BufReader::new(reader);
            for _ in commands {
                let answer = answer(&mut reader).await.expect("an answer");
                assert!(!matches!(answer, Resp::Fault(_)), "{answer:?}");
            }
        };
        let written = soon("redis", async {
            tokio::join!(writer.write_all(text.as_bytes()), answers).0
        })
        .await;
        written.expect("write");
    }

    pub async fn try_command(&self, words: &[&str]) -> io::Result<Resp> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.try_bytes(&words).await
    }

    /// The same with words that need not be text.
    pub async fn try_bytes(&self, words: &[&[u8]]) -> io::Result<Resp> {
        exchange(&mut BufReader::new(UnixStream::connect(&self.socket).await?), words).await
    }

    /// A connection that stays, logged in.
    pub async fn hold(&self) -> Held {
        let stream = UnixStream::connect(&self.socket).await.expect("connect");
        let mut held = Held(BufReader::new(stream));
        if let Some(password) = self.password {
            held.command(&["AUTH", password]).await;
        }
        held
    }
}

/// See [`Redis::hold`].
#[derive(Debug)]
pub struct Held(BufReader<UnixStream>);

impl Held {
    /// The answer to a command, which is not an error.
    pub async fn command(&mut self, words: &[&str]) -> Resp {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match soon("redis", exchange(&mut self.0, &bytes)).await.expect("redis") {
            Resp::Fault(fault) => panic!("{words:?}: {fault}"),
            answer @ (Resp::Int(_) | Resp::List(_) | Resp::Nil | Resp::Text(_)) => answer,
        }
    }
}

async fn exchange(stream: &mut BufReader<UnixStream>, words: &[&[u8]]) -> io::Result<Resp> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(*word);
        bytes.extend(b"\r\n");
    }
    stream.write_all(&bytes).await?;
    answer(stream).await
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

async fn answer<R: AsyncRead + Unpin>(stream: &mut BufReader<R>) -> io::Result<Resp> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    let number = || rest.parse::<i64>().map_err(io::Error::other);
    Ok(match kind {
        "+" => Resp::Text(rest.to_owned()),
        "-" => Resp::Fault(rest.to_owned()),
        ":" => Resp::Int(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Resp::Nil,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Resp::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Resp::Nil,
            Ok(count) => {
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(Box::pin(answer(stream)).await?);
                }
                Resp::List(items)
            }
        },
        other => return Err(io::Error::other(format!("answer of kind {other:?}"))),
    })
}
