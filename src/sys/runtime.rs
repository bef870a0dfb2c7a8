//! The runtime directory: lock, control socket and managed Redis live there, nothing else does.

use super::user::Identity;
use nix::unistd::{chown, getpid};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a unix socket on Linux (bytes, without the final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The runtime directory of a living supervisor; the lock goes with it.
#[derive(Debug)]
pub(crate) struct Runtime {
    directory: PathBuf,
    lock: File,
}

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// A step failed.
    #[error("runtime.directory: {step} {path}: {source}; choose a directory that this user can write to")]
    Io {
        /// The failed step.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another supervisor is alive.
    #[error(
        "already running: a supervisor (pid {pid}) holds {path}; stop it with `anyworker stop`, \
         or give this one another runtime.directory"
    )]
    Locked {
        /// Its process id, as far as known.
        pid: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The path of a socket would not fit into its address.
    #[error("runtime.directory: {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter directory")]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
}

/// Path of the control socket below a runtime directory.
#[must_use]
pub(crate) fn control_socket(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

impl Runtime {
    /// Creates the directory if missing and locks it for this process.
    ///
    /// # Errors
    /// When it cannot be written, or another supervisor holds it.
    pub(crate) fn claim(directory: &Path) -> Result<Self, RuntimeError> {
        let path = control_socket(directory);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(RuntimeError::TooLong { path });
        }
        let io_error = |step, path: &Path| {
            let path = path.to_owned();
            move |source| RuntimeError::Io { step, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io_error("creating", directory))?;
        let lock_path = directory.join("supervisor.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_error("opening", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The number is a courtesy; without it the message still stands.
                if lock.read_to_string(&mut pid).is_err() || pid.trim().is_empty() {
                    pid = "unknown".to_owned();
                }
                return Err(RuntimeError::Locked {
                    pid: pid.trim().to_owned(),
                    path: lock_path,
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(RuntimeError::Io {
                    step: "locking",
                    path: lock_path,
                    source,
                });
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", getpid()))
            .map_err(io_error("writing", &lock_path))?;
        Ok(Self {
            directory: directory.to_owned(),
            lock,
        })
    }

    /// The descriptor that holds the lock, for the next supervisor process.
    #[must_use]
    pub(crate) fn lock(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    /// The directory and the lock of the former supervisor process.
    #[must_use]
    pub(crate) fn inherit(directory: PathBuf, lock: OwnedFd) -> Self {
        Self {
            directory,
            lock: lock.into(),
        }
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lets workers (and Redis) of another user create and reach sockets here, without letting
    /// them remove ours: group of that user, sticky.
    ///
    /// # Errors
    /// When owner or mode cannot be changed.
    pub(crate) fn admit(&self, identity: &Identity) -> Result<(), RuntimeError> {
        let io_error = |source| RuntimeError::Io {
            step: "opening for workers.user",
            path: self.directory.clone(),
            source,
        };
        chown(&self.directory, None, Some(identity.gid))
            .map_err(io::Error::from)
            .map_err(io_error)?;
        fs::set_permissions(&self.directory, Permissions::from_mode(0o1770)).map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_supervisor() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("a/b");
        let first = Runtime::claim(&directory).unwrap();
        let error = Runtime::claim(&directory).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("already running: a supervisor (pid {})", getpid())),
            "{error}"
        );
        drop(first);
        Runtime::claim(&directory).unwrap();
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let directory = PathBuf::from("/tmp").join("x".repeat(100));
        assert!(matches!(Runtime::claim(&directory), Err(RuntimeError::TooLong { .. })));
    }
}
