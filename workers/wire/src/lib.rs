//! Engine.IO v4 and Socket.IO v5 packets: parse, encode, limits. Pure: no I/O, no clock
//!
//! An Engine.IO packet is read by [`engine::decode`] (WebSocket text frame) or
//! [`engine::decode_payload`] (polling body); what its `Message` holds is read by
//! [`socket::decode`]. Both borrow from the input: JSON is validated in one pass and kept as raw
//! text, never as a tree. Memory and stack stay bounded whatever a peer sends.
//! What others put into Redis for our clients is read by [`foreign`].
//! Answers are appended to a `String` that starts with [`engine::message`].

mod base64;
pub mod engine;
mod error;
pub mod foreign;
pub mod json;
pub mod socket;

pub use error::Error;

#[cfg(test)]
mod property;
