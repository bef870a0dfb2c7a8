//! What attackers have in common.

use crate::harness::{Server, Wire, soon};
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// So many of them open their connections at a time: a server has a short queue for new ones.
const OPENED_AT_ONCE: usize = 16;
const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// What each of so many attackers has done, in any order.
pub(crate) async fn each<T>(count: usize, attack: impl AsyncFn(usize) -> T) -> Vec<T> {
    let attack = &attack;
    let all = stream::iter(0..count).map(async |number| attack(number).await);
    all.buffer_unordered(OPENED_AT_ONCE).collect().await
}

/// A connection that receives as little as the system allows. They come from many addresses, as there are only so many
/// ports of each.
pub(crate) async fn slow_connection(addr: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let source = [127, 0, 0, 2 + u8::try_from(number % 200).expect("a byte")];
    socket.bind((source, 0).into()).expect("an address");
    soon("connect", socket.connect(addr)).await.expect("connect")
}

/// A WebSocket over such a connection, with nothing joined.
pub(crate) async fn not_reading(addr: SocketAddr, number: usize) -> Wire {
    let stream = slow_connection(addr, number).await;
    let mut wire = Wire::dial_on(stream, addr, SOCKET, &[]).await.expect("a WebSocket");
    assert!(wire.text().await.starts_with("0{"));
    wire
}

/// A client in the namespace `/`.
pub(crate) async fn member(server: &Server) -> Wire {
    let mut wire = Wire::open(server).await;
    wire.connect().await;
    wire
}

/// A client in the namespace `/` and in a room of it.
pub(crate) async fn joined(server: &Server, room: &str) -> Wire {
    let mut wire = member(server).await;
    assert_eq!(wire.call(0, &json!(["join", room])).await, json!(["ok"]));
    wire
}
