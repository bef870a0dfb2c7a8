//! Writes packets. Every function appends the Socket.IO packet *without* the Engine.IO `4`: start
//! the `String` with [`crate::engine::message`] when it goes straight to a transport.
//!
//! JSON arguments are trusted: they come validated from [`super::decode`] or from a serializer.
//! A namespace must begin with `/` and hold no `,`.

use super::Packet;
use crate::json;

/// Appends any packet, as its own function would: what [`super::decode`] read is written back.
pub fn encode(out: &mut String, packet: &Packet<'_>) {
    match packet {
        Packet::Connect { nsp, auth } => encode_connect(out, nsp, auth.unwrap_or("")),
        Packet::Disconnect { nsp } => encode_disconnect(out, nsp),
        Packet::Event {
            nsp,
            ack,
            args,
            attachments,
        } => encode_event(out, nsp, *ack, args.whole(), *attachments),
        Packet::Ack {
            nsp,
            id,
            args,
            attachments,
        } => encode_ack(out, nsp, *id, args, *attachments),
        Packet::ConnectError { nsp, data } => encode_connect_error(out, nsp, data.unwrap_or("")),
    }
}

/// Appends an event: type 2, or 5 with attachments. `args` is the whole array, `["name",…]`.
pub fn encode_event(out: &mut String, nsp: &str, ack: Option<u128>, args: &str, attachments: usize) {
    push_head(out, ['2', '5'], nsp, ack, attachments);
    out.push_str(args);
}

/// Appends an event from its name and the raw text of its arguments, `1,"2"` (maybe empty).
pub fn encode_event_values(
    out: &mut String,
    nsp: &str,
    ack: Option<u128>,
    name: &str,
    values: &str,
    attachments: usize,
) {
    push_head(out, ['2', '5'], nsp, ack, attachments);
    out.push('[');
    json::push_string(out, name);
    if !values.is_empty() {
        out.push(',');
        out.push_str(values);
    }
    out.push(']');
}

/// Appends an ack: type 3, or 6 with attachments. `args` is the whole array, `[…]`.
pub fn encode_ack(out: &mut String, nsp: &str, id: u128, args: &str, attachments: usize) {
    push_head(out, ['3', '6'], nsp, Some(id), attachments);
    out.push_str(args);
}

/// Appends an ack from the raw text of its arguments, `1,"2"` (maybe empty): what
/// [`Args::rest`](super::Args::rest) gives, so an echo copies once.
pub fn encode_ack_values(out: &mut String, nsp: &str, id: u128, values: &str, attachments: usize) {
    push_head(out, ['3', '6'], nsp, Some(id), attachments);
    out.push('[');
    out.push_str(values);
    out.push(']');
}

/// Appends a CONNECT; `object` is a JSON object such as `{"sid":"…"}`, or empty.
pub fn encode_connect(out: &mut String, nsp: &str, object: &str) {
    out.push('0');
    push_nsp(out, nsp);
    out.push_str(object);
}

/// Appends a CONNECT_ERROR; `data` is a JSON object such as `{"message":"Invalid namespace"}`.
pub fn encode_connect_error(out: &mut String, nsp: &str, data: &str) {
    out.push('4');
    push_nsp(out, nsp);
    out.push_str(data);
}

/// Appends a DISCONNECT.
pub fn encode_disconnect(out: &mut String, nsp: &str) {
    out.push('1');
    push_nsp(out, nsp);
}

/// The array of an event with a recovery offset as its last argument: `["a",1]` → `["a",1,"off"]`
/// (connection state recovery). An event without arguments gets a `null` before it, `["a",null,"off"]`: its handler must not
/// take the offset for data. (The reference server sends `["a","off"]`.) Text that is no array comes back as it is.
#[must_use]
pub fn with_offset(args: &str, offset: &str) -> String {
    let Some(inside) = json::inside(args) else {
        return args.to_owned();
    };
    let mut out = String::with_capacity(inside.len() + offset.len() + 5);
    out.push('[');
    out.push_str(inside);
    if !inside.is_empty() {
        out.push(',');
        if json::split_value(inside).1.is_empty() {
            out.push_str("null,");
        }
    }
    json::push_string(&mut out, offset);
    out.push(']');
    out
}

/// The same for a whole event as it goes to the transport, `42/chat,["a",1]`; what is no event comes back as it is.
#[must_use]
pub fn event_with_offset(text: &str, offset: &str) -> String {
    let head = text.len() - args_of(text).len();
    let (head, args) = text.split_at(head);
    let mut out = String::with_capacity(text.len() + offset.len() + 8);
    out.push_str(head);
    out.push_str(&with_offset(args, offset));
    out
}

/// What stands behind the types, the number of attachments, the namespace and the id of an ack.
fn args_of(text: &str) -> &str {
    let is_number = |c: char| c.is_ascii_digit() || c == '-';
    let rest = text.trim_start_matches(is_number);
    let rest = match rest.strip_prefix('/') {
        Some(nsp) => nsp.split_once(',').map_or("", |(_, rest)| rest),
        None => rest,
    };
    rest.trim_start_matches(is_number)
}

fn push_head(out: &mut String, [plain, binary]: [char; 2], nsp: &str, id: Option<u128>, attachments: usize) {
    let mut number = itoa::Buffer::new();
    if attachments == 0 {
        out.push(plain);
    } else {
        out.push(binary);
        out.push_str(number.format(attachments));
        out.push('-');
    }
    push_nsp(out, nsp);
    if let Some(id) = id {
        out.push_str(number.format(id));
    }
}

fn push_nsp(out: &mut String, nsp: &str) {
    if nsp != "/" {
        out.push_str(nsp);
        out.push(',');
    }
}
