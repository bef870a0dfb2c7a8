//! Live connections move from one worker to another: on a reload, when a worker is recycled, when
//! its slot goes, and when connections are evened out.
//!
//! The supervisor makes a socket pair and gives each worker an end; it is not in the way of what
//! follows. Both say which formats they know (`Hello`). Then, unit by unit: the old worker
//! asks a few connections to freeze ([`crate::sockets::FrozenConnection`]), and sends their sockets, their state
//! and a *token*. The token is an eventfd(2) with the value one: read(2) takes it, atomically, and
//! only one of all that try gets it. The process that has it owns the unit. The new worker takes it when
//! everything is rebuilt and before its first byte; the old one takes it when there is no good
//! answer (refused, silent, dead) and continues only if it got it. So there is no moment with two
//! writers, whichever process dies or sleeps, and none without an owner as long as one of them lives.

mod fault;
mod give;
mod take;
mod unit;

pub(crate) use give::{Handoff, give};
pub(crate) use take::take;

use crate::worker::Worker;
use serde::{Deserialize, Serialize};

/// Of [`crate::ws::ConnectionState`] and [`unit`]: what this build writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// What is said about how to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    /// Known formats.
    formats: Vec<u32>,
    /// Which Redis, and which keys in it: without the same there is no common truth. None: memory.
    store: Option<String>,
    /// Whether it takes idle HTTP connections; builds that did not say so do not.
    #[serde(default)]
    takes_idle: bool,
    /// Whether the application is in processes of its own: a session that it has admitted is of no use to another one.
    #[serde(default)]
    external: bool,
}

/// From the worker that gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromGiver {
    Hello(Hello),
    /// Descriptors come along: the token, the states, then this many sockets.
    Unit {
        sockets: usize,
    },
    /// The same with HTTP connections between two requests; what is known of each is what was read.
    Idle {
        sockets: usize,
    },
    /// Nothing more is frozen: there is time to store what came.
    Done,
}

/// From the worker that takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromTaker {
    Hello(Hello),
    /// The latest unit is not wanted; nothing of it was touched.
    Refused {
        why: String,
    },
    /// The latest unit is served.
    Owned,
    /// The sessions of a unit are stored as this worker's.
    Stored,
}

impl Hello {
    fn of(worker: &Worker) -> Self {
        let redis = worker.settings.redis.as_ref();
        Self {
            formats: vec![FORMAT],
            store: redis.map(|redis| format!("{redis} {}", redis.prefix)),
            takes_idle: true,
            external: worker.external.is_some(),
        }
    }

    /// Why there can be no handover.
    fn refuses(&self, other: &Self) -> Option<&'static str> {
        if self.store.is_none() || self.store != other.store {
            Some("the other worker has another store")
        } else if !self.formats.iter().any(|format| other.formats.contains(format)) {
            Some("no common format")
        } else if self.external != other.external {
            Some("the other worker has another application (app.kind)")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_understood_is_given() {
        let hello = |formats: &[u32], store: Option<&str>| Hello {
            formats: formats.to_vec(),
            store: store.map(str::to_owned),
            takes_idle: true,
            external: false,
        };
        let old = hello(&[1, 2], Some("redis://a/0 x"));
        assert_eq!(old.refuses(&hello(&[2, 3], Some("redis://a/0 x"))), None);
        assert!(old.refuses(&hello(&[3], Some("redis://a/0 x"))).is_some());
        assert!(old.refuses(&hello(&[2], Some("redis://a/1 x"))).is_some());
        assert!(old.refuses(&hello(&[2], None)).is_some());
        let external = Hello {
            external: true,
            ..hello(&[1], Some("redis://a/0 x"))
        };
        assert!(external.refuses(&old).is_some_and(|why| why.contains("app.kind")));
        assert!(hello(&[1], None).refuses(&hello(&[1], None)).is_some());
    }
}
