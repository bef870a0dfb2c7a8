//! Shell: finds and reads the files, asks the system for our user, and leaves the rest to pure code.

use super::faults::{Fault, Faults};
use super::resolve::{self, Facts, FileText, Inputs};
use super::{Config, Sources};
use std::fs::OpenOptions;
use std::io::{ErrorKind, IsTerminal, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "supervisor.toml";
const SYSTEM_FILE: &str = "/etc/anyworker/supervisor.toml";
/// Longest file (bytes); a longer one is not a configuration.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads, checks and resolves the configuration.
pub(crate) fn load(sources: &Sources) -> Result<Config, Faults> {
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    load_in(sources, &directory, Path::new(SYSTEM_FILE))
}

/// The same with the working directory and the system's file given.
pub(super) fn load_in(sources: &Sources, directory: &Path, system_file: &Path) -> Result<Config, Faults> {
    let mut faults = Faults::default();
    let file = match find(sources.file.as_deref(), directory, system_file) {
        Ok(file) => file,
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    let beside = sources
        .file
        .as_deref()
        .or(file.as_ref().map(|file| file.path.as_path()))
        .and_then(Path::parent);
    let beside = beside.map(|parent| directory.join(parent).join(".env"));
    let mut dot_env = None;
    for path in [Some(directory.join(".env")), beside].into_iter().flatten() {
        // `.env` is also a usual name of a directory with a virtual environment of Python.
        let found = if path.is_dir() { Ok(None) } else { read_lossy(&path) };
        match found {
            Ok(None) => {}
            Ok(found) => {
                dot_env = found;
                break;
            }
            Err(fault) => faults.push(fault),
        }
    }
    let inputs = Inputs {
        file,
        dot_env,
        env: &sources.env,
        overrides: &sources.overrides,
    };
    resolve::resolve(inputs, &facts(directory), faults)
}

/// The file that was named, or the first of the usual ones that exists.
fn find(named: Option<&Path>, directory: &Path, system_file: &Path) -> Result<Option<FileText>, Fault> {
    if let Some(path) = named {
        return match read(&directory.join(path))? {
            Some(file) => Ok(Some(FileText {
                path: path.to_owned(),
                ..file
            })),
            None => Err(Fault::new(
                "--config",
                format!("{} does not exist", path.display()),
                "name a file that does",
            )),
        };
    }
    match read(&directory.join(FILE_NAME))? {
        Some(file) => Ok(Some(FileText {
            path: PathBuf::from(FILE_NAME),
            ..file
        })),
        None => read(system_file),
    }
}

/// The text of a file, if it is one that can be read; whatever is wrong with it.
pub(crate) fn text_of(path: &Path) -> Option<String> {
    Some(read(path).ok()??.text)
}

/// The file; `None` if there is none.
fn read(path: &Path) -> Result<Option<FileText>, Fault> {
    read_with(path, |bytes| {
        String::from_utf8(bytes).map_err(|error| {
            let error = error.utf8_error();
            format!("byte {} is not UTF-8", error.valid_up_to() + 1)
        })
    })
}

/// The same with U+FFFD where it is not UTF-8: one with a comment in Latin-1 is read.
fn read_lossy(path: &Path) -> Result<Option<FileText>, Fault> {
    read_with(path, |bytes| match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("it is UTF-16, not UTF-8".to_owned()),
        text => Ok(String::from_utf8_lossy(text).into_owned()),
    })
}

fn read_with(path: &Path, decode: impl FnOnce(Vec<u8>) -> Result<String, String>) -> Result<Option<FileText>, Fault> {
    let fault = |why: String, remedy| Fault::new(path.display().to_string(), format!("cannot be read: {why}"), remedy);
    let unreadable = |why| fault(why, "correct or remove it");
    // Opening a FIFO would wait for a writer, and reading it for the end of what is written; the supervisor never waits.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok((metadata, _)) if !metadata.is_file() => return Err(unreadable("not a regular file".to_owned())),
        Ok(opened) => opened,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(fault(
                error.to_string(),
                "run this command as a user that may read it, or as root (sudo)",
            ));
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let mut bytes = Vec::new();
    match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Ok(count) if count as u64 > FILE_BYTES_MAX => Err(unreadable(format!("longer than {FILE_BYTES_MAX} bytes"))),
        Ok(_) => Ok(Some(FileText {
            path: path.to_owned(),
            text: decode(bytes).map_err(unreadable)?,
            public: metadata.mode() & 0o004 != 0,
        })),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn facts(directory: &Path) -> Facts<'_> {
    Facts {
        directory,
        euid: nix::unistd::geteuid().as_raw(),
        // Logs go to standard error.
        terminal: std::io::stderr().is_terminal(),
        uid_of: |name| {
            nix::unistd::User::from_name(name)
                .ok()
                .flatten()
                .map(|user| user.uid.as_raw())
        },
        is_directory: Path::is_dir,
        is_taken: |path| path.exists() && !path.is_dir(),
        is_private: |path| crate::sys::runtime::look(path).is_ok(),
    }
}
