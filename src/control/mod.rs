//! The control socket, and the commands that talk to it.
//!
//! One connection carries one request and one answer, each a line of JSON. `reload --wait` is
//! answered when the reload has ended; `stop` keeps the connection open until the supervisor is
//! gone, so that its end of file means just that.

pub(crate) mod client;
pub(crate) mod protocol;
pub(crate) mod server;
mod view;
pub(crate) mod watch;
