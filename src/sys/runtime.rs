//! The runtime directory: lock, control socket and managed Redis live there, nothing else does.
//!
//! A living owner is known by locks (`flock`) on the lock file and on the directory itself, so that it is still known when
//! a cleaner has removed files. Missing files are restored (`Runtime::restore`).

use super::trust::{self, Distrust, Inode};
use super::user::Identity;
use nix::unistd::{Uid, fchown, getpid};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest path of a unix socket on Linux (bytes, without the final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// How often the supervisor looks whether its files are still there: a command that finds no control socket can be
/// repeated after this time.
pub(crate) const RESTORE_EVERY: Duration = Duration::from_secs(2);

/// The runtime directory of a living supervisor; the locks go with it.
#[derive(Debug)]
pub(crate) struct Runtime {
    directory: PathBuf,
    lock: File,
    /// The directory itself, locked. None where the file system does not lock directories, and right after an upgrade.
    home: Option<File>,
}

/// Why the runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// It, or the lock file in it, must not be used.
    #[error("runtime.directory: {0}")]
    Distrust(#[from] Distrust),
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
        /// What it holds.
        path: PathBuf,
    },
    /// The path of a socket would not fit into its address.
    #[error("runtime.directory: {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose a shorter directory")]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
}

impl RuntimeError {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }
}

/// Path of the control socket below a runtime directory.
#[must_use]
pub(crate) fn control_socket(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// Path of the lock file below a runtime directory.
fn lock_file(directory: &Path) -> PathBuf {
    directory.join("supervisor.lock")
}

/// The process that holds the locks of a runtime directory, as `/proc/locks` tells it: nothing is locked for this
/// question, so that it is in the way of no start.
pub(crate) fn holder(directory: &Path) -> Option<i32> {
    let inodes = [directory.to_owned(), lock_file(directory)].map(|path| Inode::behind(&path));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| parse_holder(line, &inodes))
}

