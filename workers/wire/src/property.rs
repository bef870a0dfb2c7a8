//! Properties of both parsers under generated input. `SEED=… cargo test` replays a failure.

use bytes::Bytes;
use fastrand::Rng;

use crate::engine::{self, Payload};
use crate::json;
use crate::socket::{self, Args, Limits, Packet};

const ROUNDS: usize = if cfg!(miri) { 20 } else { 5_000 };
const STREAMS: usize = if cfg!(miri) { 20 } else { 20_000 };

const VECTORS: [&str; 12] = [
    r#"42["message",1,"2",{"3":[true]}]"#,
    r#"42/admin,1["tellme"]"#,
    r#"42456["message-with-ack",-1.5e3,null]"#,
    r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
    r#"452-/a,7["m",{"_placeholder":true,"num":0}]"#,
    r#"461-/admin,1[{"_placeholder":true,"num":0}]"#,
    r#"43456["\u00e9\"\\",{}]"#,
    r#"40/custom,{"token":"é😀"}"#,
    "41/admin,",
    r#"44/random,{"message":"Invalid namespace"}"#,
    "6\u{1e}4hello\u{1e}bAQIDBA==\u{1e}2probe",
    r#"0{"sid":"x","upgrades":[],"pingInterval":25000}"#,
];

/// The generator of a test; its seed shows when the test fails.
fn rng() -> Rng {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    };
    println!("SEED={seed}");
    Rng::with_seed(seed)
}

/// Parses `text` every way there is. That this returns is the property; what it returns must hold
/// together.
fn parse(text: &str) {
    for packet in engine::decode_payload(text, 16).flatten() {
        if let engine::Packet::Message(text) = packet {
            parse_socket(text);
        }
    }
    parse_socket(text);
    assert_ne!(socket::placeholders(text, 1), Ok(usize::MAX));
    assert!(json::values(text).count() <= text.len());
    assert!(socket::with_offset(text, "o").len() >= text.len().min(5));
}

fn parse_socket(text: &str) {
    let Ok(packet) = socket::decode(text, &Limits::default()) else {
        return;
    };
    if let Packet::Event { args, .. } = &packet {
        assert!(args.values().all(|value| json::validate(value, 64).is_ok()), "{text}");
        let whole = format!("[{}]", args.rest());
        assert_eq!(json::validate(&whole, 64), Ok(()), "{text}");
    }
    let mut again = String::new();
    socket::encode(&mut again, &packet);
    assert_eq!(socket::decode(&again, &Limits::default()), Ok(packet), "{text}");
}

#[test]
fn random_bytes_do_no_harm() {
    let mut rng = rng();
    let alphabet = b"0123456-/,[]{}\":\\ \x1eabntu_e.+";
    for _ in 0..STREAMS {
        let length = rng.usize(0..80);
        let noise: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        parse(&String::from_utf8_lossy(&noise));
        let likely: Vec<u8> = (0..length).map(|_| alphabet[rng.usize(..alphabet.len())]).collect();
        parse(&String::from_utf8_lossy(&likely));
    }
}

#[test]
fn damaged_vectors_do_no_harm() {
    let mut rng = rng();
    for vector in VECTORS {
        parse(vector);
        for end in 0..vector.len() {
            parse(&String::from_utf8_lossy(&vector.as_bytes()[..end]));
        }
        for _ in 0..ROUNDS {
            let mut bytes = vector.as_bytes().to_vec();
            for _ in 0..rng.usize(1..4) {
                damage(&mut bytes, &mut rng);
            }
            parse(&String::from_utf8_lossy(&bytes));
        }
    }
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let donor = VECTORS[rng.usize(..VECTORS.len())].as_bytes();
    let from = rng.usize(..donor.len());
    let to = rng.usize(from..=donor.len());
    match rng.u8(..5) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.u8(..)),
        2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        _ => drop(bytes.splice(at..at, donor[from..to].iter().copied())),
    }
}

