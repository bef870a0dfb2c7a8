//! The worker: accept, HTTP, WebSocket, hub, tailer, drain
