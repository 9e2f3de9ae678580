#![no_main]
//! Runs libFuzzer on `targets::session`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::session::run(input));
