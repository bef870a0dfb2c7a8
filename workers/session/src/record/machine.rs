//! The Socket.IO state machine of a session: what a client's packet means, given what the session
//! is. It decides; the gateway acts. It is the same for both transports.

use super::{Joined, Partial, Record};
use bytes::Bytes;
use wire::socket::{self, Args, Packet};

/// What a client may do; from `[socket]` of the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Limits of a single packet.
    pub packet: socket::Limits,
    /// Bytes of all attachments of one packet together.
    pub attachment_bytes_max: usize,
    /// Namespaces that exist; `None` means any.
    pub namespaces: Option<Vec<String>>,
    /// Namespaces that one client may join.
    pub namespaces_max: usize,
}

/// What is to be done about a packet.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing: a packet whose attachments are still to come.
    Nothing,
    /// The client asks to join a namespace: the application decides.
    Connect {
        /// Its name.
        nsp: &'a str,
        /// A JSON object.
        auth: Option<&'a str>,
    },
    /// The client asks for a namespace that it cannot have: answer with this message.
    Refuse {
        /// Its name.
        nsp: &'a str,
        /// For the CONNECT_ERROR.
        message: &'static str,
    },
    /// The client left a namespace.
    Left {
        /// Its name.
        nsp: &'a str,
        /// What was known about the membership.
        joined: Joined,
    },
    /// An event for the application.
    Event(Event<'a>),
    /// An ack of what the server emitted.
    Answer(Answer<'a>),
}

/// An ack from a client.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Namespace, which the client has joined.
    pub nsp: &'a str,
    /// The id that the server gave its event.
    pub id: u128,
    /// A JSON array.
    pub args: &'a str,
    /// What the placeholders in it stand for.
    pub attachments: Vec<Bytes>,
}

/// An event from a client.
#[derive(Debug)]
pub struct Event<'a> {
    /// Namespace, which the client has joined.
    pub nsp: &'a str,
    /// The id under which the client waits for an ack.
    pub ack: Option<u128>,
    /// Name and arguments.
    pub args: Args<'a>,
    /// What the placeholders in the arguments stand for.
    pub attachments: Vec<Bytes>,
}

/// Why a connection must be closed: always the client's fault.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Not a packet.
    #[error("{0}")]
    Packet(#[from] wire::Error),
    /// Attachments are larger than allowed together.
    #[error("attachments are larger than {max} bytes together")]
    AttachmentBytes {
        /// The limit.
        max: usize,
    },
    /// A text packet where attachments were due.
    #[error("a packet came where attachments were due")]
    AttachmentsMissing,
    /// CONNECT for a namespace that is joined already.
    #[error("CONNECT for a namespace that is joined already")]
    ConnectedTwice,
    /// A CONNECT_ERROR, which only servers send.
    #[error("CONNECT_ERROR from a client")]
    ConnectError,
    /// An event, ack or disconnect in a namespace that is not joined.
    #[error("a packet for a namespace that is not joined")]
    NotConnected,
    /// An attachment that nothing announced.
    #[error("binary data that no packet announced")]
    UnexpectedBinary,
}

impl Record {
    /// Takes the text of a Socket.IO packet (without the Engine.IO `4`).
    ///
    /// # Errors
    /// A [`Violation`]: the connection must be closed.
    pub fn text<'a>(&mut self, text: &'a str, limits: &Limits) -> Result<Step<'a>, Violation> {
        if self.partial.is_some() {
            return Err(Violation::AttachmentsMissing);
        }
        let packet = socket::decode(text, &limits.packet)?;
        match packet {
            Packet::Event {
                nsp, attachments: 1.., ..
            }
            | Packet::Ack {
                nsp, attachments: 1.., ..
            } => {
                // Before the attachments: nothing is gathered for a client that may not send it.
                self.joined(nsp)?;
                self.partial = Some(Partial {
                    text: text.to_owned(),
                    attachments: Vec::new(),
                });
                Ok(Step::Nothing)
            }
            whole @ (Packet::Event { .. }
            | Packet::Ack { .. }
            | Packet::Connect { .. }
            | Packet::Disconnect { .. }
            | Packet::ConnectError { .. }) => self.step(whole, Vec::new(), limits),
        }
    }

    /// Takes an attachment; the packet, once it is whole.
    ///
    /// # Errors
    /// A [`Violation`]: the connection must be closed.
    pub fn binary(&mut self, bytes: Bytes, limits: &Limits) -> Result<Option<Partial>, Violation> {
        let partial = self.partial.as_mut().ok_or(Violation::UnexpectedBinary)?;
        partial.attachments.push(bytes);
        let size: usize = partial.attachments.iter().map(Bytes::len).sum();
        if size > limits.attachment_bytes_max {
            return Err(Violation::AttachmentBytes {
                max: limits.attachment_bytes_max,
            });
        }
        let due = match socket::decode(&partial.text, &limits.packet)? {
            Packet::Event { attachments, .. } | Packet::Ack { attachments, .. } => attachments,
            Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. } => 0,
        };
        if partial.attachments.len() < due {
            return Ok(None);
        }
        Ok(self.partial.take())
    }

    /// What is to be done about a packet whose attachments have all come.
    ///
    /// # Errors
    /// A [`Violation`]: the connection must be closed.
    pub fn assembled<'a>(&mut self, whole: &'a Partial, limits: &Limits) -> Result<Step<'a>, Violation> {
        let packet = socket::decode(&whole.text, &limits.packet)?;
        self.step(packet, whole.attachments.clone(), limits)
    }

    fn step<'a>(
        &mut self,
        packet: Packet<'a>,
        attachments: Vec<Bytes>,
        limits: &Limits,
    ) -> Result<Step<'a>, Violation> {
        match packet {
            Packet::Event { nsp, ack, args, .. } => {
                self.joined(nsp)?;
                Ok(Step::Event(Event {
                    nsp,
                    ack,
                    args,
                    attachments,
                }))
            }
            Packet::Ack { nsp, id, args, .. } => {
                self.joined(nsp)?;
                Ok(Step::Answer(Answer {
                    nsp,
                    id,
                    args,
                    attachments,
                }))
            }
            Packet::Connect { nsp, auth } => self.connect(nsp, auth, limits),
            Packet::Disconnect { nsp } => {
                let joined = self.namespaces.remove(nsp).ok_or(Violation::NotConnected)?;
                Ok(Step::Left { nsp, joined })
            }
            Packet::ConnectError { .. } => Err(Violation::ConnectError),
        }
    }

    fn joined(&self, nsp: &str) -> Result<&Joined, Violation> {
        let joined = self.namespaces.get(nsp).filter(|joined| !joined.pending);
        joined.ok_or(Violation::NotConnected)
    }

    fn connect<'a>(&self, nsp: &'a str, auth: Option<&'a str>, limits: &Limits) -> Result<Step<'a>, Violation> {
        if self.namespaces.contains(nsp) {
            return Err(Violation::ConnectedTwice);
        }
        let exists = |list: &Vec<String>| list.iter().any(|n| n == nsp);
        if limits.packet.check_nsp(nsp).is_err() || !limits.namespaces.as_ref().is_none_or(exists) {
            return Ok(Step::Refuse {
                nsp,
                message: "Invalid namespace",
            });
        }
        if self.namespaces.len() >= limits.namespaces_max {
            return Ok(Step::Refuse {
                nsp,
                message: "Too many namespaces",
            });
        }
        Ok(Step::Connect { nsp, auth })
    }
}
