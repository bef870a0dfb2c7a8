//! Golden vectors and refusals of the Socket.IO parser and encoder.

use super::*;

fn args(whole: &str) -> Args<'_> {
    Args::read(whole).unwrap()
}

fn event<'a>(nsp: &'a str, ack: Option<u128>, whole: &'a str, attachments: usize) -> Packet<'a> {
    Packet::Event {
        nsp,
        ack,
        args: args(whole),
        attachments,
    }
}

/// Vectors as captured, the `4` taken off: they decode to the packet, which encodes to them.
#[test]
fn golden_vectors() {
    #[track_caller]
    fn check(text: &str, expect: Packet<'_>) {
        let mut out = String::new();
        encode(&mut out, &expect);
        assert_eq!(out, text);
        assert_eq!(decode(text, &Limits::default()), Ok(expect), "{text}");
    }
    let whole = r#"["message",1,"2",{"3":[true]}]"#;
    check(r#"2["message",1,"2",{"3":[true]}]"#, event("/", None, whole, 0));
    check(r#"2/admin,1["tellme"]"#, event("/admin", Some(1), r#"["tellme"]"#, 0));
    check(
        r#"2456["message-with-ack",1]"#,
        event("/", Some(456), r#"["message-with-ack",1]"#, 0),
    );
    check(r#"20["withack",5]"#, event("/", Some(0), r#"["withack",5]"#, 0));
    check(r#"2/custom,["auth",{}]"#, event("/custom", None, r#"["auth",{}]"#, 0));
    let two = r#"["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    check(&format!("52-{two}"), event("/", None, two, 2));
    check(&format!("52-7{two}"), event("/", Some(7), two, 2));
    let offset = r#"["bin",{"_placeholder":true,"num":0},"1795378604806-0"]"#;
    check(&format!("51-{offset}"), event("/", None, offset, 1));
    let ack = |nsp, id, args, attachments| Packet::Ack {
        nsp,
        id,
        args,
        attachments,
    };
    check("3456[1]", ack("/", 456, "[1]", 0));
    check("35[]", ack("/", 5, "[]", 0));
    let one = r#"[{"_placeholder":true,"num":0}]"#;
    check(&format!("61-/admin,1{one}"), ack("/admin", 1, one, 1));
    let both = r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    check(&format!("62-7{both}"), ack("/", 7, both, 2));
    let connect = |nsp, auth| Packet::Connect { nsp, auth };
    check("0", connect("/", None));
    check(r#"0{"token":"123"}"#, connect("/", Some(r#"{"token":"123"}"#)));
    check(r#"0/custom,{"a":1}"#, connect("/custom", Some(r#"{"a":1}"#)));
    check("0/custom,", connect("/custom", None));
    check("0/custom?x=1,", connect("/custom?x=1", None));
    let recover = r#"{"pid":"HeQYh8xSU0AcEECuAAAB","offset":"1795378605112-0"}"#;
    check(&format!("0{recover}"), connect("/", Some(recover)));
    check("1/admin,", Packet::Disconnect { nsp: "/admin" });
    check("1", Packet::Disconnect { nsp: "/" });
    let error = |nsp, data| Packet::ConnectError { nsp, data: Some(data) };
    let invalid = r#"{"message":"Invalid namespace"}"#;
    check(&format!("4/random,{invalid}"), error("/random", invalid));
    check(&format!("4/custom?x=1,{invalid}"), error("/custom?x=1", invalid));
    let data = r#"{"message":"not authorized","data":{"content":"retry"}}"#;
    check(&format!("4/mw,{data}"), error("/mw", data));
}

/// Legal forms that are written otherwise.
#[test]
fn other_forms() {
    #[track_caller]
    fn check(text: &str, expect: Packet<'_>) {
        assert_eq!(decode(text, &Limits::default()), Ok(expect), "{text}");
    }
    check(
        "0/random",
        Packet::Connect {
            nsp: "/random",
            auth: None,
        },
    );
    check("0/,", Packet::Connect { nsp: "/", auth: None });
    check("0/", Packet::Connect { nsp: "/", auth: None });
    check("0\n", Packet::Connect { nsp: "/", auth: None });
    check("1/a", Packet::Disconnect { nsp: "/a" });
    check(r#"50-["x"]"#, event("/", None, r#"["x"]"#, 0));
    check(
        "60-1[]",
        Packet::Ack {
            nsp: "/",
            id: 1,
            args: "[]",
            attachments: 0,
        },
    );
    check("2[\"x\"]\r\n", event("/", None, r#"["x"]"#, 0));
    check(r#"2007["x"]"#, event("/", Some(7), r#"["x"]"#, 0));
    let max = r#"2340282366920938463463374607431768211455["x"]"#;
    check(max, event("/", Some(u128::MAX), r#"["x"]"#, 0));
    check(
        r#"4"no""#,
        Packet::ConnectError {
            nsp: "/",
            data: Some(r#""no""#),
        },
    );
    check("4", Packet::ConnectError { nsp: "/", data: None });
    let ten = (0..10).map(|n| format!(",{{\"_placeholder\":true,\"num\":{n}}}"));
    let ten = format!("[\"x\"{}]", ten.collect::<String>());
    check(&format!("510-{ten}"), event("/", None, &ten, 10));
    // Without attachments such an object is data.
    let data = r#"["x",{"_placeholder":true,"num":3}]"#;
    check(&format!("2{data}"), event("/", None, data, 0));
    check(&format!("50-{data}"), event("/", None, data, 0));
}

const SMALL: Limits = Limits {
    attachments_max: 10,
    nsp_bytes_max: 8,
    depth_max: 4,
};

#[track_caller]
fn refuses(text: &str, expect: Error) {
    assert_eq!(decode(text, &SMALL), Err(expect), "{text}");
}

#[test]
fn refuses_payloads() {
    refuses("", Error::Empty);
    for text in ["7", "9[]", "x", "é", " 2[\"a\"]", "-"] {
        refuses(text, Error::TypeUnknown);
    }
    for text in ["2", "2/a,", "2/a", "2/a[\"x\"]", "21", "3/a,5", "35", "50-", "61-1"] {
        refuses(text, Error::PayloadMissing);
    }
    for text in [
        "2{}", "2\"x\"", "2null", "35{}", "0[1]", "0\"x\"", "0true", "4[]", "4null",
    ] {
        refuses(text, Error::PayloadMistyped);
    }
    for text in ["1{}", "1/a,[]", "1x"] {
        refuses(text, Error::PayloadUnexpected);
    }
    for text in [
        "2[",
        "2[\"a\"]x",
        "2[\"a\"][]",
        "2[\"a\",]",
        "2 [\"a\"]",
        "2a",
        "0x",
        "0 {}",
        "0{}x",
        "0{",
        "4{",
        "4x",
        "2-[\"a\"]",
        "21-[\"a\"]",
        "31-[]",
        "2[\"a\",01]",
        "2[\"\u{1e}\"]",
        "2,[\"a\"]",
        "35[",
        "0{}{}",
        "2[\"a\"]\u{a0}",
    ] {
        refuses(text, Error::JsonInvalid);
    }
    for text in ["2[]", "2[null]", "2[{}]", "2[[\"a\"]]", "2[true]"] {
        refuses(text, Error::EventNameInvalid);
    }
    for name in [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
        "\\u0063onnect",
    ] {
        refuses(&format!("2[\"{name}\"]"), Error::EventNameReserved);
        refuses(&format!("50-[ \"{name}\" ,1]"), Error::EventNameReserved);
    }
}

#[test]
fn refuses_heads() {
    refuses(r#"2340282366920938463463374607431768211456["x"]"#, Error::AckIdInvalid);
    refuses("3[]", Error::AckIdMissing);
    for text in ["01", "01{}", "11", "41{}", "0/a,1{}", "01-{}", "11-"] {
        refuses(text, Error::AckIdUnexpected);
    }
    for text in [
        "5",
        "5[\"x\"]",
        "5-[\"x\"]",
        "51[\"x\"]",
        "51.0-[\"x\"]",
        "6/a,1[]",
        "5 1-[]",
    ] {
        refuses(text, Error::AttachmentsInvalid);
    }
    for count in ["11", "99999999999999999999999", "18446744073709551616"] {
        refuses(&format!("5{count}-[\"x\"]"), Error::TooManyAttachments { max: 10 });
    }
    refuses(r#"51-["x",{"_placeholder":true,"num":1}]"#, Error::PlaceholderInvalid);
    refuses(r#"61-1[{"_placeholder":true,"num":1}]"#, Error::PlaceholderInvalid);
    refuses("1/12345678", Error::NamespaceTooLong { max: 8 });
    refuses("2/12345678,[\"x\"]", Error::NamespaceTooLong { max: 8 });
    refuses("0/a\u{1e}4", Error::NamespaceInvalid);
    refuses("2[\"x\",[[[[]]]]]", Error::JsonTooDeep { max: 4 });
    refuses("0{\"a\":[[[[]]]]}", Error::JsonTooDeep { max: 4 });
}

#[test]
fn args_are_slices() {
    fn check(whole: &str, name: &str, rest: &str, values: &[&str]) {
        let packet = format!("2{whole}");
        let Ok(Packet::Event { args, .. }) = decode(&packet, &Limits::default()) else {
            panic!("{whole}");
        };
        assert_eq!((args.whole(), args.name(), args.rest()), (whole, name, rest));
        assert_eq!(args.values().collect::<Vec<_>>(), values, "{whole}");
    }
    check(r#"["a"]"#, "a", "", &[]);
    check(r#"[""]"#, "", "", &[]);
    check(
        r#"["a",1,"2",{"3":[true]}]"#,
        "a",
        r#"1,"2",{"3":[true]}"#,
        &["1", "\"2\"", r#"{"3":[true]}"#],
    );
    check(r#"[ "a" , 1 , [ ] ]"#, "a", "1 , [ ]", &["1", "[ ]"]);
    check(r#"["\u00e9\"\\\n,",1]"#, "é\"\\\n,", "1", &["1"]);
    check("[5]", "5", "", &[]);
    check("[-1.5e3,null]", "-1.5e3", "null", &["null"]);
    check(r#"["é😀","é"]"#, "é😀", "\"é\"", &["\"é\""]);
}

#[test]
fn appends_offsets() {
    let check = |args, expect| assert_eq!(with_offset(args, "1795378604500-0"), expect);
    check(r#"["hello","w",false]"#, r#"["hello","w",false,"1795378604500-0"]"#);
    check(r#"["hello" ] "#, r#"["hello",null,"1795378604500-0"]"#);
    check(r#"["a,b"]"#, r#"["a,b",null,"1795378604500-0"]"#);
    check(r#"["a\"]",[","]]"#, r#"["a\"]",[","],"1795378604500-0"]"#);
    check(r#"["a",null]"#, r#"["a",null,"1795378604500-0"]"#);
    check("[ ]", r#"["1795378604500-0"]"#);
    check("{}", "{}");
    let check = |text, expect| assert_eq!(event_with_offset(text, "9-3"), expect);
    check(r#"42["m"]"#, r#"42["m",null,"9-3"]"#);
    check(r#"42/a[b,["m","x"]"#, r#"42/a[b,["m","x","9-3"]"#);
    check(
        r#"452-/a-1,7["m",{"_placeholder":true,"num":0}]"#,
        r#"452-/a-1,7["m",{"_placeholder":true,"num":0},"9-3"]"#,
    );
    check("42", "42");
}

#[test]
fn encodes_from_values() {
    let mut out = crate::engine::message(64);
    encode_event_values(&mut out, "/", Some(0), "a\"b", "1,[2]", 0);
    assert_eq!(out, r#"420["a\"b",1,[2]]"#);
    out.clear();
    encode_event_values(&mut out, "/n", None, "a", "", 0);
    encode_ack_values(&mut out, "/n", u128::from(u64::MAX), "", 0);
    encode_ack_values(&mut out, "/", 7, r#"{"_placeholder":true,"num":0}"#, 1);
    assert_eq!(
        out,
        r#"2/n,["a"]3/n,18446744073709551615[]61-7[{"_placeholder":true,"num":0}]"#
    );
}

#[test]
#[cfg_attr(miri, ignore = "megabytes of brackets")]
fn deep_nesting_does_not_overflow() {
    let deep = 500_000;
    let limits = Limits::default();
    let open = format!("2{}", "[".repeat(deep));
    assert_eq!(decode(&open, &limits), Err(Error::JsonInvalid));
    let closed = format!("51-[\"x\",{}{}]", "[".repeat(deep), "]".repeat(deep));
    assert_eq!(decode(&closed, &limits), Err(Error::JsonTooDeep { max: 64 }));
    let unlimited = Limits {
        depth_max: usize::MAX,
        ..limits
    };
    assert!(decode(&closed, &unlimited).is_ok());
    let auth = format!("0{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep));
    assert_eq!(decode(&auth, &limits), Err(Error::JsonTooDeep { max: 64 }));
}
