//! Whole-process tests of the supervisor.

fn main() {}
