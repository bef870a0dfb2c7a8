//! What a Redis said before it ended, for the log and `status`.

use super::super::memory;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is kept of its standard output and error (bytes): what it complains before it has a log.
const OUTPUT_BYTES_MAX: u32 = 16 * 1024;
/// How much of its log is looked at for its last words (bytes).
const LOG_TAIL_BYTES: u64 = 4 * 1024;
/// Lines of its last words.
const WORDS_LINES_MAX: usize = 5;
/// Longest line of its last words (characters).
pub(super) const WORDS_LINE_CHARS_MAX: usize = 300;

/// The last lines of what it wrote since its start: to standard output and error, and then to its log, which ended at `from`
/// when it was started. What cannot be read is left out.
pub(super) fn last(output: Option<File>, log: &Path, from: u64) -> Option<String> {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        let read = output.rewind().and_then(|()| output.read_to_end(&mut bytes));
        tracing::trace!(?read, "output of the managed Redis");
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned() + "\n";
    text += &tail(log, from).unwrap_or_default();
    last_lines(&text)
}

/// Memory that a child can write to, and no more of it than this.
pub(super) fn output() -> nix::Result<File> {
    memory::output(c"anyworker-redis", OUTPUT_BYTES_MAX)
}

/// The end of a log, but nothing before `from`; from its begin if it is shorter by now.
pub(super) fn tail(log: &Path, from: u64) -> io::Result<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(log)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let from = if found.len() < from { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(found.len().saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a text as one line, without control characters; none if there is nothing in it.
pub(super) fn last_lines(text: &str) -> Option<String> {
    let clean = |line: &str| {
        let shown = line.chars().filter(|char| !char.is_control());
        shown.take(WORDS_LINE_CHARS_MAX).collect::<String>().trim().to_owned()
    };
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(WORDS_LINES_MAX);
    let last = lines.get(from..).unwrap_or_default();
    (!last.is_empty()).then(|| last.join(" | "))
}
