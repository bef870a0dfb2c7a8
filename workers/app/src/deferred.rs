//! Stands for an application in processes of its own: the gateway asks those, and this decides about nothing.

use crate::{Admission, App, Arguments, Connecting, Reaction, Sender};
use session::Event;

/// Lets clients go on to be asked about, and back into memberships that the application has admitted.
#[derive(Clone, Copy, Debug)]
pub struct Deferred;

impl App for Deferred {
    fn connect(&self, client: &Connecting<'_>) -> Admission {
        let former = client.resumed.as_ref();
        Admission::Accept {
            who: former.and_then(|former| former.who).map(str::to_owned),
            data: former.and_then(|former| former.data).map(ToOwned::to_owned),
        }
    }

    fn event<'a>(&self, _: Sender<'_>, _: &Event<'a>) -> Reaction<'a> {
        Reaction {
            actions: Vec::new(),
            ack: Arguments {
                inner: "".into(),
                attachments: Vec::new(),
            },
            known: false,
        }
    }
}
