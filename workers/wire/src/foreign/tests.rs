//! The captured vectors of the senders.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn audience(nsp: &str, rooms: &[&str], except: &[&str]) -> Audience {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    Audience {
        nsp: nsp.into(),
        rooms: own(rooms),
        except: own(except),
    }
}

fn event(audience: Audience, args: &str, attachments: &[&'static [u8]]) -> Order {
    Order::Emit {
        audience,
        args: args.into(),
        attachments: attachments.iter().map(|a| Bytes::from_static(a)).collect(),
        volatile: false,
        id: None,
    }
}

#[test]
fn the_redis_emitter_of_node() {
    let all = "93a7656d697474657283a47479706502a46461746194a568656c6c6f01a13281a16192c3c0a36e7370a12f83a5726f6f6d7390a5666c61677380a665786365707490";
    let expected = event(audience("/", &[], &[]), r#"["hello",1,"2",{"a":[true,null]}]"#, &[]);
    assert_eq!(broadcast(&hex(all)), Ok(expected));
    let room = "93a7656d697474657283a47479706502a46461746192a568656c6c6fa178a36e7370a12f83a5726f6f6d7391a5726f6f6d31a5666c61677380a665786365707490";
    assert_eq!(
        broadcast(&hex(room)),
        Ok(event(audience("/", &["room1"], &[]), r#"["hello","x"]"#, &[]))
    );
    let volatile = "93a7656d697474657283a47479706502a46461746191a568656c6c6fa36e7370a12f83a5726f6f6d7392a27231a27232a5666c61677381a8766f6c6174696c65c3a665786365707491a27233";
    let order = broadcast(&hex(volatile)).unwrap();
    assert!(
        matches!(&order, Order::Emit { audience: w, volatile: true, .. } if *w == audience("/", &["r1", "r2"], &["r3"]))
    );
    let binary = "93a7656d697474657283a47479706502a46461746192a362696ec403010203a36e7370a12f83a5726f6f6d7390a5666c61677380a665786365707490";
    let expected = event(
        audience("/", &[], &[]),
        r#"["bin",{"_placeholder":true,"num":0}]"#,
        &[&[1, 2, 3]],
    );
    assert_eq!(broadcast(&hex(binary)), Ok(expected));
    let custom = "93a7656d697474657283a47479706502a46461746191a26869a36e7370a72f637573746f6d83a5726f6f6d7391a5726f6f6d31a5666c61677381a8636f6d7072657373c2a665786365707490";
    assert_eq!(
        broadcast(&hex(custom)),
        Ok(event(audience("/custom", &["room1"], &[]), r#"["hi"]"#, &[]))
    );
}

#[test]
fn requests_of_node() {
    assert_eq!(
        request(
            "/",
            br#"{"type":2,"opts":{"rooms":["room1"],"except":[]},"rooms":["room2"]}"#
        ),
        Ok(Order::Join {
            audience: audience("/", &["room1"], &[]),
            rooms: vec!["room2".into()]
        })
    );
    assert_eq!(
        request("/", br#"{"type":4,"opts":{"rooms":["abc"],"except":[]},"close":true}"#),
        Ok(Order::Disconnect {
            audience: audience("/", &["abc"], &[]),
            close: true
        })
    );
    assert_eq!(
        request("/", br#"{"uid":"emitter","type":6,"data":["ping",1]}"#),
        Ok(Order::Nothing)
    );
    assert_eq!(channel_namespace("socket.io#/#room1#", "socket.io"), Some("/"));
    assert_eq!(
        channel_namespace("socket.io-request#/a#", "socket.io-request"),
        Some("/a")
    );
    assert_eq!(channel_namespace("socket.io-request#/a#", "socket.io"), None);
}

#[test]
fn items_of_the_stream() {
    let item = |kind: &'static str, data: &'static str| {
        stream_item(move |name| match name {
            "uid" => Some("emitter"),
            "nsp" => Some("/"),
            "type" => Some(kind),
            "data" => Some(data),
            _ => None,
        })
    };
    let text = r#"{"packet":{"type":2,"data":["hello",1,"2"],"nsp":"/"},"opts":{"rooms":[],"flags":{},"except":[]}}"#;
    assert_eq!(
        item("3", text),
        Ok(event(audience("/", &[], &[]), r#"["hello",1,"2"]"#, &[]))
    );
    let binary = "gqZwYWNrZXSDpHR5cGUCpGRhdGGSo2JpbsQDAQIDo25zcKEvpG9wdHODpXJvb21zkKVmbGFnc4CmZXhjZXB0kA==";
    let expected = event(
        audience("/", &[], &[]),
        r#"["bin",{"_placeholder":true,"num":0}]"#,
        &[&[1, 2, 3]],
    );
    assert_eq!(item("3", binary), Ok(expected.clone()));
    // Without padding, over two lines.
    let unpadded = "gqZwYWNrZXSDpHR5cGUCpGRhdGGSo2JpbsQDAQIDo25zcKEvpG9wdHODpXJvb21z\nkKVmbGFnc4CmZXhjZXB0kA";
    assert_eq!(item("3", unpadded), Ok(expected));
    let leave = r#"{"opts":{"rooms":["room1"],"except":[],"flags":{}},"rooms":["room2"]}"#;
    assert_eq!(
        item("5", leave),
        Ok(Order::Leave {
            audience: audience("/", &["room1"], &[]),
            rooms: vec!["room2".into()]
        })
    );
    assert_eq!(item("9", r#"{"packet":["ping",1]}"#), Ok(Order::Nothing));
}

#[test]
fn python_socketio() {
    let emit = |rest: &str| python(format!(r#"{{"method":"emit",{rest},"callback":null,"host_id":"00"}}"#).as_bytes());
    assert_eq!(
        emit(r#""event":"hello","data":[{"a": 1}],"binary":false,"namespace":"/","room":"room1","skip_sid":null"#),
        Ok(event(audience("/", &["room1"], &[]), r#"["hello",{"a": 1}]"#, &[]))
    );
    assert_eq!(
        emit(r#""event":"hello","data":["x", 2],"binary":false,"namespace":"/chat","room":null,"skip_sid":"SIDX""#),
        Ok(event(audience("/chat", &[], &["SIDX"]), r#"["hello","x", 2]"#, &[]))
    );
    assert_eq!(
        emit(r#""event":"n","data":[null]"#),
        Ok(event(audience("/", &[], &[]), r#"["n"]"#, &[]))
    );
    assert_eq!(
        emit(r#""event":"n","data":[]"#),
        Ok(event(audience("/", &[], &[]), r#"["n"]"#, &[]))
    );
    assert_eq!(
        emit(r#""event":"n","data":[[1, 2]]"#),
        Ok(event(audience("/", &[], &[]), r#"["n",[1, 2]]"#, &[]))
    );
    let binary = r#""event":"bin","data":[[{"f": {"_placeholder": true, "num": 0}}], "AQID"],"binary":true,"namespace":"/","room":["r1","r2"]"#;
    let expected = event(
        audience("/", &["r1", "r2"], &[]),
        r#"["bin",{"f": {"_placeholder": true, "num": 0}}]"#,
        &[&[1, 2, 3]],
    );
    assert_eq!(emit(binary), Ok(expected.clone()));
    // As MIME encoders write it.
    assert_eq!(emit(&binary.replace("AQID", r"AQI\nD\r\n")), Ok(expected));
    assert_eq!(
        python(br#"{"method": "enter_room", "sid": "LV", "room": "rx", "namespace": "/", "host_id": "0"}"#),
        Ok(Order::Join {
            audience: audience("/", &["LV"], &[]),
            rooms: vec!["rx".into()]
        })
    );
    assert_eq!(
        python(br#"{"method": "close_room", "room": "rx", "namespace": "/", "host_id": "0"}"#),
        Ok(Order::Leave {
            audience: audience("/", &["rx"], &[]),
            rooms: vec!["rx".into()]
        })
    );
    assert_eq!(python(&hex("80049500")), Err(ForeignError::Pickle));
    assert_eq!(python(br#"{"method":"callback","args":[]}"#), Ok(Order::Nothing));
}

#[test]
fn our_own() {
    assert_eq!(
        plain(br#"{"event":"hello","args":[1,{"a":2}],"rooms":["a","b"],"except":"c","namespace":"/x"}"#),
        Ok(event(
            audience("/x", &["a", "b"], &["c"]),
            r#"["hello",1,{"a":2}]"#,
            &[]
        ))
    );
    assert_eq!(
        plain(br#"{"event":"hello","data":[1],"room":"a"}"#),
        Ok(event(audience("/", &["a"], &[]), r#"["hello",[1]]"#, &[]))
    );
    for (bad, why) in [
        (&br#"{"event":"connect"}"#[..], "reserved"),
        (br#"{"event":"a","args":1}"#, "`args` must be a list"),
        (br#"{"event":"a","args":[],"data":1}"#, "not both"),
        (br#"{"event":"a","colour":1}"#, "colour"),
        (br#"{"event":"a","namespace":"x"}"#, "begin with /"),
        (br#"{"event":"a","id":""}"#, "`id` must be a string of 1 to 128 bytes"),
        (
            br#"{"event":"a","room":"b","rooms":["c"]}"#,
            "`room` or `rooms`, not both",
        ),
        (br#"{"event":"a","rooms":[]}"#, "`rooms` is an empty list"),
        (br#"{"event":"a","rooms":["b",""]}"#, "room must not be empty"),
        (br#"{"event":"a","room":""}"#, "room must not be empty"),
        (br#"{"event":""}"#, "`event` must not be empty"),
        (br#"{"args":[1]}"#, "event"),
        (b"nonsense", "expected"),
    ] {
        let error = plain(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// What `POST /api/emit` makes of an object. An emitter of Node would take most of what is refused here, for everybody or for
/// no client; a sender by HTTP can be told, so it is.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn our_own_in_fifty_forms() {
    let to = |rooms: &[&str], except: &[&str], args: &str| Ok(event(audience("/", rooms, except), args, &[]));
    let key = |key: &'static str, wanted: &'static str| Err(ForeignError::Key { key, wanted }.to_string());
    const ROOMS: &str = "the name of a room, a string or a number, or a list of such names";
    const ID: &str = "a string of 1 to 128 bytes, or a number";
    let empty = Err("the name of a room must not be empty".to_owned());
    let long = "i".repeat(129);
    let cases: Vec<(String, Result<Order, String>)> = [
        // Rooms: `42`, `42.0` and `"42"` are one.
        (r#""room":42"#, to(&["42"], &[], r#"["e"]"#)),
        (r#""room":"42""#, to(&["42"], &[], r#"["e"]"#)),
        (r#""room":42.0"#, to(&["42"], &[], r#"["e"]"#)),
        (r#""room":-0"#, to(&["0"], &[], r#"["e"]"#)),
        (r#""room":1e21"#, to(&["1e+21"], &[], r#"["e"]"#)),
        (r#""room":0.5"#, to(&["0.5"], &[], r#"["e"]"#)),
        (
            r#""room":18446744073709551616"#,
            to(&["18446744073709551616"], &[], r#"["e"]"#),
        ),
        (r#""room":"\ud800""#, to(&["\u{fffd}"], &[], r#"["e"]"#)),
        (r#""room":["a"]"#, to(&["a"], &[], r#"["e"]"#)),
        (r#""rooms":"a""#, to(&["a"], &[], r#"["e"]"#)),
        (r#""rooms":["a",42,-7]"#, to(&["a", "42", "-7"], &[], r#"["e"]"#)),
        (r#""rooms":[ "a" , 42 ]"#, to(&["a", "42"], &[], r#"["e"]"#)),
        (r#""except":42"#, to(&[], &["42"], r#"["e"]"#)),
        (r#""except":[42,"b"]"#, to(&[], &["42", "b"], r#"["e"]"#)),
        (r#""except":null"#, to(&[], &[], r#"["e"]"#)),
        (r#""except":[]"#, to(&[], &[], r#"["e"]"#)),
        (r#""room":null"#, key("room", ROOMS)),
        (r#""rooms":null"#, key("rooms", ROOMS)),
        (r#""rooms":[null]"#, key("rooms", ROOMS)),
        (r#""rooms":["a",null]"#, key("rooms", ROOMS)),
        (r#""rooms":[["a"]]"#, key("rooms", ROOMS)),
        (r#""rooms":{"a":1}"#, key("rooms", ROOMS)),
        (r#""rooms":true"#, key("rooms", ROOMS)),
        (r#""room":false"#, key("room", ROOMS)),
        (r#""room":1e999"#, key("room", ROOMS)),
        (r#""except":true"#, key("except", ROOMS)),
        (r#""except":[null]"#, key("except", ROOMS)),
        (r#""except":{}"#, key("except", ROOMS)),
        (r#""room":"""#, empty.clone()),
        (r#""rooms":["a",""]"#, empty),
        (
            r#""room":null,"rooms":["a"]"#,
            Err("give `room` or `rooms`, not both".to_owned()),
        ),
        // Arguments stay as they are written.
        (r#""data":1.0"#, to(&[], &[], r#"["e",1.0]"#)),
        (r#""data":"a\ud800""#, to(&[], &[], r#"["e","a\ud800"]"#)),
        (
            r#""data":123456789012345678901234567890"#,
            to(&[], &[], r#"["e",123456789012345678901234567890]"#),
        ),
        (r#""data":{"a":1,"a":2}"#, to(&[], &[], r#"["e",{"a":1,"a":2}]"#)),
        (r#""data":[]"#, to(&[], &[], r#"["e",[]]"#)),
        (r#""data":"""#, to(&[], &[], r#"["e",""]"#)),
        (r#""data":false"#, to(&[], &[], r#"["e",false]"#)),
        (r#""args":[]"#, to(&[], &[], r#"["e"]"#)),
        (r#""args":[null,null]"#, to(&[], &[], r#"["e",null,null]"#)),
        (
            r#""data":{"_placeholder":true,"num":5}"#,
            to(&[], &[], r#"["e",{"_placeholder":true,"num":5}]"#),
        ),
        (
            r#""args":{}"#,
            Err("`args` must be a list; one value is `data`".to_owned()),
        ),
        // The rest.
        (r#""namespace":null"#, to(&[], &[], r#"["e"]"#)),
        (r#""namespace":"""#, to(&[], &[], r#"["e"]"#)),
        (r#""namespace":5"#, key("namespace", "a string")),
        (r#""namespace":["/"]"#, key("namespace", "a string")),
        (r#""volatile":false"#, to(&[], &[], r#"["e"]"#)),
        (r#""volatile":null"#, to(&[], &[], r#"["e"]"#)),
        (r#""volatile":1"#, key("volatile", "true or false")),
        (r#""volatile":"true""#, key("volatile", "true or false")),
        (r#""id":null"#, to(&[], &[], r#"["e"]"#)),
        (r#""id":true"#, key("id", ID)),
        (r#""id":{}"#, key("id", ID)),
        (r#""id":"""#, key("id", ID)),
        (&format!(r#""id":"{long}""#), key("id", ID)),
    ]
    .into_iter()
    .map(|(rest, expect)| (format!(r#"{{"event":"e",{rest}}}"#), expect))
    .collect();
    assert!(cases.len() > 50);
    for (text, expect) in cases {
        assert_eq!(plain(text.as_bytes()).map_err(|e| e.to_string()), expect, "{text}");
    }
    let id_of = |text: &str| match plain(text.as_bytes()) {
        Ok(Order::Emit { id, .. }) => id,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(id_of(r#"{"event":"e","id":7}"#).as_deref(), Some("7"));
    assert_eq!(id_of(r#"{"event":"e","id":"7"}"#).as_deref(), Some("7"));
    // Names of events: as they are written, and never one that stock clients would not take.
    let args_of = |text: &str| match plain(text.as_bytes()) {
        Ok(Order::Emit { args, .. }) => args,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(args_of(r#"{"event":"\ud800"}"#), r#"["\ud800"]"#);
    assert_eq!(args_of(r#" { "event" : "a" , "data" : 1 } "#), r#"["a",1]"#);
    for (text, why) in [
        (r#"{"event":5}"#, "`event` must be a string"),
        (r#"{"event":null}"#, "`event` must be a string"),
        (r#"{"event":["e"]}"#, "`event` must be a string"),
        (r#"{"event":"d\u0069sconnect"}"#, "reserved"),
        (r#"{"event":"newListener"}"#, "reserved"),
        (r#"["e"]"#, "no JSON object"),
        (r#"["e",null,null,"a"]"#, "no JSON object"),
        (r#"{"event":"e","event":"f"}"#, "duplicate field `event`"),
        (r#"{"event":"e","namespace":"/a\u001eb"}"#, "control character"),
        (r#"{"event":"e","namespace":"/a,b"}"#, "namespace"),
        ("null", "expected"),
        ("5", "invalid type"),
    ] {
        let error = plain(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn noise_is_refused_or_understood_but_never_a_panic() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let mut noise: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
        if rng.bool() {
            noise.insert(0, 0x93);
        }
        drop(broadcast(&noise));
        drop(python(&noise));
        drop(request("/", &noise));
        drop(plain(&noise));
    }
}
