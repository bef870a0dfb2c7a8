//! argv to command; only wiring.

use std::process::ExitCode;

/// Half of a small message's user time was the C library's malloc; and thousands of short requests
/// among long-lived connections fragment its heap.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    supervisor::main(|inherited| {
        let supervisor::Inherited {
            control,
            setup,
            listeners,
        } = inherited;
        gateway::run(gateway::Inherited {
            control,
            setup,
            listeners,
        })
    })
}
