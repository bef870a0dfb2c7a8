//! Engine.IO over WebSocket, on the echo endpoint.

use crate::echo_server;
use crate::harness::{Frame, Plan, Wire};

#[tokio::test]
async fn what_is_sent_comes_back() {
    let server = echo_server().await;
    let mut wire = Wire::open_echo(&server).await;
    for text in ["4hello", "4", "4žluť 🐎 \u{2028}\u{0}\u{1e}4x"] {
        wire.send(text).await;
        assert_eq!(wire.data().await, text);
    }
    for bytes in [&b"\x01\x02"[..], b"", &[0xff; 70_000]] {
        wire.send_binary(bytes).await;
        assert_eq!(wire.next().await, Frame::Binary(bytes.to_vec()));
    }
    for number in 0..200 {
        wire.send(&format!("4{number}")).await;
    }
    for number in 0..200 {
        assert_eq!(wire.data().await, format!("4{number}"));
    }
}

#[tokio::test]
async fn binary_as_base64_for_who_asks() {
    let server = echo_server().await;
    let mut wire = Wire::dial(server.addr, "/engine.io/?EIO=4&transport=websocket&b64=1", &[])
        .await
        .expect("a WebSocket");
    assert!(wire.text().await.starts_with("0{"));
    wire.send_binary(&[1, 2, 3]).await;
    assert_eq!(wire.data().await, "bAQID");
    wire.send("bAQIDBA==").await;
    assert_eq!(wire.data().await, "bAQIDBA==");
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    let server = Plan::new()
        .with(crate::ECHO)
        .with("engine = { max_payload_bytes = 1000 }")
        .start()
        .await;
    let mut wire = Wire::open_echo(&server).await;
    let full = format!("4{}", "x".repeat(999));
    wire.send(&full).await;
    assert_eq!(wire.data().await, full);
    wire.send(&format!("{full}x")).await;
    assert_eq!(wire.end().await, Some(1009));
    let mut wire = Wire::open_echo(&server).await;
    wire.send_binary(&[0; 1001]).await;
    assert_eq!(wire.end().await, Some(1009));
    // In pieces it is as long.
    let mut wire = Wire::open_echo(&server).await;
    wire.send_pieces(&full, &["x"]).await;
    assert_eq!(wire.end().await, Some(1009));
}

#[tokio::test]
async fn a_message_may_come_in_pieces() {
    let server = echo_server().await;
    let mut wire = Wire::open_echo(&server).await;
    wire.send_pieces("4one ", &["two ", "", "three"]).await;
    assert_eq!(wire.data().await, "4one two three");
}

#[tokio::test]
async fn what_is_no_packet_closes() {
    let server = echo_server().await;
    let mut bystander = Wire::open_echo(&server).await;
    for text in ["abc", "", "7", "b!!!", "1"] {
        let mut wire = Wire::open_echo(&server).await;
        wire.send(text).await;
        let code = wire.end().await;
        assert!(matches!(code, None | Some(1000)), "{text:?}: {code:?}");
    }
    bystander.send("4there").await;
    assert_eq!(bystander.data().await, "4there");
}

#[tokio::test]
async fn packets_of_the_server_are_ignored_from_a_client() {
    let server = echo_server().await;
    let mut wire = Wire::open_echo(&server).await;
    for text in ["0", "5", "6", "3"] {
        wire.send(text).await;
    }
    wire.send("4there").await;
    assert_eq!(wire.data().await, "4there");
}
