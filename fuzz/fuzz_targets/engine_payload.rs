//! libFuzzer's way into `targets::engine_payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &str| targets::engine_payload(body));
