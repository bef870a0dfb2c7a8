//! Session ids and private recovery ids.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The text is no id of ours: wrong length, or other characters than those of URL-safe base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session id")]
pub struct IdError;

fn check(text: &str, chars: usize) -> Result<(), IdError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if text.len() == chars && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(IdError)
    }
}

/// A session id: 20 characters of URL-safe base64, 120 random bits. The Engine.IO sid is a secret
/// of its client. A Socket.IO sid is public, since it is also the name of a room: it has 96 random bits and a fixed end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Sid(Box<str>);

impl Sid {
    /// Length of its text.
    pub const CHARS: usize = 20;

    /// From 15 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 15]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// How a Socket.IO sid ends, so that it can be told from the name of any other room. Applications have room names of 20
    /// such characters too (ids of documents, for example), but hardly one with this end.
    const PUBLIC_END: &str = "_sid";

    /// A Socket.IO sid, from 12 random bytes: 16 characters and an end by which [`Self::is_public`] knows it.
    #[must_use]
    pub fn public(bytes: [u8; 12]) -> Self {
        Self(format!("{}{}", URL_SAFE_NO_PAD.encode(bytes), Self::PUBLIC_END).into())
    }

    /// Whether a name has the form of a Socket.IO sid. Those that an older build gave do not.
    #[must_use]
    pub fn is_public(name: &str) -> bool {
        check(name, Self::CHARS).is_ok() && name.ends_with(Self::PUBLIC_END)
    }

    /// Reads a client's sid, so that nothing else ever gets into a key.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, Self::CHARS)?;
        Ok(Self(text.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Sid {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

/// A private recovery id: the Engine.IO sid of the session that it was made for, which is where
/// the state is found, followed by 96 random bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Pid(Box<str>);

impl Pid {
    const CHARS: usize = Sid::CHARS + 16;

    /// For a session, from 12 random bytes.
    #[must_use]
    pub fn new(session: &Sid, bytes: [u8; 12]) -> Self {
        Self(format!("{session}{}", URL_SAFE_NO_PAD.encode(bytes)).into())
    }

    /// Reads a client's pid.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, Self::CHARS)?;
        Ok(Self(text.into()))
    }

    /// The session it was made for.
    #[must_use]
    pub fn session(&self) -> Sid {
        Sid(self.0.get(..Sid::CHARS).unwrap_or_default().into())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Pid {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_nothing_that_could_break_a_key() {
        let sid = Sid::from_random([255; 15]);
        assert_eq!(sid.as_str().len(), Sid::CHARS);
        assert_eq!(Sid::parse(sid.as_str()), Ok(sid.clone()));
        for bad in [
            "",
            "short",
            "xsySG-lJ9RCukTPBAAA}",
            "xsySG-lJ9RCukTPBAAAAA",
            "xsySG-lJ9RCukTPBAA\u{e9}",
        ] {
            assert_eq!(Sid::parse(bad), Err(IdError), "{bad}");
        }
        let public = Sid::public([255; 12]);
        assert_eq!(public.as_str(), "________________".to_owned() + "_sid");
        assert_eq!(Sid::parse(public.as_str()), Ok(public.clone()));
        for (name, expect) in [
            (public.as_str(), true),
            (sid.as_str(), false),
            // Ids of other systems with 20 characters: Firestore, Firebase, xid.
            ("Vb1PeDzTVcIRqHmNwR4n", false),
            ("-JhLeOlGIEjaIOFHR0xd", false),
            ("9m4e2mr0ui3e8a215n4g", false),
            ("short_sid", false),
            ("a room with spac_sid", false),
            ("xsySG-lJ9RCukTPBA_SID", false),
        ] {
            assert_eq!(Sid::is_public(name), expect, "{name}");
        }
        let pid = Pid::new(&sid, [7; 12]);
        assert_eq!(Pid::parse(pid.as_str()).map(|p| p.session()), Ok(sid));
    }
}
