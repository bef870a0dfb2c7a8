//! An Engine.IO session over long polling, with Socket.IO on top where a test wants it.

use super::{Reply, Request, Server, ask, soon};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use tokio::task::JoinHandle;

/// Ends a packet where another one follows.
pub(crate) const SEPARATOR: char = '\x1e';

/// A polling session. Each request takes a fresh connection, so that it may land on any worker.
#[derive(Clone, Debug)]
pub struct Poller {
    pub addr: SocketAddr,
    pub sid: String,
    path: String,
    /// What its application adds to each query, with a `&` behind it.
    own: String,
    /// What the handshake said.
    pub open: Value,
}

impl Poller {
    /// A session of the Socket.IO endpoint.
    pub async fn open(server: &Server) -> Self {
        Self::open_at(server.addr, "/socket.io/").await
    }

    /// A session of the Engine.IO echo endpoint.
    pub async fn open_echo(server: &Server) -> Self {
        Self::open_at(server.addr, "/engine.io/").await
    }

    pub async fn open_at(addr: SocketAddr, path: &str) -> Self {
        let reply = soon("handshake", Self::handshake(addr, path)).await.expect("handshake");
        Self::opened(addr, path, &reply)
    }

    /// A session of a client that has `own` in the query of every request.
    pub async fn open_with(server: &Server, own: &str) -> Self {
        let target = format!("/socket.io/?{own}&EIO=4&transport=polling");
        let reply = soon("handshake", ask(server.addr, Request::get(&target))).await;
        let poller = Self::opened(server.addr, "/socket.io/", &reply.expect("handshake"));
        let own = format!("{own}&");
        Self { own, ..poller }
    }

    /// The answer to a handshake, whatever it is.
    pub async fn handshake(addr: SocketAddr, path: &str) -> io::Result<Reply> {
        // With the `t` of the official client, by which the server knows that it understands offsets.
        ask(
            addr,
            Request::get(&format!("{path}?EIO=4&transport=polling&t=l87ixmgn")),
        )
        .await
    }

    /// The session that a handshake opened.
    pub fn opened(addr: SocketAddr, path: &str, reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{reply:?}");
        let packet = reply.text().strip_prefix('0').expect("an open packet");
        let open: Value = serde_json::from_str(packet).expect("an open packet alone");
        Self {
            addr,
            sid: open["sid"].as_str().expect("a sid").to_owned(),
            path: path.to_owned(),
            own: String::new(),
            open,
        }
    }

    pub fn target(&self) -> String {
        format!("{}?{}EIO=4&transport=polling&sid={}", self.path, self.own, self.sid)
    }

    /// The target of an upgrade.
    pub fn upgrade_target(&self) -> String {
        format!("{}?{}EIO=4&transport=websocket&sid={}", self.path, self.own, self.sid)
    }

    /// One poll, whatever it brings.
    pub async fn get(&self) -> Reply {
        soon("poll", self.try_get()).await.expect("poll")
    }

    pub async fn try_get(&self) -> io::Result<Reply> {
        ask(self.addr, Request::get(&self.target())).await
    }

    /// The packets of one poll.
    pub async fn poll(&self) -> Vec<String> {
        packets(&self.get().await)
    }

    /// A poll that goes on by itself.
    pub fn park(&self) -> JoinHandle<io::Result<Reply>> {
        let poller = self.clone();
        tokio::spawn(async move { poller.try_get().await })
    }

    pub async fn post(&self, body: impl Into<Vec<u8>>) -> Reply {
        soon("post", self.try_post(body)).await.expect("post")
    }

    pub async fn try_post(&self, body: impl Into<Vec<u8>>) -> io::Result<Reply> {
        ask(self.addr, Request::post(&self.target(), body)).await
    }

    /// A POST that is taken.
    pub async fn say(&self, body: impl Into<Vec<u8>>) {
        assert_eq!(self.post(body).await.pair(), (200, "ok"));
    }

    /// Packets, over as many polls as it takes, until one of them is `last`; what comes along with
    /// it is there too. Pings are answered and left out.
    pub async fn poll_until(&self, last: impl Fn(&str) -> bool) -> Vec<String> {
        let (mut all, mut end) = (Vec::new(), false);
        while !end {
            for packet in self.poll().await {
                if packet == "2" {
                    self.say("3").await;
                    continue;
                }
                assert_ne!(packet, "1", "closed after {all:?}");
                end |= last(&packet);
                all.push(packet);
            }
        }
        all
    }

    /// Polls until the heartbeat's ping has come, and answers it; nothing else may come.
    pub async fn poll_until_ping(&self) {
        loop {
            let packets = self.poll().await;
            if packets == ["2"] {
                return self.say("3").await;
            }
            assert_eq!(packets, ["6"], "neither a ping nor nothing");
        }
    }

    /// Joins `/` and returns the answer without its `40`.
    pub async fn connect(&self) -> Value {
        self.say("40").await;
        let packets = self.poll_until(|packet| packet.starts_with("40")).await;
        let [answer] = packets.as_slice() else {
            panic!("more than an answer to CONNECT: {packets:?}");
        };
        serde_json::from_str(&answer[2..]).expect("an answer to CONNECT")
    }

    /// Emits `42<id>[...]` and returns the arguments of its ack; nothing else may come meanwhile.
    pub async fn call(&self, id: u64, event: &Value) -> Value {
        self.say(format!("42{id}{event}")).await;
        let head = format!("43{id}[");
        let packets = self.poll_until(|packet| packet.starts_with(&head)).await;
        let [ack] = packets.as_slice() else {
            panic!("more than an ack: {packets:?}");
        };
        serde_json::from_str(&ack[head.len() - 1..]).expect("an ack")
    }

    /// The session does not exist any more.
    pub async fn assert_gone(&self) {
        self.get().await.assert_error(1, "Session ID unknown");
    }

    /// Ends the session.
    pub async fn leave(&self) {
        self.say("1").await;
    }
}

/// The packets of an answered poll.
#[track_caller]
pub(crate) fn packets(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text().split(SEPARATOR).map(str::to_owned).collect()
}
