//! argv to command; only wiring.

use std::process::ExitCode;

fn main() -> ExitCode {
    supervisor::main(|inherited| {
        let supervisor::Inherited {
            control,
            setup,
            listeners,
            admin,
        } = inherited;
        gateway::run(gateway::Inherited {
            control,
            setup,
            listeners,
            admin,
            log_lines_dropped: supervisor::lines_dropped,
        })
    })
}
