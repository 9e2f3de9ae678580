#![no_main]
//! Runs libFuzzer on `targets::rows`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::rows::run(input));
