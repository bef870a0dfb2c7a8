//! A packet on its way to one client, in a form that suits both transports.

use bytes::Bytes;
use session::{Joined, Pid};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use wire::engine::{self, Payload};
use wire::socket;

/// An Engine.IO text packet (`4…`, `2`, …) and the binary messages that follow it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) text: Utf8Bytes,
    pub(crate) attachments: Vec<Bytes>,
}

impl Packet {
    pub(crate) fn text(text: impl Into<Utf8Bytes>) -> Self {
        Self {
            text: text.into(),
            attachments: Vec::new(),
        }
    }

    /// Its bytes, without frames around them.
    pub(crate) fn size(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// An ack; `inner` is the inside of its JSON array.
    pub(crate) fn ack(nsp: &str, id: u128, inner: &str, attachments: Vec<Bytes>) -> Self {
        let mut text = engine::message(inner.len() + nsp.len() + 32);
        socket::encode_ack_values(&mut text, nsp, id, inner, attachments.len());
        Self {
            text: text.into(),
            attachments,
        }
    }

    /// An ack that says why it could not be done.
    pub(crate) fn error_ack(nsp: &str, id: u128, why: &str) -> Self {
        Self::ack(nsp, id, &serde_json::json!({ "error": why }).to_string(), Vec::new())
    }

    /// The answer to CONNECT of a client that is let in.
    pub(crate) fn connect(nsp: &str, joined: &Joined) -> Self {
        Self::connected(nsp, joined.sid.as_str(), joined.pid.as_ref().map(Pid::as_str))
    }

    fn connected(nsp: &str, sid: &str, pid: Option<&str>) -> Self {
        let object = match pid {
            Some(pid) => format!(r#"{{"sid":"{sid}","pid":"{pid}"}}"#),
            None => format!(r#"{{"sid":"{sid}"}}"#),
        };
        let mut text = engine::message(object.len() + nsp.len() + 8);
        socket::encode_connect(&mut text, nsp, &object);
        Self::text(text)
    }

    pub(crate) fn connect_error(nsp: &str, message: &str, data: Option<&str>) -> Self {
        let message = serde_json::Value::from(message);
        let object = match data {
            Some(data) => format!(r#"{{"message":{message},"data":{data}}}"#),
            None => format!(r#"{{"message":{message}}}"#),
        };
        let mut text = engine::message(object.len() + nsp.len() + 8);
        socket::encode_connect_error(&mut text, nsp, &object);
        Self::text(text)
    }

    /// CONNECT_ERROR with the application's own object, if it is text.
    pub(crate) fn refusal(nsp: &str, object: &[u8]) -> Self {
        let object = std::str::from_utf8(object).unwrap_or("{}");
        let mut text = engine::message(object.len() + nsp.len() + 8);
        socket::encode_connect_error(&mut text, nsp, object);
        Self::text(text)
    }

    /// The server takes the client out of a namespace.
    pub(crate) fn disconnect(nsp: &str) -> Self {
        let mut text = engine::message(nsp.len() + 8);
        socket::encode_disconnect(&mut text, nsp);
        Self::text(text)
    }

    /// As a part of a poll's answer, which is also its form as mail.
    pub(crate) fn push_to(&self, payload: &mut Payload) {
        if !self.text.is_empty() {
            payload.push_text(&self.text);
        }
        for attachment in &self.attachments {
            payload.push_binary(attachment);
        }
    }

    /// A binary message for a client that asked for text: `b` and base64.
    pub(crate) fn as_text(bytes: &[u8]) -> String {
        let mut payload = Payload::with_capacity(bytes.len() * 4 / 3 + 4);
        payload.push_binary(bytes);
        payload.finish()
    }

    /// Mail: what a poll would have carried.
    pub(crate) fn to_mail(&self) -> Bytes {
        let mut payload = Payload::with_capacity(self.text.len());
        self.push_to(&mut payload);
        Bytes::from(payload.finish())
    }

    /// The packets of a piece of mail, for a session that has moved to WebSocket.
    pub(crate) fn from_mail(mail: &Bytes) -> Vec<Message> {
        let text = std::str::from_utf8(mail).unwrap_or_default();
        let packets = text.split(char::from(engine::SEPARATOR));
        let message = |packet: &str| match engine::decode(packet) {
            Ok(engine::Packet::Binary(bytes)) => Message::Binary(bytes),
            Ok(_) | Err(_) => Message::text(packet),
        };
        packets.map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_keeps_text_and_attachments() {
        let packet = Packet::ack(
            "/",
            7,
            r#"{"_placeholder":true,"num":0}"#,
            vec![Bytes::from_static(&[1, 2, 3])],
        );
        let [text, attachment] = &Packet::from_mail(&packet.to_mail())[..] else {
            panic!("not a text and an attachment");
        };
        assert_eq!(*text, Message::text(r#"461-7[{"_placeholder":true,"num":0}]"#));
        assert_eq!(*attachment, Message::binary(packet.attachments[0].clone()));
    }

    #[test]
    fn answers_are_those_of_the_protocol() {
        let check = |packet: Packet, expect: &str| assert_eq!(packet.text.as_str(), expect);
        check(Packet::connected("/", "abc", None), r#"40{"sid":"abc"}"#);
        check(
            Packet::connected("/c", "abc", Some("p")),
            r#"40/c,{"sid":"abc","pid":"p"}"#,
        );
        check(
            Packet::connect_error("/c", "a \"b\"", Some("[1]")),
            r#"44/c,{"message":"a \"b\"","data":[1]}"#,
        );
        check(Packet::error_ack("/", 0, "no"), r#"430[{"error":"no"}]"#);
    }
}
