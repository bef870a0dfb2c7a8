//! The tool's own counters can fail: `rtbench selftest`.

#![cfg(test)]

use std::process::Command;

#[test]
fn selftest_passes() {
    let output = Command::new(env!("CARGO_BIN_EXE_rtbench"))
        .arg("selftest")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains(" passed, 0 failed"), "{text}");
}
