#![no_main]
//! Runs libFuzzer on `targets::config`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::config::run(input));
