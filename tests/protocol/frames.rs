//! WebSocket frames, one by one: what comes back, and how the connection ends. The answers are those of `ws` below the
//! reference server (Node, socket.io 4.8), unless a comment says otherwise.

use crate::echo_server;
use crate::harness::{Link, Poller, Server, soon};

/// What ends each case: whatever is still open then is closed with this code.
const LAST: u16 = 3333;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// A client's frame, with its length in the shortest form.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let form = match length {
        0..126 => 0,
        126..65_536 => 2,
        _ => 8,
    };
    [head(first, length as u64, form), masked(payload)].concat()
}

/// The head of a frame, its length written in `form` more bytes.
fn head(first: u8, length: u64, form: usize) -> Vec<u8> {
    let bytes = length.to_be_bytes();
    let second = match form {
        0 => bytes[7],
        2 => 126,
        _ => 127,
    };
    [&[first, 0x80 | second], &bytes[8 - form..]].concat()
}

/// The mask, and the payload under it.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let hidden = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    mask.into_iter().chain(hidden).collect()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// What the server sent after its open packet.
fn seen(mut bytes: &[u8]) -> String {
    let mut words = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second {
            126 => (u16::from_be_bytes([rest[0], rest[1]]).into(), &rest[2..]),
            127 => panic!("longer than any answer here"),
            short => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        assert_eq!(first & 0xf0, FIN, "whole, without extensions");
        let word = match first & 0x0f {
            TEXT if payload.starts_with(b"0{") => continue,
            TEXT => {
                let text = std::str::from_utf8(payload).expect("UTF-8");
                let short: String = text.chars().take(4).collect();
                format!("{short}/{}", text.len())
            }
            BINARY => format!("{payload:?}"),
            PONG => format!("pong/{length}"),
            CLOSE if length == 0 => "close".to_owned(),
            CLOSE => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("opcode {other}"),
        };
        words.push(word);
    }
    words.join(", ")
}

/// What comes back for `bytes` on a WebSocket of its own, until the server has closed the connection.
async fn answers(server: &Server, target: &str, bytes: &[u8]) -> String {
    let mut link = Link::open(server.addr).await.expect("connect");
    let upgrade = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    link.send(upgrade.as_bytes()).await.expect("send");
    assert_eq!(link.reply(false).await.expect("an answer").status, 101);
    let all = [bytes, &close(LAST, b"")].concat();
    link.send(&all).await.expect("send");
    seen(&soon("the end", link.rest()).await)
}

async fn check(cases: &[(&str, Vec<u8>, &str)]) {
    let server = echo_server().await;
    for (what, bytes, expect) in cases {
        let came = answers(&server, "/engine.io/?EIO=4&transport=websocket", bytes).await;
        let survives = format!("{expect}, close {LAST}");
        let expect = match *expect {
            "" => format!("close {LAST}"),
            ends if ends.contains("close") => ends.to_owned(),
            _ => survives,
        };
        assert_eq!(came, expect, "{what}");
    }
}

