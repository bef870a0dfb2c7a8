//! argv to command; only wiring.

mod config;

fn main() {}
