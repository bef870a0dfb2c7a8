//! Whether a file is a program for this machine, before it is started: execvp(3) and the standard library hand what the
//! kernel refuses to a shell, whose complaint names neither the file nor the reason.

use super::spawn::Binary;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What of the ELF header says for which machine a file is (elf(5)): `e_ident`, `e_type`, `e_machine`.
const HEADER_BYTES: usize = 20;
const MAGIC: &[u8] = b"\x7fELF";

/// The start of a file.
type Header = [u8; HEADER_BYTES];

/// Why a file cannot be started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAProgram {
    /// A script, a text, an archive, an empty file.
    #[error("it is not an executable (ELF) file")]
    Other,
    /// Another processor, word size or byte order.
    #[error("it is not an executable for this machine: it is for {theirs}, this one is {ours}")]
    Machine { theirs: String, ours: String },
}

/// Compares the binary with the one that runs.
///
/// # Errors
/// When it cannot be started here. A file that may be executed and not read is taken for good.
pub(crate) fn examine(binary: &Binary) -> Result<(), NotAProgram> {
    match (header(&binary.path()), header(Path::new("/proc/self/exe"))) {
        (Ok(theirs), Ok(ours)) => compare(&theirs, &ours),
        (Err(_), _) | (_, Err(_)) => Ok(()),
    }
}

/// Shorter files are filled up with zeros.
fn header(path: &Path) -> io::Result<Header> {
    let mut header = [0; HEADER_BYTES];
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    // A FIFO in the binary's place must not stop the supervisor's only thread.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(header)
}

fn compare(theirs: &Header, ours: &Header) -> Result<(), NotAProgram> {
    if !theirs.starts_with(MAGIC) {
        return Err(NotAProgram::Other);
    }
    let (theirs, ours) = (machine(theirs), machine(ours));
    if theirs == ours {
        return Ok(());
    }
    Err(NotAProgram::Machine { theirs, ours })
}

/// Names of `elf.h`.
fn machine(header: &Header) -> String {
    let [_, _, _, _, class, order, .., low, high] = *header;
    let number = if order == 2 {
        u16::from_be_bytes([low, high])
    } else {
        u16::from_le_bytes([low, high])
    };
    let name = match number {
        3 => "i386".to_owned(),
        20 => "ppc".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390".to_owned(),
        40 => "arm".to_owned(),
        62 => "x86-64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv".to_owned(),
        258 => "loongarch".to_owned(),
        other => format!("machine {other}"),
    };
    let bits = if class == 1 { 32 } else { 64 };
    let order = if order == 2 { ", big-endian" } else { "" };
    format!("{name} ({bits} bits{order})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(class: u8, order: u8, machine: [u8; 2]) -> Header {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4] = class;
        header[5] = order;
        header[18..].copy_from_slice(&machine);
        header
    }

    #[test]
    fn machines() {
        let ours = elf(2, 1, [62, 0]);
        assert_eq!(compare(&ours, &ours), Ok(()));
        for (header, name) in [
            (elf(2, 1, [183, 0]), "aarch64 (64 bits)"),
            (elf(1, 1, [3, 0]), "i386 (32 bits)"),
            (elf(1, 1, [62, 0]), "x86-64 (32 bits)"),
            (elf(1, 1, [40, 0]), "arm (32 bits)"),
            (elf(2, 2, [0, 22]), "s390 (64 bits, big-endian)"),
            (elf(2, 1, [21, 0]), "ppc64 (64 bits)"),
            (elf(2, 2, [0, 21]), "ppc64 (64 bits, big-endian)"),
            (elf(2, 1, [243, 0]), "riscv (64 bits)"),
            (elf(2, 1, [0, 9]), "machine 2304 (64 bits)"),
        ] {
            let what = compare(&header, &ours).unwrap_err().to_string();
            let expect = format!("it is for {name}, this one is x86-64 (64 bits)");
            assert!(what.ends_with(&expect), "{what}");
        }
    }

    #[test]
    fn files() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        let of = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            examine(&Binary::open(&file).unwrap())
        };
        for text in [
            &b""[..],
            b"#!/bin/sh\n",
            b"\x7fEL",
            b"PK\x03\x04",
            b"anyworker anyworker anyworker",
        ] {
            assert_eq!(of(text), Err(NotAProgram::Other), "{text:?}");
        }
        assert!(matches!(of(MAGIC), Err(NotAProgram::Machine { .. })));
        assert_eq!(examine(&Binary::running().unwrap()), Ok(()));
    }
}
