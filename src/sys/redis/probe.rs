//! One question, `PING`, that never blocks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a look at its socket showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It accepts commands.
    Pong,
    /// It answered something else: it loads its files, is busy, or has too many clients.
    Answer,
    /// No answer yet.
    Silent,
    /// There is no socket, or nothing listens at it.
    Absent,
}

/// Asks `PING`, or reads the answer to what was asked; the question stays open in `probe` until the next look.
pub(super) fn look(socket: &Path, probe: &mut Option<UnixStream>) -> Sight {
    let mut stream = match probe.take().map_or_else(|| ask(socket), Ok) {
        Ok(stream) => stream,
        Err(error) => {
            let is_absent = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
            return if is_absent { Sight::Absent } else { Sight::Silent };
        }
    };
    let mut answer = [0_u8; 64];
    match stream.read(&mut answer) {
        Ok(_) if answer.starts_with(b"+PONG") => Sight::Pong,
        Ok(1..) => Sight::Answer,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *probe = Some(stream);
            Sight::Silent
        }
        // It hung up: ask again.
        Ok(0) | Err(_) => Sight::Silent,
    }
}

fn ask(path: &Path) -> io::Result<UnixStream> {
    // Never blocks: a unix socket connects at once or not at all.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    let mut stream = UnixStream::from(socket);
    stream.write_all(b"PING\r\n")?;
    Ok(stream)
}
