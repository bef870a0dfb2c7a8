//! Place of the operator commands that need the store; and what live views are drawn with.

pub mod screen;
