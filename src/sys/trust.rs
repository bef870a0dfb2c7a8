//! Whether a directory or a file can be trusted: no other user owns it, can write there, or has put a link in its place.
//! Whatever the supervisor creates, locks or truncates below a shared directory (`/tmp`) goes through here.

use nix::unistd::{Uid, User, getegid, geteuid};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// Only the owner of an entry, or of the directory, may remove it.
const STICKY: u32 = 0o1000;

/// Why it is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Distrust {
    /// Another user owns it.
    #[error(
        "{path} belongs to user {owner}, who could exchange what is in it; name a directory of your own, or remove it"
    )]
    Owner {
        /// What.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Other users may write in it.
    #[error(
        "other users may write in {path} (mode {mode:04o}); `chmod 700` it, or name a directory below it that does not exist yet"
    )]
    Writable {
        /// What.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link that another user made, or that leads to a file.
    #[error("{path} is a symbolic link of user {owner} and is not followed; name the real path, or remove the link")]
    Link {
        /// What.
        path: PathBuf,
        /// The user id of the link's owner.
        owner: u32,
    },
    /// It is something else than expected.
    #[error("{path} is no {wanted}; remove it, or name another directory")]
    Kind {
        /// What.
        path: PathBuf,
        /// `directory`, `regular file` or `regular file of one name`.
        wanted: &'static str,
    },
    /// A step failed.
    #[error("{step} {path}: {source}; choose a directory that this user can write to")]
    Io {
        /// The failed step.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Distrust {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }
}

/// What decides, as `fstat(2)` tells it.
#[derive(Clone, Copy, Debug)]
struct Facts {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl From<&Metadata> for Facts {
    fn from(found: &Metadata) -> Self {
        Self {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode() & 0o7777,
        }
    }
}

/// Whether this user id is root, this process's own, or one of `owners`.
fn is_trusted(uid: u32, owners: &[Uid]) -> bool {
    uid == 0 || uid == geteuid().as_raw() || owners.iter().any(|owner| owner.as_raw() == uid)
}

/// A group that may write is trusted if it is our own, or if it cannot remove what is ours (sticky: `Runtime::admit`).
fn is_open(facts: Facts, own_group: u32) -> bool {
    let group = facts.mode & WRITABLE_BY_GROUP != 0 && facts.mode & STICKY == 0 && facts.gid != own_group;
    facts.mode & WRITABLE_BY_OTHERS != 0 || group
}

/// Creates a directory for this user alone if it is missing, and opens it if it can be trusted. `owners` may own it
/// besides root and this process's own user.
///
/// # Errors
/// When it cannot be created, or must not be used.
pub(crate) fn directory(path: &Path, owners: &[Uid]) -> Result<File, Distrust> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            if error.kind() != ErrorKind::AlreadyExists {
                return Distrust::io("creating", path)(error);
            }
            // A link of another user is not even looked through in a sticky directory (`fs.protected_symlinks`).
            match path.symlink_metadata() {
                Ok(link) if link.is_symlink() && !is_trusted(link.uid(), owners) => Distrust::Link {
                    path: path.to_owned(),
                    owner: link.uid(),
                },
                _ => Distrust::Kind {
                    path: path.to_owned(),
                    wanted: "directory",
                },
            }
        })?;
    // A link of our own or of root leads to where we want (DynamicUser= of systemd makes one).
    let link = path.symlink_metadata().map_err(Distrust::io("looking at", path))?;
    let is_followed = link.is_symlink() && is_trusted(link.uid(), owners);
    let flags = nix::libc::O_DIRECTORY | if is_followed { 0 } else { nix::libc::O_NOFOLLOW };
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let opened = match opened {
        Err(error) if link.is_symlink() && !is_followed => {
            tracing::debug!(%error, path = %path.display(), "link not followed");
            return Err(Distrust::Link {
                path: path.to_owned(),
                owner: link.uid(),
            });
        }
        opened => opened.map_err(Distrust::io("opening", path))?,
    };
    let found = opened.metadata().map_err(Distrust::io("looking at", path))?;
    judge(path, Facts::from(&found), owners, getegid().as_raw())?;
    Ok(opened)
}

