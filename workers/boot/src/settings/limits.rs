//! `[limits]` of the configuration.

use serde::{Deserialize, Serialize};

/// Defaults of keys that the supervisor of an older build does not know.
const fn buffers_bytes_max() -> usize {
    128 * 1024 * 1024
}

const fn handshakes_max() -> usize {
    20_000
}

/// `[limits]`: per worker unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// `connections_max`: open TCP connections; further ones wait in the accept queue. Default 20 000.
    pub connections_max: usize,
    /// `buffers_bytes_max`: what clients make a worker keep of messages and bodies that are not complete, and of what they
    /// have not read. Default 128 MiB.
    #[serde(default = "buffers_bytes_max")]
    pub buffers_bytes_max: usize,
    /// `handshakes_max`: polling sessions that began here and have joined no namespace yet. Default 20 000.
    #[serde(default = "handshakes_max")]
    pub handshakes_max: usize,
    /// `outbox_bytes_max`: unsent bytes of one connection; beyond it, it is closed. Default 1 MiB.
    pub outbox_bytes_max: usize,
    /// `ws_read_buffer_bytes`: read buffer of one WebSocket. Default 4 096.
    pub ws_read_buffer_bytes: usize,
    /// `events_per_second` of one socket; 0, as of a supervisor that does not know it: any. Default 10 000.
    #[serde(default)]
    pub events_per_second: u64,
    /// `bytes_per_second`, the same. Default 16 MiB.
    #[serde(default)]
    pub bytes_per_second: u64,
}