/// Judges a runtime directory as a start of its fleet would, for any caller: the owner of the lock file of a supervisor that
/// runs is trusted besides root and us.
///
/// # Errors
/// When a start would refuse it.
pub(crate) fn look(directory: &Path) -> Result<(), Distrust> {
    let lock = fs::symlink_metadata(lock_file(directory)).ok();
    let owner = lock.filter(|_| holder(directory).is_some());
    let owner = owner.map(|found| Uid::from_raw(found.uid()));
    trust::look(directory, owner.as_slice())
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`. The device is left out: some file systems show another one here
/// than in `stat(2)`.
fn parse_holder(line: &str, inodes: &[Option<Inode>]) -> Option<i32> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK");
    let mut words = words.by_ref().skip(3);
    let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
    let number: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
    let is_ours = inodes.iter().flatten().any(|inode| inode.number() == number);
    is_ours.then_some(pid)
}

/// Locks a directory; none where that is not supported.
pub(crate) fn lock_directory(home: File, path: &Path) -> Result<Option<File>, RuntimeError> {
    match home.try_lock() {
        Ok(()) => Ok(Some(home)),
        Err(TryLockError::WouldBlock) => Err(RuntimeError::Locked {
            pid: holder(path)
                .map(|pid| pid.to_string())
                .or_else(|| fs::read_to_string(lock_file(path)).ok())
                .map_or_else(|| "unknown".to_owned(), |pid| pid.trim().to_owned()),
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, path = %path.display(), "directory not locked");
            Ok(None)
        }
    }
}

/// Opens and locks the lock file, and writes our process id into it.
fn lock(path: PathBuf) -> Result<File, RuntimeError> {
    let mut lock = trust::file(&path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The number is a courtesy; without it the message still stands.
            if lock.read_to_string(&mut pid).is_err() || pid.trim().is_empty() {
                pid = "unknown".to_owned();
            }
            let pid = pid.trim().to_owned();
            return Err(RuntimeError::Locked { pid, path });
        }
        Err(TryLockError::Error(source)) => return Err(RuntimeError::io("locking", &path)(source)),
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", getpid()))
        .map_err(RuntimeError::io("writing", &path))?;
    Ok(lock)
}

impl Runtime {
    /// Creates the directory if missing and locks it for this process.
    ///
    /// # Errors
    /// When it cannot be written or trusted, or another supervisor holds it.
    pub(crate) fn claim(directory: &Path) -> Result<Self, RuntimeError> {
        let path = control_socket(directory);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(RuntimeError::TooLong { path });
        }
        // The directory first: its holder may have lost its lock file, which then must not be made here.
        let home = lock_directory(trust::directory(directory, &[])?, directory)?;
        Ok(Self {
            lock: lock(lock_file(directory))?,
            directory: directory.to_owned(),
            home,
        })
    }

    /// Restores directory and lock file if they were removed; returns which ones, for the log.
    ///
    /// # Errors
    /// When they cannot be made, or another supervisor has made them meanwhile.
    pub(crate) fn restore(&mut self, identity: Option<&Identity>) -> Result<Option<&'static str>, RuntimeError> {
        let home = self.home.as_ref().and_then(Inode::open);
        let is_home = home.is_some() && home == Inode::behind(&self.directory);
        let lock_path = lock_file(&self.directory);
        let is_locked = Inode::open(&self.lock).is_some_and(|own| Inode::at(&lock_path) == Some(own));
        if is_home && is_locked {
            return Ok(None);
        }
        if !is_locked {
            let is_new = !self.directory.exists();
            trust::directory(&self.directory, &[])?;
            self.lock = lock(lock_path)?;
            if is_new && let Some(identity) = identity {
                self.admit(identity)?;
            }
        }
        if !is_home {
            self.home = lock_directory(trust::directory(&self.directory, &[])?, &self.directory)?;
        }
        Ok((!is_locked).then_some(if is_home { "lock file" } else { "runtime directory" }))
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
            home: None,
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
        let io_error = || RuntimeError::io("opening for workers.user", &self.directory);
        let home = trust::directory(&self.directory, &[])?;
        fchown(&home, None, Some(identity.gid))
            .map_err(io::Error::from)
            .map_err(io_error())?;
        home.set_permissions(Permissions::from_mode(0o1770)).map_err(io_error())
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
    fn a_removed_lock_file_lets_no_second_supervisor_in() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("run");
        let mut first = Runtime::claim(&directory).unwrap();
        assert_eq!(first.restore(None).unwrap(), None, "nothing is missing");
        fs::remove_file(lock_file(&directory)).unwrap();
        let error = Runtime::claim(&directory).unwrap_err();
        assert!(matches!(error, RuntimeError::Locked { .. }), "{error}");
        assert!(!lock_file(&directory).exists(), "a refused start leaves nothing behind");
        assert_eq!(first.restore(None).unwrap(), Some("lock file"));
        assert_eq!(first.restore(None).unwrap(), None);
        let text = fs::read_to_string(lock_file(&directory)).unwrap();
        assert_eq!(text.trim(), getpid().to_string());
        assert!(matches!(Runtime::claim(&directory), Err(RuntimeError::Locked { .. })));
    }

    #[test]
    fn a_removed_directory_is_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("a/run");
        let mut first = Runtime::claim(&directory).unwrap();
        for removed in ["a", "a/run"] {
            fs::remove_dir_all(scratch.path().join(removed)).unwrap();
            assert_eq!(first.restore(None).unwrap(), Some("runtime directory"));
            assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
            assert!(matches!(Runtime::claim(&directory), Err(RuntimeError::Locked { .. })));
        }
        // Another supervisor was faster: nothing of it is touched.
        fs::remove_dir_all(&directory).unwrap();
        let second = Runtime::claim(&directory).unwrap();
        assert!(matches!(first.restore(None), Err(RuntimeError::Locked { .. })));
        drop(second);
        assert_eq!(first.restore(None).unwrap(), Some("runtime directory"));
    }

    #[test]
    fn after_an_upgrade_the_directory_is_locked_again() {
        let scratch = tempfile::tempdir().unwrap();
        let first = Runtime::claim(scratch.path()).unwrap();
        let Runtime { directory, lock, home } = first;
        drop(home);
        let mut next = Runtime::inherit(directory, lock.into());
        assert_eq!(next.restore(None).unwrap(), None);
        fs::remove_file(lock_file(scratch.path())).unwrap();
        assert!(matches!(
            Runtime::claim(scratch.path()),
            Err(RuntimeError::Locked { .. })
        ));
    }

    #[test]
    fn nothing_is_claimed_where_others_write() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("run");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let error = Runtime::claim(&directory).unwrap_err().to_string();
        assert!(
            error.starts_with("runtime.directory: other users may write in"),
            "{error}"
        );
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        let precious = scratch.path().join("precious");
        fs::write(&precious, "keep").unwrap();
        std::os::unix::fs::symlink(&precious, lock_file(&directory)).unwrap();
        let error = Runtime::claim(&directory).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "keep");
    }

    #[test]
    fn a_holder_is_found_among_the_locks_of_the_kernel() {
        let scratch = tempfile::tempdir().unwrap();
        let inode = [Inode::at(scratch.path())];
        let number = inode[0].unwrap().number();
        for (line, pid) in [
            (
                format!("1: FLOCK  ADVISORY  WRITE 1234 fd:01:{number} 0 EOF"),
                Some(1234),
            ),
            (format!("2: FLOCK  ADVISORY  WRITE 7 00:2a:{} 0 EOF", number + 1), None),
            (format!("3: POSIX  ADVISORY  WRITE 7 fd:01:{number} 0 EOF"), None),
            (format!("1: FLOCK  ADVISORY  WRITE -1 fd:01:{number} 0 EOF"), None),
            (format!("1: -> FLOCK  ADVISORY  WRITE 0 fd:01:{number} 0 EOF"), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_holder(&line, &inode), pid, "{line}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let directory = PathBuf::from("/tmp").join("x".repeat(100));
        assert!(matches!(Runtime::claim(&directory), Err(RuntimeError::TooLong { .. })));
    }
}
