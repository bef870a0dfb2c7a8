//! argv to command; only wiring.

fn main() {}
