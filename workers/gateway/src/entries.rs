//! Entries for the log, and which of them clients can read.

use bytes::Bytes;
use session::{Entry, EntryKind, Limits, Sid, Target};
use store::Dedupe;
use wire::engine;
use wire::foreign::{Audience, Order};
use wire::socket;

/// The entry of an event. Every event that gets into the log is made here: none that would cost stock clients their
/// connection, as one with more attachments than they take does, or with a placeholder that stands for none.
pub(crate) fn event(
    kind: EntryKind,
    target: Target,
    args: &str,
    attachments: Vec<Bytes>,
    limits: &Limits,
) -> Result<Bytes, wire::Error> {
    socket::check_attachments(args, attachments.len(), attachments_max(limits))?;
    let mut text = engine::message(args.len() + target.nsp.len() + 8);
    socket::encode_event(&mut text, &target.nsp, None, args, attachments.len());
    let entry = Entry {
        kind,
        target,
        text: text.into(),
        attachments,
    };
    Ok(entry.encode().into())
}

/// Most attachments of one event: as many as stock clients take, more only if the clients are said to send more.
fn attachments_max(limits: &Limits) -> usize {
    limits
        .packet
        .attachments_max
        .max(socket::Limits::default().attachments_max)
}

/// Whether clients can read an entry of the log: builds before this wrote some that they cannot. What has no attachments is
/// not looked at.
pub(crate) fn check(entry: &Entry, limits: &Limits) -> Result<(), wire::Error> {
    if !matches!(entry.kind, EntryKind::Ack | EntryKind::Emit | EntryKind::Volatile) || entry.attachments.is_empty() {
        return Ok(());
    }
    // `Entry::decode` checked that it is UTF-8.
    let text = std::str::from_utf8(&entry.text).unwrap_or_default();
    socket::check_attachments(text, entry.attachments.len(), attachments_max(limits)).map(drop)
}

/// The entry of an order from outside, and the id under which it counts once; `None` if nothing is to be done.
///
/// # Errors
/// Stock clients could not read it.
pub(crate) fn entry_of(order: Order, limits: &Limits) -> Result<Option<(Bytes, Option<Dedupe>)>, wire::Error> {
    let target = |audience: Audience| Target {
        nsp: audience.nsp,
        rooms: audience.rooms,
        except: audience.except,
    };
    let notice = |kind, audience, text: String| {
        let entry = Entry {
            kind,
            target: target(audience),
            text: text.into(),
            attachments: Vec::new(),
        };
        (Bytes::from(entry.encode()), None)
    };
    // A list of strings: serialisation cannot fail.
    let names = |rooms: &[String]| serde_json::to_string(rooms).unwrap_or_default();
    Ok(Some(match order {
        Order::Nothing => return Ok(None),
        Order::Emit {
            audience,
            args,
            attachments,
            volatile,
            id,
        } => {
            let kind = if volatile { EntryKind::Volatile } else { EntryKind::Emit };
            let dedupe = id.map(|id| Dedupe::event(&audience.nsp, &audience.rooms, &id));
            (event(kind, target(audience), &args, attachments, limits)?, dedupe)
        }
        Order::Join { audience, rooms } => notice(EntryKind::Join, audience, names(&rooms)),
        Order::Leave { audience, rooms } => notice(EntryKind::Leave, audience, names(&rooms)),
        Order::Disconnect { audience, close } => notice(EntryKind::Disconnect, audience, close.to_string()),
    }))
}

/// The entry that tells all workers: this session was taken over at this epoch.
pub(crate) fn takeover(sid: &Sid, epoch: u64) -> Bytes {
    let text = format!("{sid} {epoch}").into();
    let entry = Entry {
        kind: EntryKind::Takeover,
        target: Target::default(),
        text,
        attachments: Vec::new(),
    };
    entry.encode().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(attachments_max: usize) -> Limits {
        Limits {
            packet: socket::Limits {
                attachments_max,
                ..socket::Limits::default()
            },
            attachment_bytes_max: 1 << 20,
            namespaces: None,
            namespaces_max: 1,
        }
    }

    fn order(args: &str, attachments: usize) -> Order {
        Order::Emit {
            audience: Audience {
                nsp: "/".to_owned(),
                ..Audience::default()
            },
            args: args.to_owned(),
            attachments: vec![Bytes::from_static(b"b"); attachments],
            volatile: false,
            id: None,
        }
    }

    #[test]
    fn what_stock_clients_cannot_read_becomes_no_entry_and_is_left_out_where_it_is_one() {
        use wire::Error::{PlaceholderInvalid, TooManyAttachments};
        let too_many = |max| Err(TooManyAttachments { max });
        let forged = r#"["a",{"_placeholder":true,"num":5}]"#;
        for (args, attachments, max, expect) in [
            (r#"["a"]"#, 0, 10, Ok(())),
            (r#"["a"]"#, 10, 10, Ok(())),
            (r#"["a"]"#, 11, 10, too_many(10)),
            // A lower limit is for what clients send; a higher one says that they read more.
            (r#"["a"]"#, 10, 2, Ok(())),
            (r#"["a"]"#, 11, 2, too_many(10)),
            (r#"["a"]"#, 11, 20, Ok(())),
            (r#"["a"]"#, 21, 20, too_many(20)),
            // Without attachments it is data like any other.
            (forged, 0, 10, Ok(())),
            (forged, 1, 10, Err(PlaceholderInvalid)),
            (forged, 6, 10, Ok(())),
        ] {
            let limits = limits(max);
            let made = entry_of(order(args, attachments), &limits).map(drop);
            assert_eq!(made, expect, "{args} {attachments} {max}");
            // As a build before this wrote it.
            let mut text = engine::message(64);
            socket::encode_event(&mut text, "/", None, args, attachments);
            let entry = Entry {
                kind: EntryKind::Volatile,
                target: Target::default(),
                text: text.into(),
                attachments: vec![Bytes::from_static(b"b"); attachments],
            };
            assert_eq!(check(&entry, &limits), expect, "{args} {attachments} {max}");
        }
    }
}
