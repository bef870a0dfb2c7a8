//! Whether a client may join a namespace: the application is asked, and what it answers is checked.

use crate::context::Context;
use crate::metrics::Limit;
use crate::packet::Packet;
use crate::random::random;
use app::{Admission, App, Connecting, WHO_BYTES_MAX};
use serde_json::value::RawValue;
use session::{Joined, Names, Pid, Record, Sid};

/// What a client is in a namespace, by the application's word.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) who: Option<String>,
    pub(crate) data: Option<Box<RawValue>>,
}

impl Identity {
    /// A membership that begins now.
    pub(crate) fn begin(self, context: &Context, record: &Record) -> Joined {
        let pid = (context.settings.recovery.enabled && record.offsets).then(|| Pid::new(&record.sid, random()));
        Joined {
            sid: Sid::public(random()),
            who: self.who,
            pid,
            pending: false,
            since: context.head(),
            rooms: Names::default(),
            data: self.data,
        }
    }
}

/// Why a client does not get into a namespace: it is answered with a CONNECT_ERROR.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The application's decision.
    #[error("the application refused: {message}")]
    Application {
        message: String,
        data: Option<Box<RawValue>>,
    },
    /// See [`WHO_BYTES_MAX`].
    #[error("the name of the user must not be longer than {WHO_BYTES_MAX} bytes")]
    LongName,
}

impl Refusal {
    /// The answer to CONNECT.
    pub(crate) fn packet(&self, nsp: &str) -> Packet {
        match self {
            Self::Application { message, data } => {
                Packet::connect_error(nsp, message, data.as_deref().map(RawValue::get))
            }
            Self::LongName => Packet::connect_error(nsp, &self.to_string(), None),
        }
    }
}

/// Asks the application about a client.
///
/// # Errors
/// A [`Refusal`], which is counted if a limit was reached.
pub(crate) fn ask(context: &Context, client: &Connecting<'_>) -> Result<Identity, Refusal> {
    let outcome = decide(&*context.app, client);
    if matches!(outcome, Err(Refusal::LongName)) {
        context.metrics.limits.one(Limit::User);
    }
    outcome
}

fn decide(app: &dyn App, client: &Connecting<'_>) -> Result<Identity, Refusal> {
    match app.connect(client) {
        Admission::Refuse { message, data } => Err(Refusal::Application { message, data }),
        Admission::Accept { who: Some(who), .. } if who.len() > WHO_BYTES_MAX => Err(Refusal::LongName),
        Admission::Accept { who, data } => Ok(Identity { who, data }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use app::{EventNames, Former, Reaction, Relay, Sender};
    use serde_json::json;
    use serde_json::value::to_raw_value;
    use session::Event;

    /// Knows users by the word in their auth object, and lets none have the session of a banned one.
    struct Doorman;

    impl App for Doorman {
        fn connect(&self, client: &Connecting<'_>) -> Admission {
            let banned = |former: Former<'_>| former.data.is_some_and(|data| data.get() == r#""banned""#);
            if client.resumed.is_some_and(banned) || !client.auth.is_some_and(|auth| auth.contains("please")) {
                return Admission::Refuse {
                    message: "who are you?".to_owned(),
                    data: None,
                };
            }
            Admission::Accept {
                who: client.resumed.and_then(|former| former.who).map(str::to_owned),
                data: None,
            }
        }

        fn event<'a>(&self, _: Sender<'_>, _: &Event<'a>) -> Reaction<'a> {
            unreachable!("nothing is sent")
        }
    }

    fn connecting<'a>(auth: &'a str, resumed: Option<Former<'a>>) -> Connecting<'a> {
        Connecting {
            nsp: "/",
            auth: Some(auth),
            address: "::1",
            resumed,
        }
    }

    #[test]
    fn the_application_sees_what_comes_back_and_may_refuse_it() {
        let data = to_raw_value("banned").expect("JSON");
        let former = |data| Some(Former { who: Some("ada"), data });
        let let_in = |client: &Connecting<'_>| decide(&Doorman, client).map(|identity| identity.who);
        assert_eq!(let_in(&connecting("please", None)).expect("let in"), None);
        let back = let_in(&connecting("please", former(None))).expect("let in");
        assert_eq!(back.as_deref(), Some("ada"));
        for refused in [
            connecting("please", former(Some(&*data))),
            connecting("hello", former(None)),
            connecting("hello", None),
        ] {
            let refusal = let_in(&refused).expect_err("let in");
            assert_eq!(
                refusal.packet("/").text.as_str(),
                r#"44{"message":"who are you?"}"#,
                "{refused:?}"
            );
        }
    }

    #[test]
    fn the_name_of_a_user_has_a_limit() {
        let names = || "x".to_owned();
        let relay = Relay::new(
            EventNames {
                join: names(),
                leave: names(),
                publish: names(),
                echo: names(),
                message: names(),
            },
            30,
        );
        // Bytes count, not characters.
        for (name, let_in) in [
            ("u".repeat(256), true),
            ("u".repeat(257), false),
            ("ü".repeat(128), true),
            ("ü".repeat(129), false),
        ] {
            let auth = json!({ "user": name }).to_string();
            match decide(&relay, &connecting(&auth, None)) {
                Ok(identity) => assert_eq!((identity.who, let_in), (Some(name), true)),
                Err(refusal) => {
                    assert!(!let_in, "{name}");
                    let expect = r#"44/a,{"message":"the name of the user must not be longer than 256 bytes"}"#;
                    assert_eq!(refusal.packet("/a").text.as_str(), expect);
                }
            }
        }
    }
}
