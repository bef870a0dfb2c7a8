//! The application side: the trait, and the built-in application `relay`.
//!
//! An application decides and the gateway acts: a handler looks at what came and returns what is to
//! be done, so that it behaves the same on every transport and worker, and needs no client, no
//! Redis and no clock in its tests.

mod application;
mod deferred;
mod relay;

pub use application::{Action, Admission, App, Arguments, Connecting, Former, Reaction, Sender, WHO_BYTES_MAX};
pub use deferred::Deferred;
pub use relay::{EventNames, Relay};
