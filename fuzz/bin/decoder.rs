#![no_main]
//! Runs libFuzzer on `targets::decoder`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::decoder::run(input));
