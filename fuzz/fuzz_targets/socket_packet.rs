//! libFuzzer's way into `targets::socket_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| targets::socket_packet(text));
