//! Runs libFuzzer on `targets::rows`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::rows::run(input));