#[tokio::test]
async fn messages_in_one_frame_and_in_many() {
    let long = |length: usize| [b"4".to_vec(), vec![b'x'; length - 1]].concat();
    check(&[
        ("text", frame(FIN | TEXT, b"4hi"), "4hi/3"),
        ("binary", frame(FIN | BINARY, &[0, 255]), "[0, 255]"),
        ("binary of nothing", frame(FIN | BINARY, b""), "[]"),
        (
            "binary that is no UTF-8",
            frame(FIN | BINARY, &[255, 254]),
            "[255, 254]",
        ),
        ("the longest of one byte", frame(FIN | TEXT, &long(125)), "4xxx/125"),
        ("the shortest of two bytes", frame(FIN | TEXT, &long(126)), "4xxx/126"),
        (
            "the longest of two bytes",
            frame(FIN | TEXT, &long(65_535)),
            "4xxx/65535",
        ),
        // RFC 6455, 5.2 wants the shortest form; neither server looks.
        (
            "a short length in two bytes",
            [head(FIN | TEXT, 3, 2), masked(b"4hi")].concat(),
            "4hi/3",
        ),
        (
            "a short length in eight bytes",
            [head(FIN | TEXT, 3, 8), masked(b"4hi")].concat(),
            "4hi/3",
        ),
        ("a NUL", frame(FIN | TEXT, b"4\0"), "4\0/2"),
        ("two pieces", [frame(TEXT, b"4h"), frame(FIN, b"i")].concat(), "4hi/3"),
        (
            "pieces of nothing",
            [
                frame(TEXT, b""),
                frame(CONTINUATION, b""),
                frame(CONTINUATION, b"4hi"),
                frame(FIN, b""),
            ]
            .concat(),
            "4hi/3",
        ),
        (
            "binary pieces",
            [frame(BINARY, &[1]), frame(FIN, &[2])].concat(),
            "[1, 2]",
        ),
        (
            "a ping between pieces",
            [frame(TEXT, b"4h"), frame(FIN | PING, b"p"), frame(FIN, b"i")].concat(),
            "pong/1, 4hi/3",
        ),
        (
            "a pong between pieces",
            [frame(TEXT, b"4h"), frame(FIN | PONG, b"p"), frame(FIN, b"i")].concat(),
            "4hi/3",
        ),
        (
            "a character over two pieces",
            [frame(TEXT, b"4\xe2\x82"), frame(FIN, b"\xac")].concat(),
            "4€/4",
        ),
        ("a ping of nothing", frame(FIN | PING, b""), "pong/0"),
        ("the longest ping", frame(FIN | PING, &[b'p'; 125]), "pong/125"),
        ("a pong that nothing asked for", frame(FIN | PONG, b"x"), ""),
    ])
    .await;
}

#[tokio::test]
async fn frames_against_the_rules_close_with_their_code() {
    let mut cases = vec![
        ("no mask", vec![FIN | TEXT, 3, b'4', b'h', b'i'], "close 1002"),
        ("a close without a mask", vec![FIN | CLOSE, 2, 3, 0xe8], "close 1002"),
        ("a ping without a mask", vec![FIN | PING, 1, b'p'], "close 1002"),
        (
            "RSV1: no extension was agreed on",
            frame(FIN | 0x40 | TEXT, b"4hi"),
            "close 1002",
        ),
        ("RSV2", frame(FIN | 0x20 | TEXT, b"4hi"), "close 1002"),
        ("RSV3", frame(FIN | 0x10 | TEXT, b"4hi"), "close 1002"),
        ("a ping with RSV1", frame(FIN | 0x40 | PING, b"p"), "close 1002"),
        ("a close with RSV1", frame(FIN | 0x40 | CLOSE, &[3, 0xe8]), "close 1002"),
        ("a ping over 125 bytes", frame(FIN | PING, &[b'p'; 126]), "close 1002"),
        ("a pong over 125 bytes", frame(FIN | PONG, &[b'p'; 126]), "close 1002"),
        ("a ping in pieces", frame(PING, b"p"), "close 1002"),
        ("a pong in pieces", frame(PONG, b"p"), "close 1002"),
        ("a close in pieces", frame(CLOSE, &[3, 0xe8]), "close 1002"),
        ("a piece of nothing", frame(CONTINUATION, b"i"), "close 1002"),
        (
            "the last piece of nothing",
            frame(FIN | CONTINUATION, b"i"),
            "close 1002",
        ),
        (
            "a text within a text",
            [frame(TEXT, b"4h"), frame(FIN | TEXT, b"4x")].concat(),
            "close 1002",
        ),
        (
            "binary within a text",
            [frame(TEXT, b"4h"), frame(FIN | BINARY, b"x")].concat(),
            "close 1002",
        ),
        ("no UTF-8", frame(FIN | TEXT, b"4\xff"), "close 1007"),
        ("half a character", frame(FIN | TEXT, b"4\xe2\x82"), "close 1007"),
        ("a surrogate", frame(FIN | TEXT, b"4\xed\xa0\x80"), "close 1007"),
        ("an overlong form", frame(FIN | TEXT, b"4\xc0\xaf"), "close 1007"),
        ("above U+10FFFF", frame(FIN | TEXT, b"4\xf4\x90\x80\x80"), "close 1007"),
        (
            "no UTF-8 over two pieces",
            [frame(TEXT, b"4\xe2"), frame(FIN, b"x")].concat(),
            "close 1007",
        ),
        // Refused when they are announced. What follows is taken for their payload, so that no close frame is seen and
        // the connection ends after the longest wait for one; `ws` closes it at once.
        (
            "a length over the limit",
            head(FIN | BINARY, 1_000_001, 8),
            "close 1009",
        ),
        ("a length of 2^53", head(FIN | BINARY, 1 << 53, 8), "close 1009"),
        ("a length of 2^63", head(FIN | BINARY, 1 << 63, 8), "close 1009"),
    ];
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        cases.push(("an opcode that is none", frame(FIN | opcode, b"4"), "close 1002"));
    }
    check(&cases).await;
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code() {
    check(&[
        ("without a code", frame(FIN | CLOSE, b""), "close"),
        ("of one byte", frame(FIN | CLOSE, &[3]), "close 1002"),
        ("with the longest reason", close(1000, &[b'r'; 123]), "close 1000"),
        ("with a longer one", close(1000, &[b'r'; 124]), "close 1002"),
        ("with a reason that is no UTF-8", close(1000, b"\xff"), "close 1007"),
        (
            "and a text after it",
            [close(1000, b""), frame(FIN | TEXT, b"4hi")].concat(),
            "close 1000",
        ),
        (
            "after a text",
            [frame(FIN | TEXT, b"4hi"), close(1000, b"")].concat(),
            "4hi/3, close 1000",
        ),
        ("twice", [close(1000, b""), close(1001, b"")].concat(), "close 1000"),
        (
            "after a ping",
            [frame(FIN | PING, b"p"), close(1000, b"")].concat(),
            "pong/1, close 1000",
        ),
        (
            "within a message",
            [frame(TEXT, b"4h"), close(1000, b"")].concat(),
            "close 1000",
        ),
    ])
    .await;
    let server = echo_server().await;
    let target = "/engine.io/?EIO=4&transport=websocket";
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
    ] {
        let expect = format!("close {code}");
        assert_eq!(answers(&server, target, &close(code, b"")).await, expect);
    }
    // Codes that no side may send. 1014 came later than the RFC; `ws` knows it and sends it back.
    for code in [
        0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        assert_eq!(
            answers(&server, target, &close(code, b"")).await,
            "close 1002",
            "{code}"
        );
    }
}

