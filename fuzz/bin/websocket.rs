//! Runs libFuzzer on `targets::websocket`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::websocket::run(input));
