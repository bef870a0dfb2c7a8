//! Files of the system: `/proc`, `/sys`, `/etc`; tests put a directory in their place.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// No file that is looked at is longer (bytes); of `/proc/net/tcp` the beginning is enough, listeners come first.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What stands for `/`.
#[derive(Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where a file is.
    fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, with its name.
    pub(super) fn read(&self, path: &str) -> Result<String, String> {
        let read = || -> io::Result<String> {
            let mut text = Vec::new();
            File::open(self.place(path))?
                .take(FILE_BYTES_MAX)
                .read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        read().map_err(|error| format!("{path}: {error}"))
    }

    /// A file that holds one number.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn number(&self, path: &str) -> Result<u64, String> {
        let text = self.read(path)?;
        text.trim()
            .parse()
            .map_err(|_| format!("{path}: {:?} is no number", text.trim()))
    }

    /// Names in a directory; none if it is not there.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.place(path));
        let names = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.place(path).exists()
    }
}