/// Judges a directory as [`directory`] does, and changes nothing: a missing one is fine. For commands that ask about a fleet,
/// maybe as root while it runs as another user, who is then in `owners`.
///
/// # Errors
/// When a start of one of `owners` would refuse it.
pub(crate) fn look(path: &Path, owners: &[Uid]) -> Result<(), Distrust> {
    let link = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(Distrust::io("looking at", path))?,
    };
    if link.is_symlink() && !is_trusted(link.uid(), owners) {
        return Err(Distrust::Link {
            path: path.to_owned(),
            owner: link.uid(),
        });
    }
    let found = path.metadata().map_err(Distrust::io("looking at", path))?;
    if !found.is_dir() {
        return Err(Distrust::Kind {
            path: path.to_owned(),
            wanted: "directory",
        });
    }
    // Its owner's group is not ours.
    let theirs = User::from_uid(Uid::from_raw(found.uid())).ok().flatten();
    let own_group = if found.uid() == geteuid().as_raw() {
        getegid()
    } else {
        theirs.map_or_else(getegid, |user| user.gid)
    };
    judge(path, Facts::from(&found), owners, own_group.as_raw())
}

fn judge(path: &Path, facts: Facts, owners: &[Uid], own_group: u32) -> Result<(), Distrust> {
    if !is_trusted(facts.uid, owners) {
        return Err(Distrust::Owner {
            path: path.to_owned(),
            owner: facts.uid,
        });
    }
    if is_open(facts, own_group) {
        return Err(Distrust::Writable {
            path: path.to_owned(),
            mode: facts.mode,
        });
    }
    Ok(())
}

/// Opens a file of ours for reading and writing, and creates it for this user alone if it is missing. It is not
/// truncated.
///
/// # Errors
/// When it cannot be created, or is a link, or belongs to another user.
pub(crate) fn file(path: &Path) -> Result<File, Distrust> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path);
    let opened = match opened {
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            let owner = path.symlink_metadata().map_err(Distrust::io("looking at", path))?.uid();
            return Err(Distrust::Link {
                path: path.to_owned(),
                owner,
            });
        }
        opened => opened.map_err(Distrust::io("opening", path))?,
    };
    let found = opened.metadata().map_err(Distrust::io("looking at", path))?;
    if !is_trusted(found.uid(), &[]) {
        return Err(Distrust::Owner {
            path: path.to_owned(),
            owner: found.uid(),
        });
    }
    // Another name of it may be a file that is needed.
    if !found.is_file() || found.nlink() > 1 {
        return Err(Distrust::Kind {
            path: path.to_owned(),
            wanted: "regular file of one name",
        });
    }
    Ok(opened)
}

/// Which file of the system it is: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Inode(u64, u64);

