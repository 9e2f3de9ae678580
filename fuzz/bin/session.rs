//! Runs libFuzzer on `targets::session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::session::run(input));
