//! The files of the runtime directory: checked regularly, and restored if something has removed them.

use super::Reactor;
use crate::fleet::Moment;
use crate::sys::runtime::RESTORE_EVERY;
use tracing::{error, warn};

impl Reactor {
    /// Restores files of the runtime directory that were removed. A failure is logged once.
    pub(super) fn restore(&mut self, now: Moment) {
        if now < self.restore_at || self.verdict.is_some() {
            return;
        }
        self.restore_at = now + RESTORE_EVERY;
        let identity = self.specs.values().next().and_then(|spec| spec.identity.as_ref());
        let fault = match self.runtime.restore(identity) {
            Ok(what) => {
                if let Some(what) = what {
                    let directory = self.runtime.directory().display();
                    warn!(what, %directory, "removed from outside and restored");
                }
                match self.server.restore() {
                    Ok(true) => {
                        let path = self.server.path().display();
                        warn!(what = "control socket", %path, "removed from outside and restored");
                        None
                    }
                    Ok(false) => None,
                    Err(error) => Some(format!("binding {}: {error}", self.server.path().display())),
                }
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(fault) = fault.as_ref().filter(|fault| self.unrestored.as_ref() != Some(fault)) {
            error!(
                fault,
                "files of the runtime directory are missing and could not be restored"
            );
        }
        self.unrestored = fault;
    }
}
