//! The supervisor of anyworker: holds the listeners, starts the workers, keeps them running and
//! replaces them without clients noticing. `LIFECYCLE.md` beside this file describes how.

mod cli;
mod config;
mod control;
mod fleet;
mod manual;
mod operator;
mod reactor;
mod run;
mod sys;

pub use cli::{Worker, main};
pub use sys::log::lines_dropped;
pub use sys::spawn::Inherited;
