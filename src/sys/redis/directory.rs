//! The directory of the managed Redis' files: Redis' alone, closed to other users, and locked against other supervisors.

use super::super::trust::{self, Distrust};
use super::super::user::Identity;
use super::PROGRAMS;
use nix::unistd::{Pid, Uid, fchown};
use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tracing::warn;

/// What Redis itself makes in its directory.
pub(super) const OWN_FILES: [&str; 5] = ["appendonly.aof", "appendonlydir", "dump.rdb", "redis.log", "redis.pid"];
/// How the names of its temporary files begin.
const OWN_TEMPORARY: &str = "temp-";
/// Permission bits of users that are neither the owner nor in the group.
const FOR_OTHERS: u32 = 0o007;

/// Why the directory of its files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It must not be used.
    #[error("redis.directory: {0}")]
    Distrust(#[from] Distrust),
    /// It is readable, and not Redis' alone.
    #[error(
        "redis.directory: other users may look into {path}, and since `{other}` there is none of Redis' files, it is not \
         closed to them; `chmod 700` it, or name a directory for Redis alone"
    )]
    Readable {
        /// The directory.
        path: PathBuf,
        /// One of the entries that are not Redis'.
        other: String,
    },
    /// Another supervisor's Redis works there.
    #[error(
        "already running: another supervisor keeps its Redis in {path}; stop it with `anyworker stop`, or give this one \
         another redis.directory"
    )]
    Used {
        /// The directory.
        path: PathBuf,
    },
    /// A step failed.
    #[error("redis.directory: {step} {path}: {source}; choose a directory that this user owns")]
    Io {
        /// The failed step.
        step: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the directory of its files if it is missing, private to the user that Redis runs as, and locks it against other
/// supervisors, if its file system can lock directories. The lock lasts as long as the answer.
///
/// # Errors
/// When it cannot be created, closed to other users or given away, or is in use.
pub(crate) fn claim(directory: &Path, identity: Option<&Identity>) -> Result<Option<File>, DirectoryError> {
    let failed = |step| {
        let path = directory.to_owned();
        move |source| DirectoryError::Io { step, path, source }
    };
    let owner: Option<Uid> = identity.map(|identity| identity.uid);
    let home = trust::directory(directory, owner.as_slice())?;
    match home.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DirectoryError::Used {
                path: directory.to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, path = %directory.display(), "directory not locked");
        }
    }
    let found = home.metadata().map_err(failed("looking at"))?;
    if let Some(identity) = identity.filter(|identity| identity.uid.as_raw() != found.uid()) {
        fchown(&home, Some(identity.uid), Some(identity.gid))
            .map_err(io::Error::from)
            .map_err(failed("giving away"))?;
    }
    if found.mode() & FOR_OTHERS != 0 {
        if let Some(other) = stranger(directory).map_err(failed("reading"))? {
            let path = directory.to_owned();
            return Err(DirectoryError::Readable { path, other });
        }
        home.set_permissions(Permissions::from_mode(0o700))
            .map_err(failed("closing to other users"))?;
        warn!(directory = %directory.display(), "redis.directory was open to other users and is closed to them now");
    }
    Ok(Some(home))
}

/// An entry of the directory that Redis does not make.
fn stranger(directory: &Path) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !OWN_FILES.contains(&name.as_str()) && !name.starts_with(OWN_TEMPORARY) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Where Redis writes its process id.
pub(super) fn pid_file(directory: &Path) -> PathBuf {
    directory.join("redis.pid")
}

/// A server of ours that outlived its supervisor: named by our pid file, and working in our
/// directory.
pub(super) fn survivor(directory: &Path) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(pid_file(directory)).ok()?.trim().parse().ok()?;
    let work = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let ours = work == std::fs::canonicalize(directory).ok()? && PROGRAMS.contains(&program.trim());
    ours.then(|| Pid::from_raw(pid))
}
