//! The path that this program was started by, links and all. A reload opens it again: a link that has been changed
//! meanwhile (`/opt/app/current`) leads to another binary then.

use super::trust::Inode;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the kernel appends to the path of an executable that was removed.
const DELETED: &[u8] = b" (deleted)";

/// Where the binary of the next generation is looked for: the path that this program was started by, or else the one that
/// the kernel knows, which has no links.
///
/// # Errors
/// When `/proc` is not mounted.
pub(crate) fn path() -> io::Result<PathBuf> {
    started_by().map_or_else(|| Ok(without_mark(&env::current_exe()?)), Ok)
}

/// The path that this program was started by, if it still leads to the running binary; `argv[0]` may say anything.
pub(crate) fn started_by() -> Option<PathBuf> {
    let own = Inode::behind(Path::new("/proc/self/exe"))?;
    let start = Start {
        argv0: env::args_os().next()?,
        path: env::var_os("PATH").unwrap_or_default(),
        directory: working_directory()?,
    };
    start.find(|path| Inode::behind(path) == Some(own))
}

/// With the links that a shell went through (`$PWD`), or without.
fn working_directory() -> Option<PathBuf> {
    let real = env::current_dir().ok()?;
    let logical = env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(
        logical
            .filter(|path| Inode::behind(path) == Inode::behind(&real))
            .unwrap_or(real),
    )
}

/// `/usr/bin/anyworker (deleted)` → `/usr/bin/anyworker`
fn without_mark(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    PathBuf::from(OsStr::from_bytes(bytes.strip_suffix(DELETED).unwrap_or(bytes)))
}

/// What a process is started with.
struct Start {
    argv0: OsString,
    /// Directories, separated by colons.
    path: OsString,
    directory: PathBuf,
}

impl Start {
    /// The first path that the words may have meant and that leads to the running binary, as `execvp(3)` looks for it:
    /// a word without a slash is searched in PATH.
    fn find(&self, is_own: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let word = Path::new(&self.argv0);
        if self.argv0.as_bytes().contains(&b'/') {
            let path = self.directory.join(word);
            return Some(path).filter(|path| is_own(path));
        }
        env::split_paths(&self.path)
            .map(|directory| self.directory.join(directory).join(word))
            .find(|path| is_own(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(argv0: &str, own: &str) -> Option<PathBuf> {
        let start = Start {
            argv0: argv0.into(),
            path: "/usr/bin:tools::/opt/bin".into(),
            directory: "/srv/current".into(),
        };
        start.find(|path| path == Path::new(own))
    }

    #[test]
    fn what_was_written_is_kept() {
        for (argv0, path) in [
            ("/opt/current/anyworker", "/opt/current/anyworker"),
            ("./anyworker", "/srv/current/./anyworker"),
            ("../bin/anyworker", "/srv/current/../bin/anyworker"),
            ("bin/anyworker", "/srv/current/bin/anyworker"),
            ("anyworker", "/usr/bin/anyworker"),
            ("anyworker", "/opt/bin/anyworker"),
            // Relative and empty parts of PATH are the working directory's.
            ("anyworker", "/srv/current/tools/anyworker"),
            ("anyworker", "/srv/current/anyworker"),
        ] {
            assert_eq!(find(argv0, path).as_deref(), Some(Path::new(path)), "{argv0}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_believed() {
        for argv0 in ["-anyworker", "anyworker", "/bin/sh", "", "anyworker: master"] {
            assert_eq!(find(argv0, "/somewhere/else"), None, "{argv0}");
        }
    }

    #[test]
    fn the_mark_of_the_kernel_is_no_part_of_the_name() {
        for (said, path) in [
            ("/a/anyworker (deleted)", "/a/anyworker"),
            ("/a/anyworker", "/a/anyworker"),
            ("/a (deleted)/anyworker", "/a (deleted)/anyworker"),
        ] {
            assert_eq!(without_mark(Path::new(said)), Path::new(path));
        }
    }

    #[test]
    fn this_program_finds_itself() {
        let found = started_by().unwrap();
        assert_eq!(Inode::behind(&found), Inode::behind(Path::new("/proc/self/exe")));
    }
}
