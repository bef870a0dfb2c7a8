//! The bytes that a WebSocket has received of a message that is not complete. The library keeps
//! them to itself; another worker that reads them again is where we were.

/// A message of which more than this many bytes are here cannot move until it is complete.
pub(crate) const UNFINISHED_BYTES_MAX: usize = 256 * 1024;
/// A buffer that grew beyond this is given back when its message is complete (bytes).
const KEPT_BYTES: usize = 8 * 1024;
/// The library's buffer counts, and is freed, if a frame of this size was read into it (bytes). A new one costs four system
/// calls, which is little against the work on such a message.
const LARGE_BYTES_MIN: usize = 16 * 1024;
/// The opcode of a close frame. RFC 6455, 5.5.1.
const CLOSE: u8 = 0x8;
/// Two bytes, a length of eight, a mask. RFC 6455, 5.2.
const HEADER_BYTES_MAX: usize = 14;

/// See the module. Fed with everything that is read, it keeps what belongs to no complete message:
/// frames of a fragmented message and the beginning of a frame, without the control frames that
/// came whole in between, which have been answered.
#[derive(Default)]
pub(crate) struct Unfinished {
    bytes: Vec<u8>,
    header: [u8; HEADER_BYTES_MAX],
    /// How much of the present frame's header is here.
    header_bytes: u8,
    payload_left: u64,
    /// Where in `bytes` the present frame begins.
    frame_from: usize,
    /// A fragment is complete, the message is not.
    in_message: bool,
    /// There is more than is kept.
    overflow: bool,
    /// A close frame is complete.
    closed: bool,
    /// Payload of the largest complete frame since the library's buffer was new, if it was large (bytes): the buffer has
    /// kept that size.
    buffer_bytes: u32,
    /// Payload of the complete fragments of the present message, and of the present frame (bytes).
    fragments_bytes: usize,
    frame_bytes: usize,
    /// Nothing is kept, since nothing reads on.
    discards: bool,
}

impl Unfinished {
    /// Takes note of bytes that were read.
    pub(crate) fn feed(&mut self, read: &[u8]) {
        // From here on `read` is not in `bytes` yet.
        let mut kept = 0;
        let mut at = 0;
        while let Some(byte) = read.get(at) {
            if self.payload_left > 0 {
                let step = (read.len() - at).min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                at += step;
                self.frame_bytes += step;
                self.payload_left -= step as u64;
            } else {
                if self.header_bytes == 0 {
                    self.frame_from = self.bytes.len() + at - kept;
                }
                self.push_header(*byte);
                at += 1;
                match self.payload_length() {
                    Some(length) => self.payload_left = length,
                    None => continue,
                }
            }
            if self.payload_left == 0 {
                kept = self.end_frame(read, kept, at);
            }
        }
        self.keep(read.get(kept..).unwrap_or_default());
    }

