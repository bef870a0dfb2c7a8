//! The contract between supervisor and worker: the only types that cross the process boundary.
//!
//! A worker is the same executable, started by fork and exec as `anyworker worker`. It inherits
//! file descriptors at fixed numbers ([`fd`]), reads its [`Setup`] once, and from then on the two
//! processes exchange [`ToWorker`] and [`ToSupervisor`], one JSON value per `SOCK_SEQPACKET`
//! message. End of file on that socket means that the other side is gone.

pub mod descriptors;
mod exit;
mod handover;
mod message;
pub mod origin;
mod settings;
mod supervision;
mod version;

pub use exit::Exit;
pub use handover::{Freezes, Handover};
pub use message::{Beat, Incarnation, MESSAGE_BYTES_MAX, MessageError, Setup, ToSupervisor, ToWorker, decode, encode};
pub use meter;
pub use settings::*;
pub use supervision::{Process, ReloadResult, Restart, Supervision, WorkerState};
pub use version::VERSION;

/// Numbers of the file descriptors that a worker inherits. Nothing else stays open across exec,
/// apart from standard input, output and error.
pub mod fd {
    /// The worker's end of the control socketpair (`SOCK_SEQPACKET`).
    pub const CONTROL: i32 = 3;
    /// A memfd, rewound, holding the [`crate::Setup`] as JSON.
    pub const SETUP: i32 = 4;
    /// The first listener of the slot; the others follow it, [`crate::Setup::listeners`] in all, and then,
    /// with [`crate::Setup::admin`], the one that all workers share.
    pub const LISTENERS: i32 = 5;
}
