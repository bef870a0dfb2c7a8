//! Manual pages, shell completions and the page about every key, as a package and `docs/` have them.

use crate::config;
use clap::Command;
use clap_complete::{Shell, generate_to};
use std::fs;
use std::io;
use std::path::Path;

/// Writes all of them into a directory, which is made if it is missing.
///
/// # Errors
/// When something cannot be written.
pub(crate) fn write(command: Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = command.disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, "anyworker", directory)?;
    }
    fs::write(directory.join("configure.md"), config::page())?;
    clap_mangen::generate_to(command, directory)
}
