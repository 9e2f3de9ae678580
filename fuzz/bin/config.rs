//! Runs libFuzzer on `targets::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::config::run(input));