impl Inode {
    /// Of what is at a path now, a link itself; none if nothing is.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().as_ref().map(Self::of)
    }

    /// The same, of where a link leads.
    pub(crate) fn behind(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::of)
    }

    /// Of an open file.
    pub(crate) fn open(file: &File) -> Option<Self> {
        file.metadata().ok().as_ref().map(Self::of)
    }

    fn of(found: &Metadata) -> Self {
        Self(found.dev(), found.ino())
    }

    /// The number within its file system.
    pub(crate) const fn number(self) -> u64 {
        self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    const GROUP: u32 = 100;

    fn open(mode: u32, gid: u32) -> bool {
        is_open(Facts { uid: 0, gid, mode }, GROUP)
    }

    #[test]
    fn only_what_others_can_write_is_open() {
        for mode in [0o700, 0o711, 0o750, 0o755, 0o500, 0o2750] {
            assert!(!open(mode, GROUP + 1), "{mode:o}");
        }
        // The sticky bit does not help against others: they could create what is missing.
        for mode in [0o777, 0o1777, 0o702, 0o757] {
            assert!(open(mode, GROUP), "{mode:o}");
        }
        assert!(!open(0o770, GROUP), "our own group, as with umask 002");
        assert!(open(0o770, GROUP + 1));
        assert!(!open(0o1770, GROUP + 1), "as admitted for workers.user");
    }

    #[test]
    fn a_look_judges_as_a_start_and_makes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        look(&at("missing"), &[]).unwrap();
        assert!(!at("missing").exists());
        fs::create_dir(at("own")).unwrap();
        mode(&at("own"), 0o700);
        symlink(at("own"), at("link")).unwrap();
        look(&at("link"), &[]).unwrap();
        mode(&at("own"), 0o777);
        for name in ["own", "link"] {
            assert!(
                matches!(look(&at(name), &[]), Err(Distrust::Writable { mode: 0o777, .. })),
                "{name}"
            );
        }
        fs::write(at("file"), "").unwrap();
        assert!(matches!(look(&at("file"), &[]), Err(Distrust::Kind { .. })));
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_missing_directory_is_made_private() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        directory(&path, &[]).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
        directory(&path, &[]).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_in_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        for bits in [0o777, 0o1777, 0o703] {
            mode(scratch.path(), bits);
            let error = directory(scratch.path(), &[]).unwrap_err();
            assert!(
                matches!(error, Distrust::Writable { mode, .. } if mode == bits),
                "{error}"
            );
            assert!(error.to_string().contains("chmod 700"), "{error}");
        }
        mode(scratch.path(), 0o755);
        directory(scratch.path(), &[]).unwrap();
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(directory(&path, &[]), Err(Distrust::Kind { .. })));
    }

    #[test]
    fn a_file_is_opened_by_its_own_name_only() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::write(at("precious"), "keep").unwrap();
        symlink(at("precious"), at("soft")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        for name in ["soft", "dangling"] {
            assert!(matches!(file(&at(name)), Err(Distrust::Link { .. })), "{name}");
        }
        assert!(!at("nowhere").exists());
        fs::hard_link(at("precious"), at("hard")).unwrap();
        assert!(matches!(file(&at("hard")), Err(Distrust::Kind { .. })));
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(file(&at("fifo")), Err(Distrust::Kind { .. })));
        assert!(matches!(file(scratch.path()), Err(Distrust::Io { .. })));
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "keep");
        file(&at("fresh")).unwrap();
        assert_eq!(at("fresh").metadata().unwrap().mode() & 0o777, 0o600);
    }

    /// Root alone can make something that belongs to another user.
    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        const STRANGER: u32 = 65_534;
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for name in ["theirs", "real"] {
            fs::create_dir(at(name)).unwrap();
            mode(&at(name), 0o700);
        }
        chown(at("theirs"), Some(STRANGER), None).unwrap();
        let error = directory(&at("theirs"), &[]).unwrap_err();
        assert!(matches!(error, Distrust::Owner { owner: STRANGER, .. }), "{error}");
        directory(&at("theirs"), &[Uid::from_raw(STRANGER)]).unwrap();
        symlink(at("real"), at("link")).unwrap();
        directory(&at("link"), &[]).unwrap();
        lchown(at("link"), Some(STRANGER), None).unwrap();
        for refused in [directory(&at("link"), &[]).map(|_| ()), look(&at("link"), &[])] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Distrust::Link { owner: STRANGER, .. }), "{error}");
        }
        symlink(at("nowhere"), at("dangling")).unwrap();
        lchown(at("dangling"), Some(STRANGER), None).unwrap();
        let error = directory(&at("dangling"), &[]).unwrap_err();
        assert!(
            error.to_string().contains("is a symbolic link of user 65534"),
            "{error}"
        );
        assert!(matches!(look(&at("theirs"), &[]), Err(Distrust::Owner { .. })));
        look(&at("theirs"), &[Uid::from_raw(STRANGER)]).unwrap();
        fs::write(at("lock"), "7").unwrap();
        chown(at("lock"), Some(STRANGER), None).unwrap();
        assert!(matches!(file(&at("lock")), Err(Distrust::Owner { .. })));
        assert_eq!(fs::read_to_string(at("lock")).unwrap(), "7");
    }
}
