//! What a child says on its control socket if it fails between fork and exec, prepared before the fork.

use boot::{Exit, ToSupervisor};

/// Where the digits of the error number go in a prepared report.
pub(super) const ERRNO_PLACE: &str = "000";

/// Control messages for a child that fails before exec, with a place for the error number.
pub(super) struct ErrorReports {
    pub(super) descriptors: Vec<u8>,
    pub(super) exec: Vec<u8>,
    pub(super) identity: Vec<u8>,
}

impl ErrorReports {
    pub(super) fn prepare() -> Self {
        let message = |what: &str| {
            let reason = format!("{what} (errno {ERRNO_PLACE})");
            // Encoding a short text cannot fail; an empty report would only lose the reason.
            boot::encode(&ToSupervisor::Failed {
                code: Exit::Internal.code(),
                reason,
            })
            .unwrap_or_default()
        };
        Self {
            descriptors: message("arranging descriptors of the worker"),
            exec: message("executing the worker; is the binary executable by workers.user?"),
            identity: message("becoming workers.user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fits_its_buffer_and_has_a_place_for_the_number() {
        let reports = ErrorReports::prepare();
        for message in [reports.descriptors, reports.exec, reports.identity] {
            assert!(message.len() <= 256);
            assert_eq!(message.windows(3).filter(|window| *window == b"000").count(), 1);
        }
    }
}
