//! Runs libFuzzer on `targets::decoder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| causeway_fuzz::targets::decoder::run(input));