#[test]
fn socket_packets_survive_the_wire() {
    let mut rng = rng();
    for _ in 0..ROUNDS {
        let nsp = nsp(&mut rng);
        let attachments = rng.usize(..=10);
        let values: Vec<String> = (0..rng.usize(..5)).map(|_| value(&mut rng, 5, attachments)).collect();
        let array = format!("[{}]", values.join(","));
        let name = loop {
            let name = string(&mut rng);
            if name != "connect" && name != "disconnect" {
                break name;
            }
        };
        let mut whole = String::new();
        socket::encode_event_values(&mut whole, "/", None, &name, &values.join(","), 0);
        let whole = whole.split_off(1);
        let object = format!("{{\"a\":{array}}}");
        let id = rng.u128(..) >> rng.u8(..128);
        let packet = match rng.u8(..5) {
            0 => Packet::Connect {
                nsp: &nsp,
                auth: rng.bool().then_some(&object),
            },
            1 => Packet::Disconnect { nsp: &nsp },
            2 => {
                let args = Args::read(&whole).unwrap();
                assert_eq!(args.name(), name);
                assert_eq!(args.values().collect::<Vec<_>>(), values);
                Packet::Event {
                    nsp: &nsp,
                    ack: rng.bool().then_some(id),
                    args,
                    attachments,
                }
            }
            3 => Packet::Ack {
                nsp: &nsp,
                id,
                args: &array,
                attachments,
            },
            _ => Packet::ConnectError {
                nsp: &nsp,
                data: Some(&object),
            },
        };
        let mut text = String::new();
        socket::encode(&mut text, &packet);
        assert_eq!(socket::decode(&text, &Limits::default()), Ok(packet), "{text}");
        assert!(!text.bytes().any(|b| b < 0x20), "{text}");
    }
}

#[test]
fn payloads_survive_the_wire() {
    let mut rng = rng();
    for _ in 0..ROUNDS {
        let texts: Vec<String> = (0..rng.usize(1..6)).map(|_| value(&mut rng, 3, 1)).collect();
        let mut payload = Payload::default();
        let mut expect = Vec::new();
        for text in &texts {
            if rng.bool() {
                payload.push_text(&format!("4{text}"));
                expect.push(engine::Packet::Message(text));
            } else {
                payload.push_binary(text.as_bytes());
                expect.push(engine::Packet::Binary(Bytes::copy_from_slice(text.as_bytes())));
            }
        }
        let body = payload.finish();
        let got: Result<Vec<_>, _> = engine::decode_payload(&body, 5).collect();
        assert_eq!(got, Ok(expect), "{body}");
    }
}

fn nsp(rng: &mut Rng) -> String {
    let names = ["/", "/a", "/custom?x=1", "/é/😀", "/-1[\"x\"]", "//", "/0"];
    names[rng.usize(..names.len())].to_owned()
}

fn string(rng: &mut Rng) -> String {
    let parts = [
        "a",
        "\"",
        "\\",
        "]",
        "{",
        ",",
        "\u{1e}",
        "\n",
        "é",
        "😀",
        "u0041",
        "connect",
        "_placeholder",
    ];
    (0..rng.usize(..4)).map(|_| parts[rng.usize(..parts.len())]).collect()
}

fn value(rng: &mut Rng, depth: usize, attachments: usize) -> String {
    let many = |rng: &mut Rng| {
        (0..rng.usize(..4))
            .map(|_| value(rng, depth - 1, attachments))
            .collect::<Vec<_>>()
    };
    match rng.u8(..if depth == 0 { 4 } else { 7 }) {
        0 => ["null", "true", "false", "0", "-1.5e3", "12345678901234567890"][rng.usize(..6)].to_owned(),
        1 => rng.i64(..).to_string(),
        2 => {
            let mut out = String::new();
            json::push_string(&mut out, &string(rng));
            out
        }
        3 if attachments > 0 => format!("{{\"_placeholder\":true,\"num\":{}}}", rng.usize(..attachments)),
        4 | 5 => format!("[{}]", many(rng).join(", ")),
        _ if depth == 0 => "[]".to_owned(),
        _ => {
            let fields = many(rng);
            let fields = fields.iter().enumerate().map(|(i, value)| format!("\"k{i}\": {value}"));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}