    /// What another reader has to be given first; nothing if it is too much.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        (!self.overflow).then_some(&self.bytes)
    }

    /// Whether a close frame has come.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes in memory for the message that is not complete: the library's, and the copy here. Before it begins, the buffer
    /// of the one before.
    pub(crate) fn held(&self) -> usize {
        self.fragments_bytes + self.frame_bytes.max(self.buffer_bytes as usize) + self.bytes.len()
    }

    /// Whether the library's buffer is large and nothing is in it, once all that was read has been taken.
    pub(crate) fn has_large_buffer(&self) -> bool {
        let nothing_begun = self.header_bytes == 0 && self.payload_left == 0 && !self.in_message;
        self.buffer_bytes > 0 && nothing_begun
    }

    /// The library begins with a small buffer again.
    pub(crate) fn buffer_is_new(&mut self) {
        self.buffer_bytes = 0;
    }

    /// How long the message is at least, by what its frames announce (bytes).
    pub(crate) fn expected(&self) -> usize {
        let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
        (self.fragments_bytes + self.frame_bytes).saturating_add(left)
    }

    /// Keeps nothing from now on: what is still read is only looked at for the end.
    pub(crate) fn discard(&mut self) {
        self.discards = true;
        self.bytes = Vec::new();
    }

    fn push_header(&mut self, byte: u8) {
        if let Some(place) = self.header.get_mut(usize::from(self.header_bytes)) {
            *place = byte;
        }
        self.header_bytes += 1;
    }

    /// The length of the payload, once the header is complete.
    fn payload_length(&self) -> Option<u64> {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.header;
        let (length, extended) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([a, b])), 2),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 8),
            length => (u64::from(length), 0),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        (self.header_bytes >= 2 && self.header_bytes == 2 + extended + mask).then_some(length)
    }

    /// The frame is complete with what lies before `at`; what of `read` is still to be kept begins at the answer.
    fn end_frame(&mut self, read: &[u8], kept: usize, at: usize) -> usize {
        let [first, ..] = self.header;
        let (last, control) = (first & 0x80 != 0, first & 0x08 != 0);
        self.header_bytes = 0;
        self.closed |= first & 0x0f == CLOSE;
        let frame_bytes = std::mem::take(&mut self.frame_bytes);
        if frame_bytes >= LARGE_BYTES_MIN {
            let bytes = u32::try_from(frame_bytes).unwrap_or(u32::MAX);
            self.buffer_bytes = self.buffer_bytes.max(bytes);
        }
        if control && self.in_message {
            match self.frame_from.checked_sub(self.bytes.len()) {
                Some(before) => self.keep(read.get(kept..kept + before).unwrap_or_default()),
                None => self.bytes.truncate(self.frame_from),
            }
            return at;
        }
        if !control && !last {
            self.in_message = true;
            self.fragments_bytes += frame_bytes;
            return kept;
        }
        // A control frame that stands alone ends no message: there is none.
        (self.in_message, self.overflow, self.fragments_bytes) = (false, false, 0);
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        at
    }

    fn keep(&mut self, more: &[u8]) {
        if self.discards {
            return;
        }
        if self.overflow || self.bytes.len() + more.len() > UNFINISHED_BYTES_MAX {
            self.overflow = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Read, Write};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
    use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

    fn frame(rng: &mut fastrand::Rng, first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match u16::try_from(payload.len()) {
            Ok(short) if short < 126 && rng.u8(..) > 9 => frame.push(0x80 | short.to_be_bytes()[1]),
            Ok(medium) if rng.u8(..) > 9 => {
                frame.push(0x80 | 126);
                frame.extend(medium.to_be_bytes());
            }
            // Longer than need be is allowed.
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        let mask = rng.u32(..).to_be_bytes();
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// A client's stream: texts in one frame or several, with pings before, between and in them.
    fn stream(rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for nth in 0..rng.usize(1..12) {
            let text = format!("{nth}{}", "ä€😀".repeat(rng.usize(0..40).pow(2) / 8));
            let fragments = rng.usize(1..5).min(text.len());
            let size = text.len().div_ceil(fragments);
            for (index, part) in text.as_bytes().chunks(size).enumerate() {
                if rng.u8(..4) == 0 {
                    let ping = vec![b'p'; rng.usize(..20)];
                    bytes.extend(frame(rng, 0x89, &ping));
                }
                let last = (index + 1) * size >= text.len();
                let first = if index == 0 { 0x01 } else { 0x00 };
                bytes.extend(frame(rng, first | if last { 0x80 } else { 0 }, part));
            }
        }
        bytes
    }

    /// Where a server reads from: as much as it may, in pieces.
    struct Pipe {
        before: Vec<u8>,
        rest: Vec<u8>,
        budget: usize,
        piece: usize,
        unfinished: Unfinished,
    }

    impl Read for Pipe {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let source = if self.before.is_empty() {
                &mut self.rest
            } else {
                &mut self.before
            };
            let count = source.len().min(into.len()).min(self.piece).min(self.budget);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.budget -= count;
            into[..count].copy_from_slice(&source[..count]);
            self.unfinished.feed(&source[..count]);
            source.drain(..count);
            Ok(count)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn serve(pipe: Pipe, rng: &mut fastrand::Rng, messages: &mut Vec<Message>) -> Pipe {
        let config = WebSocketConfig::default().read_buffer_size(rng.usize(16..300));
        let mut server = WebSocket::from_raw_socket(pipe, Role::Server, Some(config));
        loop {
            match server.read() {
                Ok(message) => messages.push(message),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return server.into_inner(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn pipe(before: Vec<u8>, rest: Vec<u8>, budget: usize, piece: usize) -> Pipe {
        Pipe {
            before,
            rest,
            budget,
            piece,
            unfinished: Unfinished::default(),
        }
    }

    #[test]
    fn the_next_reader_gets_every_message_once() {
        let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
        println!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let bytes = stream(&mut rng);
            let mut expected = Vec::new();
            serve(
                pipe(vec![], bytes.clone(), usize::MAX, usize::MAX),
                &mut rng,
                &mut expected,
            );
            let mut messages = Vec::new();
            let (mut before, mut rest) = (Vec::new(), bytes);
            while !(before.is_empty() && rest.is_empty()) {
                let budget = rng.usize(1..400) + before.len();
                let now = pipe(before, rest, budget, rng.usize(1..200));
                let left = serve(now, &mut rng, &mut messages);
                rest = left.rest;
                before = [left.unfinished.bytes().unwrap(), &left.before].concat();
                if rest.is_empty() && messages.len() == expected.len() {
                    break;
                }
            }
            assert_eq!(messages, expected);
            assert_eq!(before, b"");
        }
    }

    #[test]
    fn bytes_count_until_their_message_is_complete() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut unfinished = Unfinished::default();
        // The beginning of a message in three frames.
        let long = frame(&mut rng, 0x01, &[0; 1000]);
        let (head, rest) = long.split_at(100);
        unfinished.feed(head);
        let header = long.len() - 1000;
        assert_eq!((unfinished.held(), unfinished.expected()), (200 - header, 1000));
        unfinished.feed(rest);
        assert_eq!(unfinished.held(), long.len() + 1000);
        // Control frames in between are answered and gone.
        let ping = frame(&mut rng, 0x89, b"ping");
        unfinished.feed(&ping);
        assert_eq!((unfinished.held(), unfinished.expected()), (long.len() + 1000, 1000));
        let more = frame(&mut rng, 0x00, &vec![0; UNFINISHED_BYTES_MAX]);
        unfinished.feed(&more);
        let buffer = UNFINISHED_BYTES_MAX;
        assert_eq!(
            unfinished.held(),
            1000 + UNFINISHED_BYTES_MAX + buffer,
            "too much for a copy"
        );
        unfinished.feed(&frame(&mut rng, 0x80, b"end"));
        assert_eq!((unfinished.held(), unfinished.expected()), (buffer, 0));
        unfinished.buffer_is_new();
        assert_eq!(unfinished.held(), 0);
        unfinished.feed(&ping[..3]);
        assert_eq!(unfinished.held(), 3);
        unfinished.feed(&ping[3..]);
        assert_eq!(unfinished.held(), 0);
    }

    #[test]
    fn a_large_buffer_counts_until_it_is_renewed() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut unfinished = Unfinished::default();
        unfinished.feed(&frame(&mut rng, 0x81, &vec![0; LARGE_BYTES_MIN - 1]));
        assert!(!unfinished.has_large_buffer());
        assert_eq!(unfinished.held(), 0);
        unfinished.feed(&frame(&mut rng, 0x81, &vec![0; LARGE_BYTES_MIN]));
        assert!(unfinished.has_large_buffer());
        let next = frame(&mut rng, 0x01, b"next");
        unfinished.feed(&next[..1]);
        assert!(!unfinished.has_large_buffer(), "a header has begun");
        unfinished.feed(&next[1..]);
        assert!(!unfinished.has_large_buffer(), "a message has begun");
        unfinished.feed(&frame(&mut rng, 0x80, b"end"));
        assert!(unfinished.has_large_buffer());
        assert_eq!(unfinished.held(), LARGE_BYTES_MIN);
        unfinished.buffer_is_new();
        assert!(!unfinished.has_large_buffer());
        assert_eq!(unfinished.held(), 0);
    }

    #[test]
    fn an_announced_length_counts_before_it_comes() {
        let mut unfinished = Unfinished::default();
        unfinished.feed(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff");
        assert!(unfinished.expected() < 100, "the mask is missing");
        unfinished.feed(b"mask");
        assert_eq!(unfinished.expected(), usize::MAX);
    }

    #[test]
    fn what_is_too_long_does_not_move_until_it_is_complete() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut unfinished = Unfinished::default();
        let long = frame(&mut rng, 0x01, &vec![0; UNFINISHED_BYTES_MAX]);
        unfinished.feed(&long);
        assert_eq!(unfinished.bytes(), None);
        unfinished.feed(&frame(&mut rng, 0x89, b"ping"));
        assert_eq!(unfinished.bytes(), None);
        let end = frame(&mut rng, 0x80, b"end");
        unfinished.feed(&end[..3]);
        assert_eq!(unfinished.bytes(), None);
        unfinished.feed(&end[3..]);
        assert_eq!(unfinished.bytes(), Some(&[][..]));
        unfinished.feed(&end[..3]);
        assert_eq!(unfinished.bytes(), Some(&end[..3]));
    }
}
