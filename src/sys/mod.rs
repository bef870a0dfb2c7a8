//! System calls of the supervisor, one concern per file.

pub(crate) mod admin;
pub(crate) mod check;
pub(crate) mod elf;
mod environment;
pub(crate) mod forensics;
pub(crate) mod listener;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod program;
pub(crate) mod reap;
pub(crate) mod redis;
pub(crate) mod reexec;
pub(crate) mod runtime;
pub(crate) mod send;
pub(crate) mod signals;
pub(crate) mod spawn;
mod steer;
pub(crate) mod trust;
pub(crate) mod usage;
pub(crate) mod user;
