//! Exit codes, shared by supervisor and workers.

/// Why a process ended; the numbers follow `sysexits.h`. The supervisor's restart policy and
/// systemd's `RestartPreventExitStatus=` read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Drained and stopped as asked.
    Done = 0,
    /// The command line could not be understood (`EX_USAGE`).
    Usage = 64,
    /// A program error: a bug, or a system call that must not fail did (`EX_SOFTWARE`).
    Internal = 70,
    /// Something that it depends on (usually Redis) was not there in time (`EX_TEMPFAIL`).
    Dependency = 75,
    /// The configuration cannot work; restarting does not help (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// The number for `exit(2)`.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a number, if it is one of ours.
    #[must_use]
    pub const fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Done),
            64 => Some(Self::Usage),
            70 => Some(Self::Internal),
            75 => Some(Self::Dependency),
            78 => Some(Self::Config),
            _ => None,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
