//! A poll that waits for something to tell its client.

use super::{MemberId, Subscriber};
use crate::orders::Order;
use crate::ring::Logged;
use std::cell::{Cell, RefCell};
use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub(crate) struct Park {
    /// Something in the log is for it.
    hit: Cell<bool>,
    /// The store says that there is something.
    woken: Cell<bool>,
    notify: Notify,
    /// Its places in the hub.
    pub(super) members: RefCell<Vec<MemberId>>,
}

/// Why a poll looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Something in the log is for it.
    Entry,
    /// The store says that there is something.
    Wake,
}

impl Park {
    /// Another worker left something in the store.
    pub(super) fn wake(&self) {
        self.woken.set(true);
        self.notify.notify_one();
    }

    fn hit(&self) {
        self.hit.set(true);
        self.notify.notify_one();
    }

    /// Waits until there is something to look for.
    pub(crate) async fn news(&self) -> News {
        loop {
            self.notify.notified().await;
            match (self.hit.take(), self.woken.take()) {
                (true, _) => return News::Entry,
                (false, true) => return News::Wake,
                // What it tells of was seen with the news before.
                (false, false) => {}
            }
        }
    }
}

impl Subscriber for Park {
    fn deliver(&self, _: &Logged, _: bool) -> bool {
        self.hit();
        false
    }

    fn obey(&self, _: &Logged, _: &Order) {
        self.hit();
    }

    fn flush(&self) {}
}