#[tokio::test]
async fn engine_packets_of_all_types() {
    check(&[
        ("message", frame(FIN | TEXT, b"4"), "4/1"),
        ("binary in base64", frame(FIN | TEXT, b"bAQ=="), "[1]"),
        ("open", frame(FIN | TEXT, b"0"), ""),
        ("pong", frame(FIN | TEXT, b"3"), ""),
        ("upgrade", frame(FIN | TEXT, b"5"), ""),
        ("noop", frame(FIN | TEXT, b"6"), ""),
        // The reference server ignores it; some clients say goodbye so, and wait.
        ("close", frame(FIN | TEXT, b"1"), "close"),
        ("ping", frame(FIN | TEXT, b"2"), "close"),
        ("probe", frame(FIN | TEXT, b"2probe"), "close"),
        ("nothing", frame(FIN | TEXT, b""), "close"),
        ("no type", frame(FIN | TEXT, b"7"), "close"),
        ("no digit", frame(FIN | TEXT, b"x"), "close"),
    ])
    .await;
}

#[tokio::test]
async fn a_websocket_that_probes_is_closed_by_the_same_rules() {
    let server = echo_server().await;
    let poller = Poller::open(&server).await;
    for (bytes, expect) in [
        (close(1000, b""), "close 1000"),
        (frame(FIN | PING, b"p"), "pong/1, close 3333"),
        (frame(FIN | 0x40 | TEXT, b"2probe"), "close 1002"),
        (frame(FIN | TEXT, b"\xff"), "close 1007"),
        (head(FIN | TEXT, 1 << 40, 8), "close 1009"),
        (frame(FIN | TEXT, b"4hi"), "close"),
        (
            [frame(FIN | TEXT, b"2probe"), close(1001, b"")].concat(),
            "3pro/6, close 1001",
        ),
    ] {
        assert_eq!(answers(&server, &poller.upgrade_target(), &bytes).await, expect);
    }
    // The session has gone on polling.
    poller.connect().await;
}
